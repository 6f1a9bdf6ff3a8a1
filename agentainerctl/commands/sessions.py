"""`sessions list show history export delete`."""

import json
import os
from typing import Any

import click

from agentainerctl import batch, output
from agentainerctl import sessions as records
from agentainerctl.client import Client
from agentainerctl.options import Group, output_options
from agentainerctl.refs import list_agents
from agentainerctl.session import Session
from agentainerctl.sessions import session_path
from agentainerd import defaults
from agentainerd.errors import Conflict

Record = dict[str, Any]


@click.group(
    "sessions",
    cls=Group,
    examples=(
        "agentainerctl sessions list --agent web",
        "agentainerctl sessions history 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11",
    ),
)
def sessions() -> None:
    """Show and keep conversations with agents: what was said, and what each one remembers.

    `chat` begins one and goes on with one; so does `run --session`.
    """


@sessions.command(
    "list",
    examples=("agentainerctl sessions list", "agentainerctl sessions list --agent web -o wide"),
)
@click.option("--agent", metavar="AGENT", help="Only with this agent.")
@click.option("--user", metavar="USER", help="Only of this user, as the session's maker called them.")
@click.option("-n", "--limit", type=click.IntRange(1, defaults.MAX_PAGE_LIMIT), metavar="N", help="At most so many.")
@click.option("--offset", type=click.IntRange(min=0), metavar="N", help="Leave out the first N.")
@output_options()
@click.pass_obj
def list_(session: Session, agent: str | None, user: str | None, limit: int | None, offset: int | None) -> None:
    """List conversations, the newest first."""
    start, size = offset or 0, limit or defaults.PAGE_LIMIT
    found, total = _fetch(session.client, agent, user, start, size)
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(output.plain(each["session_id"]))
    elif not found:
        print(
            "No such sessions." if agent or user or offset else "No sessions yet. Begin one: agentainerctl chat AGENT"
        )
    else:
        is_wide = session.output == "wide"
        names = {str(each["id"]): str(each["name"]) for each in list_agents(session.client)}
        rows = [records.row(each, names, is_wide) for each in found]
        output.table(records.WIDE_COLUMNS if is_wide else records.COLUMNS, rows)
    if found and total > start + len(found) and session.has_progress:
        output.note(f"There are {total}; the next ones: --offset {start + len(found)}")


@sessions.command(
    "show",
    names="sessions",
    examples=(
        "agentainerctl sessions show 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11",
        "agentainerctl sessions show -o json 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11 | jq .state",
    ),
)
@click.argument("session_id", metavar="SESSION")
@output_options("table", "json", "yaml")
@click.pass_obj
def show(session: Session, session_id: str) -> None:
    """Show what is known of a conversation but its messages: agent, name, runs, metadata, state, summary."""
    found = session.client.call("GET", session_path(session_id))
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet:
        print(output.plain(found["session_id"]))
    else:
        records.page(found)


@sessions.command(
    "history",
    names="sessions",
    examples=(
        "agentainerctl sessions history 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11",
        "agentainerctl sessions history -n 4 --full 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11",
    ),
)
@click.argument("session_id", metavar="SESSION")
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="Only the last N messages.")
@click.option("--full", "is_full", is_flag=True, help="Results of tools whole.")
@output_options("table", "json", "yaml")
@click.pass_obj
def history(session: Session, session_id: str, limit: int | None, is_full: bool) -> None:
    """Show the messages of a conversation: what was asked and answered, and the tools that were used for it."""
    found = records.messages(session.client, session_id, limit)
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet:
        for message in found:
            print(output.plain(message.get("id", "")))
    elif not found:
        print("No messages yet.")
    else:
        records.show_messages(found, is_full=is_full)


@sessions.command(
    "export",
    names="sessions",
    examples=(
        "agentainerctl sessions export 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11 >talk.json",
        "agentainerctl sessions export 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11 talk.json",
    ),
)
@click.argument("session_id", metavar="SESSION")
@click.argument("target", metavar="[FILE]", default="-")
@click.option("-f", "--force", is_flag=True, help="Write over FILE, if it is there.")
@click.pass_obj
def export(session: Session, session_id: str, target: str, force: bool) -> None:
    """Write a conversation whole, with its messages and its runs, as one JSON document.

    FILE is made readable for its owner only; without one it is standard output.
    """
    found = session.client.call("GET", session_path(session_id, "export"))
    if target == "-":
        output.machine(found, "json")
        return
    mode = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
    try:
        with open(target, "w", opener=lambda path, _: os.open(path, mode, 0o600)) as file:
            json.dump(found, file, indent=2, ensure_ascii=False)
            file.write("\n")
    except FileExistsError as error:
        raise Conflict(
            f"there is a file '{target}' already", code="FILE_EXISTS", hint="--force writes over it"
        ) from error
    if session.has_progress:
        output.note(f"Session {output.plain(session_id)} is in {target}")


@sessions.command(
    "delete",
    names="sessions",
    examples=(
        "agentainerctl sessions delete 0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11",
        "for talk in $(agentainerctl sessions list --agent web -q); do agentainerctl sessions delete -f $talk; done",
    ),
)
@click.argument("session_ids", metavar="SESSION...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def delete(session: Session, session_ids: tuple[str, ...], force: bool) -> None:
    """Delete conversations for good: their messages, state and summary. Their runs stay until they are old."""
    if not force:
        what = f"session {session_ids[0]}" if len(session_ids) == 1 else f"{len(session_ids)} sessions"
        session.confirm(f"Delete {what} for good?", f"refusing to delete {what}")

    def act(session_id: str) -> Record:
        session.client.call("DELETE", session_path(session_id))
        return {"id": session_id, "name": session_id, "result": "deleted"}

    batch.each(session, session_ids, act, lambda session_id, _: f"Session {output.plain(session_id)} deleted")


def _fetch(client: Client, agent: str | None, user: str | None, start: int, size: int) -> tuple[list[Record], int]:
    """Return `size` sessions after the newest `start`, and how many there are in all."""
    if not agent:
        query = {"user_id": user, "limit": size, "offset": start}
        answer = client.call("GET", session_path(), query=query)
        return answer["sessions"], answer["total"]
    known = next((each for each in list_agents(client) if agent in (each["id"], each["name"])), {})
    refs = dict.fromkeys((agent, str(known.get("id", agent)), str(known.get("name", agent))))  # as their makers gave it
    found = [each for ref in refs for each in _fetch_all(client, {"agent_id": ref, "user_id": user})]
    found.sort(key=lambda each: -each["created_at"])
    return found[start : start + size], len(found)


def _fetch_all(client: Client, query: Record) -> list[Record]:
    found: list[Record] = []
    while True:
        page = {**query, "limit": defaults.MAX_PAGE_LIMIT, "offset": len(found)}
        answer = client.call("GET", session_path(), query=page)
        found += answer["sessions"]
        if not answer["sessions"] or len(found) >= answer["total"]:
            return found
