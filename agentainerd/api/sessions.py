"""`/api/v1/sessions`: the AgentOS document's routes, with what was said in a session as pages and as one document beside them."""

from typing import Any

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd import defaults
from agentainerd.api.agentos_exchange import flag, number, read, speaks_agentos
from agentainerd.api.exchange import ApiRequest, answer_flat
from agentainerd.errors import NotFound
from agentainerd.model import agentos
from agentainerd.model.sessions import Session
from agentainerd.services.run_views import run_json
from agentainerd.services.services import Services

LINKS = ("agent_id", "user_id", "team_id", "workflow_id")


class CreateBody(msgspec.Struct, frozen=True):
    """What POST /api/v1/sessions takes; the agent need not be there."""

    agent_id: str = ""
    user_id: str = ""
    team_id: str = ""
    workflow_id: str = ""
    name: str = ""
    metadata: dict[str, Any] = {}


class UpdateBody(msgspec.Struct, frozen=True):
    """What PUT takes: an empty name keeps the one that is there; the maps are replaced whole where they are given."""

    name: str = ""
    metadata: dict[str, Any] | None = None
    state: dict[str, Any] | None = None


class ReuseBody(msgspec.Struct, frozen=True):
    """What a session is bound to from now on; what is empty stays."""

    agent_id: str = ""
    team_id: str = ""
    workflow_id: str = ""
    user_id: str = ""


@speaks_agentos
def create(request: ApiRequest, services: Services) -> Response:
    """POST /api/v1/sessions."""
    fields = msgspec.structs.asdict(read(request, CreateBody))
    return answer_flat(_shown(services, services.sessions.create(request.actor, **fields)), status=201)


@speaks_agentos
def page(request: ApiRequest, services: Services) -> Response:
    """GET /api/v1/sessions."""
    wanted = {name: request.args.get(name, "") for name in LINKS}
    limit = number(request, "limit", defaults.PAGE_LIMIT, defaults.MAX_PAGE_LIMIT)
    found, total = services.sessions.page(wanted, limit=limit, offset=number(request, "offset", 0, 2**31))
    shown = [_shown(services, session) for session in found]
    return answer_flat({"sessions": shown, "count": len(shown), "total": total})


@speaks_agentos
def get(request: ApiRequest, services: Services, session_id: str) -> Response:
    """GET /api/v1/sessions/{session_id}."""
    return answer_flat(_shown(services, services.sessions.get(session_id)))


@speaks_agentos
def update(request: ApiRequest, services: Services, session_id: str) -> Response:
    """PUT /api/v1/sessions/{session_id}."""
    body = read(request, UpdateBody)
    session = services.sessions.update(
        session_id, request.actor, name=body.name, metadata=body.metadata, state=body.state
    )
    return answer_flat(_shown(services, session))


@speaks_agentos
def delete(request: ApiRequest, services: Services, session_id: str) -> Response:
    """DELETE /api/v1/sessions/{session_id}."""
    services.sessions.delete(session_id, request.actor)
    return answer_flat({"message": "session deleted successfully"})


@speaks_agentos
def summary(request: ApiRequest, services: Services, session_id: str) -> Response:
    """GET /api/v1/sessions/{session_id}/summary."""
    found = services.sessions.get(session_id).summary
    if found is None:
        raise NotFound("summary", session_id, message=f"session '{session_id}' has no summary yet: POST makes one")
    return answer_flat({"summary": agentos.summary_json(found)})


@speaks_agentos
def summarize(request: ApiRequest, services: Services, session_id: str) -> Response:
    """POST /api/v1/sessions/{session_id}/summary; with `async` the same, as it takes no time, and another answer."""
    made = services.sessions.summarize(session_id, request.actor).summary
    if flag(request, "async"):
        return answer_flat({"status": "scheduled", "session_id": session_id}, status=202)
    return answer_flat({"summary": made and agentos.summary_json(made)})


@speaks_agentos
def reuse(request: ApiRequest, services: Services, session_id: str) -> Response:
    """POST /api/v1/sessions/{session_id}/reuse."""
    targets = msgspec.structs.asdict(read(request, ReuseBody))
    return answer_flat(_shown(services, services.sessions.reuse(session_id, request.actor, targets)))


@speaks_agentos
def history(request: ApiRequest, services: Services, session_id: str) -> Response:
    """GET /api/v1/sessions/{session_id}/history."""
    session = services.sessions.get(session_id)
    wanted = number(request, "num_messages", 0, defaults.MAX_SESSION_MESSAGES)
    messages = services.sessions.last_messages(session_id, wanted or defaults.MAX_SESSION_MESSAGES)
    runs = services.sessions.runs(session_id, defaults.SESSION_RUNS_SHOWN)
    return answer_flat(agentos.history_json(session, messages, runs, stream_events=flag(request, "stream_events")))


@speaks_agentos
def messages(request: ApiRequest, services: Services, session_id: str) -> Response:
    """GET /api/v1/sessions/{session_id}/messages."""
    limit = number(request, "limit", defaults.PAGE_LIMIT, defaults.MAX_PAGE_LIMIT) or 1
    after = number(request, "cursor", 0, 2**62)
    found = services.sessions.messages(session_id, after=after, limit=limit)
    shown = [agentos.message_json(message) | agentos.origin_json(message) for _, message in found]
    more = {"next_cursor": str(found[-1][0])} if len(found) == limit else {}
    return answer_flat({"messages": shown, **more})


@speaks_agentos
def export(request: ApiRequest, services: Services, session_id: str) -> Response:
    """GET /api/v1/sessions/{session_id}/export."""
    session, runs = services.sessions.get(session_id), services.sessions.runs(session_id)
    said = services.sessions.last_messages(session_id, defaults.MAX_SESSION_MESSAGES)
    return answer_flat(
        {
            "session": agentos.session_json(session, runs),
            "messages": [agentos.message_json(message) | agentos.origin_json(message) for message in said],
            "runs": [run_json(run) for run in runs],
        }
    )


ROUTES = (
    Rule("/api/v1/sessions", methods=["POST"], endpoint=create),
    Rule("/api/v1/sessions", methods=["GET"], endpoint=page),
    Rule("/api/v1/sessions/<session_id>", methods=["GET"], endpoint=get),
    Rule("/api/v1/sessions/<session_id>", methods=["PUT"], endpoint=update),
    Rule("/api/v1/sessions/<session_id>", methods=["DELETE"], endpoint=delete),
    Rule("/api/v1/sessions/<session_id>/summary", methods=["GET"], endpoint=summary),
    Rule("/api/v1/sessions/<session_id>/summary", methods=["POST"], endpoint=summarize),
    Rule("/api/v1/sessions/<session_id>/reuse", methods=["POST"], endpoint=reuse),
    Rule("/api/v1/sessions/<session_id>/history", methods=["GET"], endpoint=history),
    Rule("/api/v1/sessions/<session_id>/messages", methods=["GET"], endpoint=messages),
    Rule("/api/v1/sessions/<session_id>/export", methods=["GET"], endpoint=export),
)


def _shown(services: Services, session: Session) -> agentos.Json:
    return agentos.session_json(session, services.sessions.runs(session.id, defaults.SESSION_RUNS_SHOWN))
