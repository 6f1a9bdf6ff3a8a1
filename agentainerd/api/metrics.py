"""What agents and the daemon use: `/agents/{ref}/metrics`, its history, `/metrics/agents`, `/metrics/daemon`, `/metrics`."""

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.errors import InvalidParameter
from agentainerd.services.metrics_reports import HISTORY_S, MAX_HISTORY_S, daemon_json
from agentainerd.services.services import Services


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/metrics."""
    Query(request, ())
    return answer("Metrics retrieved successfully", services.metrics.get(ref))


def page(request: ApiRequest, services: Services) -> Response:
    """GET /metrics/agents."""
    max_age_s = Query(request, ("max_age",)).seconds("max_age", MAX_HISTORY_S)
    return answer("Metrics retrieved successfully", services.metrics.all(max_age_s))


def history(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/metrics/history."""
    query = Query(request, ("duration", "step"))
    duration_s = query.seconds("duration", MAX_HISTORY_S)
    step_s = query.seconds("step", MAX_HISTORY_S)
    if step_s is not None and step_s < 1:
        raise InvalidParameter("step", "is shorter than a second")
    found = services.metrics.history(ref, HISTORY_S if duration_s is None else duration_s, step_s)
    return answer("Metrics history retrieved successfully", found)


def daemon(request: ApiRequest, services: Services) -> Response:
    """GET /metrics/daemon."""
    Query(request, ())
    return answer("Metrics retrieved successfully", daemon_json(services.daemon_metrics.read()))


def prometheus(request: ApiRequest, services: Services) -> Response:
    """GET /metrics."""
    from agentainerd.api.exposition import (
        expose,
    )  # most daemons are never scraped: it and its library stay out of memory

    Query(request, ())
    accept = request.headers.get("Accept", "")
    models = services.model_reports.totals()
    text, media_type = expose(services.metrics.figures(), services.daemon_metrics.read(), models, accept)
    return Response(text, content_type=media_type)


ROUTES = (
    Rule("/metrics", methods=["GET"], endpoint=prometheus),
    Rule("/metrics/daemon", methods=["GET"], endpoint=daemon),
    Rule("/agents/<ref>/metrics", methods=["GET"], endpoint=get),
    Rule("/agents/<ref>/metrics/history", methods=["GET"], endpoint=history),
    Rule("/metrics/agents", methods=["GET"], endpoint=page),
)
