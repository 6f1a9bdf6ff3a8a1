"""What agents use: `/agents/{ref}/metrics` and `/metrics/agents`."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.services.services import Services


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/metrics."""
    Query(request, ())
    return answer("Metrics retrieved successfully", services.metrics.get(ref))


def page(request: ApiRequest, services: Services) -> Response:
    """GET /metrics/agents."""
    Query(request, ())
    return answer("Metrics retrieved successfully", services.metrics.all())


ROUTES = (
    Rule("/agents/<ref>/metrics", methods=["GET"], endpoint=get),
    Rule("/metrics/agents", methods=["GET"], endpoint=page),
)
