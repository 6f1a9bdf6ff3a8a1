"""`/api/v1/agents`: agents as the AgentOS document lists and runs them.

A run that was started here belongs to who started it, as there: when the client of a stream goes away, or an answer takes longer
than `api.request_timeout_s`, it is cancelled, unless the body says `"on_disconnect": "continue"`.
"""

import time
from collections.abc import Iterator

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.agentos_exchange import NO_INPUT, flag, read, speaks_agentos, speaks_events
from agentainerd.api.exchange import SSE, ApiRequest, answer_flat
from agentainerd.api.run_dialects import OPENING, story_of
from agentainerd.errors import AgentainerError, DeadlineExceeded, InvalidParameter
from agentainerd.model.agentos import run_json
from agentainerd.model.agui import TERMINAL
from agentainerd.model.dialect_agno import CANCELLED, INPUT_REQUIRED, AgnoProjection, encode, parse_types
from agentainerd.model.interrupts import question_of
from agentainerd.model.media import Media, effective_input, parse_media
from agentainerd.model.runs import OnDisconnect, Run, RunRequest, RunStatus
from agentainerd.services.agents import AgentFilter
from agentainerd.services.services import Services

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
MAX_AGENTS = 100_000
LOOK_S = 1.0  # so often it is seen whether a client that waits has left


class RunContext(msgspec.Struct, frozen=True):
    """What later versions of that document send along; the other fields say nothing to us."""

    run_id: str | None = None
    session_id: str | None = None


class RunBody(msgspec.Struct, frozen=True):
    """What is asked of an agent. `media` in any of its forms (model/media.py)."""

    input: str = ""
    session_id: str = ""
    stream: bool = False
    media: object = None
    run_context: RunContext = RunContext()
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL

    @property
    def session(self) -> str:
        """The session that is meant."""
        return self.session_id or self.run_context.session_id or ""


@speaks_agentos
def page(request: ApiRequest, services: Services) -> Response:
    """GET /api/v1/agents."""
    found, _ = services.agents.page(AgentFilter(), limit=MAX_AGENTS)
    agents = [{"id": agent.id, "name": agent.name} for agent in found]
    return answer_flat({"agents": agents, "count": len(agents)})


