"""`/models`, and `/usage`: what they were used for."""

import time

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, answer
from agentainerd.errors import InvalidParameter
from agentainerd.services.model_reports import By
from agentainerd.services.services import Services

USAGE_S = 30 * 86400.0


def page(request: ApiRequest, services: Services) -> Response:
    """GET /models."""
    Query(request, ())
    return answer("Models retrieved successfully", services.model_reports.models())


def usage(request: ApiRequest, services: Services) -> Response:
    """GET /usage."""
    query = Query(request, ("since", "by", "agent"))
    by = query.text("by", By.AGENT)
    if by not in tuple(By):
        raise InvalidParameter("by", f"{by[:64]!r} is none of {', '.join(By)}")
    since = query.moment("since") or time.time() - USAGE_S
    found = services.model_reports.usage(since, By(by), query.text("agent"))
    return answer("Usage retrieved successfully", found)


def of_run(request: ApiRequest, services: Services, run_id: str) -> Response:
    """GET /usage/runs/{run_id}."""
    Query(request, ())
    return answer("Usage retrieved successfully", services.model_reports.of_run(services.runs.get(run_id).id))


def of_session(request: ApiRequest, services: Services, session_id: str) -> Response:
    """GET /usage/sessions/{session_id}."""
    Query(request, ())
    session = services.sessions.get(session_id)
    return answer("Usage retrieved successfully", services.model_reports.of_session(session.id))


ROUTES = (
    Rule("/models", methods=["GET"], endpoint=page),
    Rule("/usage", methods=["GET"], endpoint=usage),
    Rule("/usage/runs/<run_id>", methods=["GET"], endpoint=of_run),
    Rule("/usage/sessions/<session_id>", methods=["GET"], endpoint=of_session),
)
