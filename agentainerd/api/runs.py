"""`/api/v1/runs`: give an agent work, watch it from wherever one likes, answer what it asks, end it."""

from collections.abc import Callable, Iterator

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import SSE, ApiRequest, Query, answer, stream_events
from agentainerd.api.run_dialects import DIALECTS, translated
from agentainerd.errors import InvalidParameter
from agentainerd.model.agui import TERMINAL
from agentainerd.model.dialect_agno import parse_types
from agentainerd.model.interrupts import GivenAnswers
from agentainerd.model.runs import CancelMode, OnDisconnect, Run, RunEvent, RunRequest, RunStatus
from agentainerd.services.run_views import listed_run_json, run_event_json, run_json
from agentainerd.services.services import Services

MAX_WAIT_S = 600.0
HEARTBEAT = b": still here\n"  # one line feed: an empty line after an id would be an event for some readers
FORMATS = ("envelope", "raw", "agui")
"""`raw` is another name of `envelope`: the event as it is stored."""


class CancelBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of a cancel; `wait_s`: how long its end may be waited for."""

    mode: CancelMode = CancelMode.INTERRUPT
    wait_s: float = 0.0


class CancelAllBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which runs are to end: those that match all that is said."""

    agent_id: str = ""
    session_id: str = ""
    status: RunStatus | None = None
    mode: CancelMode = CancelMode.INTERRUPT


def create(request: ApiRequest, services: Services) -> Response:
    """POST /api/v1/runs."""
    query = Query(request, ("wait",))
    wait_s = query.seconds("wait", MAX_WAIT_S)
    wanted = request.read_json(RunRequest)
    run = services.runs.create(wanted, request.actor, key=request.headers.get("Idempotency-Key", ""))
    return _begun(request, services, run, wait_s, after=0, said="Run accepted")


def page(request: ApiRequest, services: Services) -> Response:
    """GET /api/v1/runs."""
    query = Query(request, ("agent_id", "session_id", "status", "limit", "cursor"))
    runs, following = services.runs.page(
        agent=query.text("agent_id"),
        session_id=query.text("session_id"),
        status=status_of(query.text("status")),
        limit=query.limit(),
        cursor=query.text("cursor"),
    )
    return answer("Runs retrieved successfully", [listed_run_json(run) for run in runs], next_cursor=following or None)


def get(request: ApiRequest, services: Services, run_id: str) -> Response:
    """GET /api/v1/runs/{id}; `wait`: when it is over, but after so long at the latest."""
    wait_s = Query(request, ("wait",)).seconds("wait", MAX_WAIT_S)
    run = services.runs.wait(run_id, wait_s) if wait_s else services.runs.get(run_id)
    return answer("Run retrieved successfully", run_json(run))


def events(request: ApiRequest, services: Services, run_id: str) -> Response:
    """GET /api/v1/runs/{id}/events."""
    query = Query(request, ("after", "types", "format", "follow", "limit"))
    run = services.runs.get(run_id)
    after = query.integer("after", _last_seen(request), 0, 2**53)
    types = parse_types(query.text("types"))
    if (dialect := query.text("format")) in DIALECTS:
        found = translated(services.runs.follow(run_id), dialect, run, after, types)
        return stream_events(_Reader(services, run, is_owner=False), found)
    shown = _message_of(dialect or "envelope")
    if query.flag("follow") or SSE in request.headers.get("Accept", ""):
        return _stream(services, run, after, shown, types=types)
    page = services.runs.events(run_id, after, query.limit())
    listed = [run_event_json(run, event) for event in page if not types or event.type in types]
    return answer("Events retrieved successfully", listed)


def give_input(request: ApiRequest, services: Services, run_id: str) -> Response:
    """POST /api/v1/runs/{id}/input."""
    wait_s = Query(request, ("wait",)).seconds("wait", MAX_WAIT_S)
    given = request.read_json(GivenAnswers)
    run = services.runs.answer(run_id, given, request.actor)
    return _begun(request, services, run, wait_s, after=run.asked_seq, said="Answer taken")


def cancel(request: ApiRequest, services: Services, run_id: str) -> Response:
    """POST /api/v1/runs/{id}/cancel."""
    Query(request, ())
    body = request.read_json(CancelBody)
    if not 0 <= body.wait_s <= MAX_WAIT_S:
        raise InvalidParameter("wait_s", f"{body.wait_s:g} is not between 0 and {MAX_WAIT_S:g}")
    run, is_cancelled = services.runs.cancel(run_id, request.actor, body.mode)
    if body.wait_s:
        run = services.runs.wait(run.id, body.wait_s, is_over=True)
    said = "Run is being cancelled" if is_cancelled else f"Run is {run.status.value}"
    return answer(said, run_json(run), cancelled=is_cancelled)


