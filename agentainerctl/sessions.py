"""How a conversation looks to people: its line in a list, its page, its messages. In the API it is a session."""

import json
from collections.abc import Iterable
from typing import Any

from agentainerctl import output
from agentainerctl.client import Client, path_of
from agentainerctl.output import Column, age, paint, plain, plain_text, shorten, strip_ansi

Record = dict[str, Any]

COLUMNS = (
    Column("ID"),
    Column("AGENT"),
    Column("NAME", can_shrink=True),
    Column("RUNS"),
    Column("UPDATED"),
)
WIDE_COLUMNS = (*COLUMNS, Column("CREATED"), Column("USER", can_shrink=True))
_ROLES = {"user": "bold", "assistant": "green", "tool": "dim"}
_RESULT_LINES = 6
_MAX_LINE = 200


def session_path(*parts: str) -> str:
    """Return the path of the API for sessions, a session, or something of it."""
    return path_of("api", "v1", "sessions", *parts)


def messages(client: Client, session_id: str, limit: int | None = None) -> list[Record]:
    """Return the messages of a session, the oldest first; with `limit` only the last so many.

    Raises:
        AgentainerError: as `Client.call`.
    """
    found: list[Record] = client.call("GET", session_path(session_id, "history"), query={"num_messages": limit})[
        "messages"
    ]
    return found


def row(session: Record, names: dict[str, str], is_wide: bool) -> list[str]:
    """Return the cells of one session in the order of COLUMNS, or with `is_wide` of WIDE_COLUMNS. `names`: of agents, by id."""
    agent = str(session.get("agent_id") or "")
    cells = [
        session["session_id"],
        names.get(agent, agent),
        session.get("name") or "",
        session.get("run_count", 0),
        age(session.get("updated_at")),
    ]
    if is_wide:
        cells += [age(session.get("created_at")), session.get("user_id") or ""]
    return [str(cell) for cell in cells]


def page(session: Record) -> None:
    """Print one session, for people; not its messages."""
    summary = session.get("summary") or {}
    text = str(summary.get("content") or "") if isinstance(summary, dict) else str(summary)
    output.facts(
        (
            ("ID", session["session_id"]),
            ("Agent", session.get("agent_id")),
            ("Name", session.get("name")),
            ("User", session.get("user_id")),
            ("Runs", session.get("run_count", 0)),
            ("Created", age(session.get("created_at"))),
            ("Updated", age(session.get("updated_at"))),
            ("Metadata", _object(session.get("metadata"))),
            ("State", _object(session.get("state"))),
        )
    )
    if text:
        output.say("Summary:")
        _indented(plain_text(text).splitlines())


def show_messages(found: Iterable[Record], agent: str = "agent", *, is_full: bool = False) -> None:
    """Print messages as a conversation; of a tool's results the beginning, where not `is_full`."""
    import sys

    from agentainerctl.transcript import arguments, result_lines

    for message in found:
        role = str(message.get("role") or "")
        content = str(message.get("content") or "")
        if role == "tool":
            lines = result_lines(content)
            kept = lines if is_full or len(lines) <= _RESULT_LINES + 1 else lines[:_RESULT_LINES]
            shown = [f"| {shorten(strip_ansi(line), _MAX_LINE)}".rstrip() for line in kept]
            _indented([*shown, f"| ... {len(lines) - len(kept)} more lines ..."] if len(kept) < len(lines) else shown)
            continue
        title = {"user": "you", "assistant": agent}.get(role, role)
        output.say(f"{paint(plain(title), _ROLES.get(role, ''), sys.stdout)}:")
        _indented(plain_text(content).splitlines())
        for call in message.get("tool_calls") or message.get("toolCalls") or ():
            function = call.get("function") or {}
            given = arguments(str(function.get("arguments") or ""))
            _indented([shorten(f"> {plain(function.get('name', ''))} {given}".rstrip(), _MAX_LINE)])


def _indented(lines: Iterable[str]) -> None:
    for line in lines:
        output.say(f"  {line}".rstrip())


def _object(value: object) -> str | None:
    return json.dumps(value, ensure_ascii=False) if value else None
