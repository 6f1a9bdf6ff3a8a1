"""How a durable request looks to people: its line in a list, and its page."""

from base64 import b64decode
from typing import Any

from agentainerctl import output
from agentainerctl.output import Column, age
from agentainerd import defaults
from agentainerd.errors import AgentainerError
from agentainerd.units import format_duration, format_size

COLUMNS: tuple[Column, ...] = (
    Column("ID"),
    Column("METHOD"),
    Column("PATH", can_shrink=True),
    Column("STATE", can_shrink=True),
    Column("ATTEMPTS"),
    Column("RECEIVED"),
)
WIDE_COLUMNS = (
    *COLUMNS,
    Column("SIZE"),
    Column("ANSWER"),
    Column("TOOK"),
    Column("NEXT"),
    Column("ERROR", can_shrink=True),
)
COLOURS = {"failed": "red", "completed": "green", "processing": "yellow"}
_PREVIEW_BYTES = 2048
Record = dict[str, Any]


def row(record: Record, is_wide: bool) -> list[str]:
    """Return the cells of one request in the order of COLUMNS, or with `is_wide` of WIDE_COLUMNS."""
    cells = [
        record.get("id", ""),
        record.get("method", ""),
        record.get("path", ""),
        state(record),
        _attempts(record),
        age(record.get("created_at")),
    ]
    if is_wide:
        cells += [
            _size(record.get("request_bytes")),
            _answer(record),
            _took(record),
            age(record.get("next_attempt_at")),
        ]
        cells.append(record.get("error") or "")
    return [str(cell) for cell in cells]


def state(record: Record) -> str:
    """Return the state and why: "pending (retry wait)"."""
    reason = str(record.get("reason") or "").replace("_", " ")
    return f"{record.get('status', '')} ({reason})" if reason else str(record.get("status", ""))


def page(record: Record) -> None:
    """Print one request whole, for people; of bodies the beginning."""
    output.facts(
        (
            ("ID", record.get("id")),
            ("Agent", record.get("agent_id")),
            ("Request", f"{record.get('method', '')} {record.get('path', '')}"),
            ("State", state(record)),
            ("Error", record.get("error")),
            ("Received", age(record.get("created_at"))),
            ("Finished", age(record.get("processed_at"))),
            ("Attempts", _attempts(record)),
            ("Next attempt", age(record.get("next_attempt_at"))),
            ("Expires", age(record.get("expires_at"))),
            ("May have run before", "yes" if record.get("maybe_duplicate") else None),
            ("Answer", _answer(record)),
            ("Took", _took(record)),
        )
    )
    _message("What the agent gets", record)
    response = record.get("response")
    if isinstance(response, dict):
        kept = " (only its beginning is kept)" if response.get("truncated") else ""
        _message(f"What the agent answered{kept}", response)


def body_of(record: Record, part: str) -> bytes:
    """Return the "body" that was sent, or that of the "response".

    Raises:
        AgentainerError: there is no stored answer.
    """
    if part == "body":
        return _decoded(record)
    response = record.get("response")
    if not isinstance(response, dict):
        raise AgentainerError(
            f"request {record.get('id')} has no stored answer: it is {state(record)}", code="RESPONSE_NOT_FOUND"
        )
    return _decoded(response)


def _attempts(record: Record) -> str:
    return f"{record.get('attempt', 0)}/{record.get('max_retries', defaults.MAX_ATTEMPTS - 1) + 1}"


def _size(size: object) -> str:
    return format_size(size) if isinstance(size, int) and size >= 0 else ""


def _answer(record: Record) -> str:
    return str(record.get("status_code") or "")


def _took(record: Record) -> str:
    seconds = record.get("duration_s")
    if not isinstance(seconds, int | float) or not seconds:
        return ""
    return (
        f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)
    )


def _message(title: str, message: Record) -> None:
    """Print the headers and the beginning of the body of a request or an answer."""
    output.say(f"{title}:")
    for name, value in message.get("header_list") or (message.get("headers") or {}).items():
        output.say(f"  {output.plain(name)}: {output.plain(value)}")
    body = _decoded(message)
    if not body:
        return
    try:
        text = body[:_PREVIEW_BYTES].decode("utf-8", "strict" if len(body) <= _PREVIEW_BYTES else "ignore")
    except UnicodeDecodeError:
        output.say(f"  ({format_size(len(body))} of binary data)")
        return
    output.say("")
    for line in text.splitlines():
        output.say(f"  {output.plain(line)}")
    if len(body) > _PREVIEW_BYTES:
        output.say(f"  ... ({format_size(len(body))} in all)")


def _decoded(message: Record) -> bytes:
    return b64decode(message.get("body") or "")
