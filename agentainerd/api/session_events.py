"""`/api/v1/sessions/{id}/events`: all that happened in a conversation, and happens, run after run."""

from collections.abc import Iterator

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import SSE, ApiRequest, Query, answer, stream_events
from agentainerd.api.runs import HEARTBEAT
from agentainerd.errors import InvalidParameter
from agentainerd.model.dialect_agno import parse_types
from agentainerd.model.runs import Run, RunEvent
from agentainerd.services import session_events
from agentainerd.services.run_views import run_event_json
from agentainerd.services.services import Services
from agentainerd.services.session_events import MARK, Place

Told = tuple[Run, RunEvent]


def events(request: ApiRequest, services: Services, session_id: str) -> Response:
    """GET /api/v1/sessions/{id}/events."""
    query = Query(request, ("after", "types", "follow", "limit"))
    session_id = services.sessions.get(session_id).id
    after = Place.parse(query.text("after")) if query.text("after") else _last_seen(request)
    types = parse_types(query.text("types"))
    if query.flag("follow") or SSE in request.headers.get("Accept", ""):
        found = session_events.follow(services.runs, session_id, after)
        return stream_events(_Nothing(), _messages(found, types))
    limit = query.limit()
    page = session_events.page(services.runs, session_id, after, limit)
    listed = [run_event_json(run, event) for run, event in page if not types or event.type in types]
    following = _place(page[-1]) if len(page) == limit else None
    return answer("Events retrieved successfully", listed, next_cursor=following)


ROUTES = (Rule("/api/v1/sessions/<session_id>/events", methods=["GET"], endpoint=events),)


class _Nothing:
    """A reader that holds nothing."""

    def close(self) -> None:
        """See Closable."""


def _messages(found: Iterator[Told | None], types: frozenset[str]) -> Iterator[bytes]:
    yield HEARTBEAT
    for told in found:
        if told is None:
            yield HEARTBEAT
        elif not types or told[1].type in types:
            data = msgspec.json.encode(run_event_json(*told))
            yield b"data: %b\nid: %b\n\n" % (data, _place(told).encode())


def _last_seen(request: ApiRequest) -> Place:
    """Return what Last-Event-ID says; what is no place means "from the beginning"."""
    try:
        return Place.parse(request.headers.get("Last-Event-ID", ""))
    except InvalidParameter:
        return Place()


def _place(told: Told) -> str:
    run, event = told
    return f"{run.id}{MARK}{event.seq}"
