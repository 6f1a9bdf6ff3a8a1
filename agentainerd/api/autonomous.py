"""`/api/agents/{ref}`: the routes of the autonomous-agent document, on the runs of one conversation for each agent.

Errors are `{"error": text}`, as there, with our code and hint beside it; what the state of the agent forbids is 400.
"""

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.agentos_exchange import read
from agentainerd.api.errors import INTERNAL, error_fields, status_of
from agentainerd.api.exchange import SSE, ApiRequest, answer_flat
from agentainerd.api.run_dialects import OPENING
from agentainerd.errors import AgentainerError, Conflict, InvalidParameter, NotFound, TooLarge, TooManyRequests
from agentainerd.model.dialect_bridge import BridgeProjection, error_frame
from agentainerd.model.runs import Run
from agentainerd.services.services import Services

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
BUSY = "Agent is already executing a task"
_ITS_OWN = (NotFound, TooLarge, TooManyRequests)
"""Errors whose status is ours; all others are 400 or 500 there."""


def speaks_bridge(handler: Callable[..., Response]) -> Callable[..., Response]:
    """Have a handler's errors told as the document has them."""

    @wraps(handler)
    def answering(*arguments: Any, **values: Any) -> Response:
        try:
            return handler(*arguments, **values)
        except AgentainerError as error:
            return _refusal(error)

    return answering


class StartBody(msgspec.Struct, frozen=True):
    """What the agent is to do; empty: what its variable AGENT_TASK says."""

    task: str = ""


class ResumeBody(msgspec.Struct, frozen=True):
    """What it is to do next."""

    newTask: str = ""  # noqa: N815 - the document's name


class ChatBody(msgspec.Struct, frozen=True):
    """What the user says."""

    message: str = ""


@speaks_bridge
def start(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/agents/{ref}/start."""
    body = read(request, StartBody) if request.has_body() else StartBody()
    run = services.autonomous.start(ref, body.task, request.actor)
    return answer_flat({"success": True, "message": "Agent started", **_names(run)})


@speaks_bridge
def resume(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/agents/{ref}/resume."""
    services.autonomous.check_idle(ref)
    task = _required(read(request, ResumeBody).newTask, "New task is required")
    run = services.autonomous.resume(ref, task, request.actor)
    return answer_flat({"success": True, "message": "Agent resumed with new task", **_names(run)})


@speaks_bridge
def chat(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/agents/{ref}/chat."""
    history = services.autonomous.history(ref)
    message = _required(read(request, ChatBody).message, "Message required")
    try:
        run, after = services.autonomous.chat(ref, message, request.actor)
    except Conflict:
        return Response(error_frame(BUSY), content_type=SSE, headers=HEADERS)
    said = [{"role": one.role, "content": one.content} for one in history if one.role in _SPEAKERS and one.content]
    frames = _frames(services, run, BridgeProjection(message, said), after)
    return Response(frames, content_type=SSE, headers={**HEADERS, "Location": f"/api/v1/runs/{run.id}/events"})


@speaks_bridge
def remove(request: ApiRequest, services: Services, ref: str) -> Response:
    """DELETE /api/agents/{ref}."""
    services.autonomous.remove(ref, request.actor)
    return answer_flat({"success": True})


ROUTES = (
    Rule("/api/agents/<ref>/start", methods=["POST"], endpoint=start),
    Rule("/api/agents/<ref>/resume", methods=["POST"], endpoint=resume),
    Rule("/api/agents/<ref>/chat", methods=["POST"], endpoint=chat),
    Rule("/api/agents/<ref>", methods=["DELETE"], endpoint=remove),
)
_SPEAKERS = ("user", "assistant")


def _frames(services: Services, run: Run, projection: BridgeProjection, after: int) -> Iterator[bytes]:
    """Return the run's events behind number `after` as frames, to the last. The run goes on when nobody reads any more."""
    yield OPENING
    try:
        for event in services.runs.follow(run.id, after):
            if event is not None:
                yield b"".join(projection.feed(msgspec.json.decode(event.payload), event.at))
        yield b"".join(projection.rest())
    except AgentainerError as error:
        yield error_frame(error.message)


def _required(text: str, reason: str) -> str:
    if not text.strip():
        raise InvalidParameter("body", reason)
    return text


def _names(run: Run | None) -> dict[str, str]:
    return {"run_id": run.id, "session_id": run.session_id} if run else {}


def _refusal(error: AgentainerError) -> Response:
    status = status_of(error) if isinstance(error, _ITS_OWN) else INTERNAL
    message = error.message
    if isinstance(error, InvalidParameter):
        status, message = 400, error.reason
    elif isinstance(error, Conflict):
        status, message = 400, "Agent is currently running" if error.code == "SESSION_BUSY" else error.message
    elif isinstance(error, NotFound) and error.noun == "agent":
        message = "Agent not found"
    response = answer_flat({"error": message, **error_fields(error)}, status=status)
    if error.retry_after_s is not None:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response
