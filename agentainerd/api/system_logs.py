"""`/system/logs`: the daemon's own log, as a list, as JSON lines, or as server-sent events."""

import json
import re
from collections.abc import Iterator

from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd import defaults
from agentainerd.api.exchange import NDJSON, SSE, ApiRequest, Query, answer, stream_events, stream_lines
from agentainerd.errors import InvalidParameter
from agentainerd.model.system_logs import Level, LogFilter, stamp
from agentainerd.services.services import Services

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")

LogEntry = dict[str, object]


def system_logs(request: ApiRequest, services: Services) -> Response:
    """GET /system/logs."""
    query = Query(request, ("follow", "level", "since", "limit"), many=("component",))
    wanted = LogFilter(_level(query), _components(query), _since(request, query))
    limit = None if wanted.since and not query.text("limit") else query.limit(defaults.LOG_LINES)
    accepts = request.headers.get("Accept", "")
    if query.flag("follow") or SSE in accepts:
        found = services.system_logs.follow(limit, wanted)
        return stream_lines(found, _lines(found)) if NDJSON in accepts else stream_events(found, _messages(found))
    if limit is None and NDJSON in accepts:
        entries = services.system_logs.read(wanted)
        return stream_lines(entries, entries)
    return answer("Logs retrieved successfully", services.system_logs.last(limit or defaults.LOG_LINES, wanted))


ROUTES = (Rule("/system/logs", methods=["GET"], endpoint=system_logs),)


def _level(query: Query) -> Level:
    name = query.text("level", Level.DEBUG)
    if name not in tuple(Level):
        raise InvalidParameter("level", f"{name[:64]!r} is none of {', '.join(Level)}")
    return Level(name)


def _components(query: Query) -> tuple[str, ...]:
    return tuple(name for text in query.texts("component") for name in text.split(",") if name)


def _since(request: ApiRequest, query: Query) -> str:
    """Return from when on: for a reader that comes back the time of the last entry that it saw, which it sees again."""
    last = request.headers.get("Last-Event-ID", "")
    if last and not _TIME.fullmatch(last):
        raise InvalidParameter("Last-Event-ID", f"{last[:64]!r} is not the time of an entry")
    return last or (stamp(query.moment("since")) if query.text("since") else "")


def _lines(found: Iterator[LogEntry | None]) -> Iterator[LogEntry]:
    for entry in found:
        yield {} if entry is None else entry


def _messages(found: Iterator[LogEntry | None]) -> Iterator[bytes]:
    """Return the format of the HTML standard, section 9.2.6; a comment where there is no entry."""
    for entry in found:
        if entry is None:
            yield b": still here\n\n"
        else:
            yield f"id: {entry['time']}\nevent: log\ndata: {json.dumps(entry, separators=(',', ':'))}\n\n".encode()
