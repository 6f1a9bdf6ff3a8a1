"""`/events`: what happened, as a list, as server-sent events, or as JSON lines."""

import json
from collections.abc import Iterator

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd import defaults
from agentainerd.api.exchange import NDJSON, SSE, ApiRequest, Query, answer, stream_events, stream_lines
from agentainerd.errors import InvalidParameter
from agentainerd.model.events import Action, Event, EventFilter, id_before, is_event_id
from agentainerd.services.services import Services
from agentainerd.services.views import event_json


def events(request: ApiRequest, services: Services) -> Response:
    """GET /events."""
    query = Query(request, ("follow", "since", "limit"), many=("action", "agent"))
    wanted = EventFilter(_actions(query), tuple(query.texts("agent")))
    after = _position(request, query)
    accepts = request.headers.get("Accept", "")
    if query.flag("follow") or SSE in accepts:
        found = services.events.follow(after, wanted)
        return stream_lines(found, _lines(found)) if NDJSON in accepts else stream_events(found, _messages(found))
    limit = query.limit(defaults.PAGE_LIMIT)
    listed = services.events.last(limit, wanted) if after is None else services.events.after(after, limit, wanted)
    return answer("Events retrieved successfully", [event_json(event) for event in listed])


ROUTES = (Rule("/events", methods=["GET"], endpoint=events),)


def _actions(query: Query) -> tuple[str, ...]:
    names = [name for text in query.texts("action") for name in text.split(",") if name]
    for name in names:
        if name not in tuple(Action):
            raise InvalidParameter("action", f"{name[:64]!r} is none of {', '.join(Action)}")
    return tuple(names)


def _position(request: ApiRequest, query: Query) -> str | None:
    """Return the id after which to read: of Last-Event-ID, or for `since` (an id, a time, a duration ago); None for neither."""
    last = request.headers.get("Last-Event-ID", "")
    if last and not is_event_id(last):
        raise InvalidParameter("Last-Event-ID", f"{last[:64]!r} is not the id of an event")
    text = last or query.text("since")
    if not text:
        return None
    return text if is_event_id(text) else id_before(query.moment("since"))


def _lines(found: Iterator[Event | None]) -> Iterator[dict[str, object]]:
    for event in found:
        yield {} if event is None else event_json(event)


def _messages(found: Iterator[Event | None]) -> Iterator[bytes]:
    """Return the format of the HTML standard, section 9.2.6; a comment where there is no event."""
    for event in found:
        if event is None:
            yield b": still here\n\n"
        else:
            data = json.dumps(event_json(event), separators=(",", ":"))
            yield f"id: {event.id}\nevent: {event.action}\ndata: {data}\n\n".encode()
