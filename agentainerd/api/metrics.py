"""What agents use: `/agents/{ref}/metrics`, its history, and `/metrics/agents`."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.errors import InvalidParameter
from agentainerd.services.metrics_reports import HISTORY_S, MAX_HISTORY_S
from agentainerd.services.services import Services


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/metrics."""
    Query(request, ())
    return answer("Metrics retrieved successfully", services.metrics.get(ref))


def page(request: ApiRequest, services: Services) -> Response:
    """GET /metrics/agents."""
    Query(request, ())
    return answer("Metrics retrieved successfully", services.metrics.all())


def history(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/metrics/history."""
    query = Query(request, ("duration", "step"))
    duration_s = query.seconds("duration", MAX_HISTORY_S)
    step_s = query.seconds("step", MAX_HISTORY_S)
    if step_s is not None and step_s < 1:
        raise InvalidParameter("step", "is shorter than a second")
    found = services.metrics.history(ref, HISTORY_S if duration_s is None else duration_s, step_s)
    return answer("Metrics history retrieved successfully", found)


ROUTES = (
    Rule("/agents/<ref>/metrics", methods=["GET"], endpoint=get),
    Rule("/agents/<ref>/metrics/history", methods=["GET"], endpoint=history),
    Rule("/metrics/agents", methods=["GET"], endpoint=page),
)
