"""The health of agents: `/agents/{ref}/health` and `/health/agents`."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.services.services import Services


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/health."""
    Query(request, ())
    return answer("Agent health status", services.health.get(ref))


def page(request: ApiRequest, services: Services) -> Response:
    """GET /health/agents."""
    Query(request, ())
    return answer("All agent health statuses", services.health.all())


ROUTES = (
    Rule("/agents/<ref>/health", methods=["GET"], endpoint=get),
    Rule("/health/agents", methods=["GET"], endpoint=page),
)