@speaks_agentos
def run(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/v1/agents/{ref}/run."""
    body = read(request, RunBody)
    begun = _begin(request, services, ref, body, _asked(body))
    if body.stream or flag(request, "stream_events"):
        return _streamed(request, services, begun, body)
    ended = _wait(request, services, begun)
    if ended.status is RunStatus.COMPLETED:
        return answer_flat(run_json(ended))
    raise _failure(ended, request.limits.timeout_s)


@speaks_events
def stream(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/v1/agents/{ref}/run/stream."""
    body = read(request, RunBody)
    try:
        asked = _asked(body)
    except InvalidParameter:
        services.agents.get(ref)  # one that is not there is told of first
        raise
    return _streamed(request, services, _begin(request, services, ref, body, asked), body)


ROUTES = (
    Rule("/api/v1/agents", methods=["GET"], endpoint=page),
    Rule("/api/v1/agents/<ref>/run", methods=["POST"], endpoint=run),
    Rule("/api/v1/agents/<ref>/run/stream", methods=["POST"], endpoint=stream),
)


def _asked(body: RunBody) -> tuple[str, tuple[Media, ...]]:
    attachments = parse_media(body.media)
    asked = effective_input(body.input, attachments)
    if not asked:
        raise InvalidParameter("input", NO_INPUT)
    return asked, attachments


def _begin(
    request: ApiRequest, services: Services, ref: str, body: RunBody, asked: tuple[str, tuple[Media, ...]]
) -> Run:
    text, attachments = asked
    wanted = RunRequest(
        agent_id=ref,
        input=text,
        session_id=body.session,
        media=[msgspec.to_builtins(one) for one in attachments],
        on_disconnect=body.on_disconnect,
    )
    return services.runs.create(wanted, request.actor, key=request.headers.get("Idempotency-Key", ""))


def _wait(request: ApiRequest, services: Services, begun: Run) -> Run:
    """Wait for the end of a run, or until it asks for something, while its client does, and not longer than is allowed."""
    end = time.monotonic() + request.limits.timeout_s
    run = begun
    try:
        while not run.is_settled and (left_s := end - time.monotonic()) > 0 and not request.has_left():
            run = services.runs.wait(run.id, min(LOOK_S, left_s))
    finally:
        if begun.on_disconnect is OnDisconnect.CANCEL and run.status is not RunStatus.INPUT_REQUIRED:
            services.runs.abandon(begun.id)
    return run


def _failure(run: Run, timeout_s: float) -> AgentainerError:
    details: dict[str, object] = {"run_id": run.id}
    if run.status is RunStatus.INPUT_REQUIRED:
        return AgentainerError(
            f"it waits for an answer: {question_of(run.interrupts)}", code="EXECUTION_ERROR",
            details={**details, "reason": INPUT_REQUIRED, "interrupts": run.interrupts},
            hint=f"answer it: POST /api/v1/runs/{run.id}/input, or agentainerctl runs answer {run.id} TEXT",
        )  # fmt: skip
    if not run.status.is_final and run.on_disconnect is OnDisconnect.CONTINUE:
        return DeadlineExceeded(
            f"run {run.id} was not done within {timeout_s:g} s, and goes on", code="RUN_UNDER_WAY", details=details,
            hint=f"read on at /api/v1/runs/{run.id}/events",
        )  # fmt: skip
    if run.status in (RunStatus.QUEUED, RunStatus.STARTING):
        return AgentainerError(
            f"agent '{run.agent}' did not begin within {timeout_s:g} s, and the run is cancelled", code=CANCELLED,
            details=details, hint=f"see whether it runs: agentainerctl inspect {run.agent}",
        )  # fmt: skip
    if not run.status.is_final:
        return AgentainerError(
            f"it was not done within {timeout_s:g} s, and is cancelled", code=CANCELLED, details=details,
            hint="the bound is api.request_timeout_s; /run/stream has none",
        )  # fmt: skip
    message = run.error.message if run.error else "it did not complete"
    if run.status is RunStatus.CANCELLED:
        return AgentainerError(message, code=CANCELLED, details=details)
    return AgentainerError(
        message, code="EXECUTION_ERROR", details={**details, "reason": run.error.code if run.error else ""}
    )


def _streamed(request: ApiRequest, services: Services, begun: Run, body: RunBody) -> Response:
    wanted = parse_types(request.args.get("types", ""))
    headers = {**HEADERS, "Location": f"/api/v1/runs/{begun.id}/events"}
    return Response(_frames(services, begun, body, wanted), content_type=SSE, headers=headers)


def _frames(services: Services, run: Run, body: RunBody, wanted: frozenset[str]) -> Iterator[bytes]:
    """Return the run's events as frames, to the last; whoever stops to read before that cancels it."""
    projection = AgnoProjection(story_of(run, body.run_context.run_id or ""))
    is_over = keeps = run.on_disconnect is OnDisconnect.CONTINUE
    told = projection.begin(run.created_at)
    try:
        if wanted and "run_start" not in wanted:
            yield OPENING
        yield encode(told, wanted)
        for event in services.runs.follow(run.id):
            if event is not None:
                is_over = keeps or event.type in TERMINAL
                yield encode(projection.feed(msgspec.json.decode(event.payload), event.at), wanted)
        yield encode(projection.rest(), wanted)
    except AgentainerError as error:
        is_over = True  # the run goes on: its events can't be read now
        yield encode(projection.break_off(error.message, time.time()), wanted)
    finally:
        if not is_over:
            services.runs.abandon(run.id)