def cancel_all(request: ApiRequest, services: Services) -> Response:
    """POST /api/v1/runs/cancel."""
    Query(request, ())
    body = request.read_json(CancelAllBody)
    runs = services.runs.cancel_all(
        request.actor, agent=body.agent_id, session_id=body.session_id, status=body.status, mode=body.mode
    )
    said = f"{len(runs)} run{'' if len(runs) == 1 else 's'} being cancelled"
    return answer(said, [listed_run_json(run) for run in runs])


ROUTES = (
    Rule("/api/v1/runs", methods=["POST"], endpoint=create),
    Rule("/api/v1/runs", methods=["GET"], endpoint=page),
    Rule("/api/v1/runs/cancel", methods=["POST"], endpoint=cancel_all),
    Rule("/api/v1/runs/<run_id>", methods=["GET"], endpoint=get),
    Rule("/api/v1/runs/<run_id>/events", methods=["GET"], endpoint=events),
    Rule("/api/v1/runs/<run_id>/input", methods=["POST"], endpoint=give_input),
    Rule("/api/v1/runs/<run_id>/cancel", methods=["POST"], endpoint=cancel),
)


def stream(services: Services, run: Run) -> Response:
    """Return the events of a run, from the first to the last, to somebody whose going ends nothing."""
    return _stream(services, run, 0, _message_of("envelope"))


_Show = Callable[[Run, RunEvent], bytes]


class _Reader:
    """Who reads a run's events; the one that started it may be the one whose going ends it. `has_all`: was told all there is."""

    def __init__(self, services: Services, run: Run, *, is_owner: bool) -> None:
        self._services = services
        self._run = run
        self._is_owner = is_owner
        self.has_all = False

    def close(self) -> None:
        """The reader is gone, or has seen all."""
        if self._is_owner and not self.has_all and self._run.on_disconnect is OnDisconnect.CANCEL:
            self._services.runs.abandon(self._run.id)


def _stream(
    services: Services,
    run: Run,
    after: int,
    shown: _Show,
    *,
    types: frozenset[str] = frozenset(),
    is_owner: bool = False,
) -> Response:
    reader = _Reader(services, run, is_owner=is_owner)
    found = services.runs.follow(run.id, after)
    return stream_events(reader, _messages(reader, run, found, shown, types))


def _begun(
    request: ApiRequest, services: Services, run: Run, wait_s: float | None, *, after: int, said: str
) -> Response:
    """Answer whoever had a run begin, or go on behind event `after`: with its events, or with the run, maybe when it is over."""
    if SSE in request.headers.get("Accept", ""):
        response = _stream(services, run, after, _message_of("envelope"), is_owner=True)
    else:
        run = run if wait_s is None else services.runs.wait(run.id, wait_s)
        is_over = wait_s is not None and run.status.is_final
        response = answer(said, run_json(run), status=200 if is_over else 202)
    response.headers["Location"] = f"/api/v1/runs/{run.id}/events"
    return response


def _messages(
    reader: _Reader, run: Run, found: Iterator[RunEvent | None], shown: _Show, types: frozenset[str]
) -> Iterator[bytes]:
    """Return the format of the HTML standard, section 9.2.6. Events that end a run, or pause it, are told whichever types are
    asked for.
    """
    yield HEARTBEAT  # sends the head: the first event may be a long time away
    for event in found:
        if event is None:
            yield HEARTBEAT
        elif not types or event.type in types or event.type in TERMINAL:
            yield shown(run, event)
    reader.has_all = True


def _message_of(name: str) -> _Show:
    if name not in FORMATS:
        raise InvalidParameter("format", f"{name[:64]!r} is none of {', '.join(FORMATS + DIALECTS)}")
    return _agui if name == "agui" else _envelope


def _envelope(run: Run, event: RunEvent) -> bytes:
    data = msgspec.json.encode(run_event_json(run, event))
    return b"event: %b\ndata: %b\nid: %d\n\n" % (_name(event), data, event.seq)


def _agui(run: Run, event: RunEvent) -> bytes:
    return b"data: %b\nid: %d\n\n" % (msgspec.json.encode(event.payload), event.seq)


def _name(event: RunEvent) -> bytes:
    """The type of an event, which an agent made up: nothing that could end a line."""
    return "".join(sign for sign in event.type if sign.isprintable()).encode()[:100]


def _last_seen(request: ApiRequest) -> int:
    """Return what Last-Event-ID says; what is no number of an event means "from the beginning"."""
    text: str = request.headers.get("Last-Event-ID", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(2**53)) else 0


def status_of(name: str) -> RunStatus | None:
    """Return the state that a query names; None: any. Raises InvalidParameter."""
    if name and name not in tuple(RunStatus):
        raise InvalidParameter("status", f"{name[:64]!r} is none of {', '.join(RunStatus)}")
    return RunStatus(name) if name else None
