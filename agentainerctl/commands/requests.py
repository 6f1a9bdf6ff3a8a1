"""`requests list show replay cancel purge`: the durable requests of one agent."""

import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import click

from agentainerctl import batch, output
from agentainerctl import requests as records
from agentainerctl.client import path_of
from agentainerctl.options import Group, output_options
from agentainerctl.progress import Waiting
from agentainerctl.refs import with_agent
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.errors import AgentainerError

STATES = ("pending", "processing", "completed", "failed")
Act = Callable[[str, str, Waiting], dict[str, Any]]


class RequestsGroup(Group):
    """`requests AGENT` is `requests list AGENT`, as in the original."""

    names = "agents"

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; what is none is taken as the agent to list."""
        if args[0] not in self.commands:
            if len(args) > 1 and get_close_matches(args[0], self.commands):
                raise click.NoSuchCommand(args[0], possibilities=self.commands, ctx=ctx)
            args = ["list", *args]
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Let options of `list` stand before the agent: `requests --state failed web`."""
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0].startswith("-") and args[0].partition("=")[0] not in own:
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(
    "requests",
    cls=RequestsGroup,
    subcommand_metavar="[COMMAND] AGENT [ARGS]...",
    examples=(
        "agentainerctl requests web",
        "agentainerctl requests list --state failed web",
        "agentainerctl requests show web 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
    ),
)
def requests() -> None:
    """Show and manage the durable requests of an agent.

    Without a command it lists the pending ones.
    """


@requests.command(
    "list",
    names="agents",
    examples=("agentainerctl requests list web", "agentainerctl requests list --state failed --limit 20 -o wide web"),
)
@click.argument("ref", metavar="AGENT")
@click.option("--state", type=click.Choice([*STATES, "all"]), default="pending", show_default=True, help="Only these.")
@click.option("--limit", type=click.IntRange(1, defaults.MAX_PAGE_LIMIT), metavar="N", help="At most so many.")
@click.option("--cursor", metavar="CURSOR", help="Go on where an earlier page ended.")
@output_options()
@click.pass_obj
def list_(session: Session, ref: str, state: str, limit: int | None, cursor: str | None) -> None:
    """List requests of an agent: the pending ones, or those in another state."""
    query = {"state": None if state == "all" else state, "limit": limit, "cursor": cursor}
    data = with_agent(session.client, ref, lambda known: session.client.get(_path(known), query))
    found: list[records.Record] = data.get("requests") or data.get("pending") or []
    if session.is_machine:
        output.machine(data, session.output)
    elif session.is_quiet or session.output == "name":
        for record in found:
            print(output.plain(record.get("id", "")))
    elif not found:
        print("No requests" if state == "all" else f"No {state} requests")
    else:
        print(f"{'All' if state == 'all' else state.capitalize()} requests for agent {output.plain(ref)}:")
        is_wide = session.output == "wide"
        rows = [records.row(record, is_wide) for record in found]
        colours = {
            row[3]: records.COLOURS.get(str(record.get("status")), "") for row, record in zip(rows, found, strict=True)
        }
        output.table(records.WIDE_COLUMNS if is_wide else records.COLUMNS, rows, colours=colours)
    if data.get("next_cursor") and session.has_progress:
        more = "" if state == "pending" else f"--state {state} "
        output.note(f"There are more: agentainerctl requests list {more}--cursor {data['next_cursor']} {ref}")


@requests.command(
    "show",
    names="requests",
    examples=(
        "agentainerctl requests show web 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl requests show --response web 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f >answer.json",
    ),
)
@click.argument("ref", metavar="AGENT")
@click.argument("request_id", metavar="REQUEST")
@click.option("--body", "part", flag_value="body", help="Only the body that was sent, byte for byte.")
@click.option("--response", "part", flag_value="response", help="Only the body of the answer, byte for byte.")
@output_options("table", "json", "yaml")
@click.pass_obj
def show(session: Session, ref: str, request_id: str, part: str | None) -> None:
    """Show one request whole: what was asked, what became of it, what was answered."""
    record: records.Record = with_agent(session.client, ref, lambda known: session.client.get(_path(known, request_id)))
    if part:
        sys.stdout.buffer.write(records.body_of(record, part))
    elif session.is_machine:
        output.machine(record, session.output)
    elif session.is_quiet:
        print(output.plain(record.get("id", "")))
    else:
        records.page(record)


@requests.command(
    "replay",
    names="requests",
    examples=(
        "agentainerctl requests replay web 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl requests replay --all web",
    ),
)
@click.argument("ref", metavar="AGENT")
@click.argument("request_ids", metavar="REQUEST...", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="All failed ones.")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def replay(session: Session, ref: str, request_ids: tuple[str, ...], is_all: bool) -> None:
    """Deliver requests again: dead letters, or pending ones now instead of later.

    Waits a moment for the agent's answer. What can't be delivered yet is queued, and so are all with --all.
    """
    chosen = _chosen(session, ref, request_ids, "failed" if is_all else "")

    def act(agent: str, request_id: str, waiting: Waiting) -> dict[str, Any]:
        envelope = session.client.call(
            "POST",
            _path(agent, request_id, "replay"),
            query={"wait": 0 if is_all else None},
            timeout_s=None,
            tick=waiting,
        )
        data = envelope.get("data") or {}
        if data.get("status") == "failed":
            hint = f"agentainerctl requests show {ref} {request_id}"
            raise AgentainerError(
                f"request {request_id} was delivered again and failed", code="REPLAY_FAILED", hint=hint
            )
        return {"status_code": data.get("status_code", 0), "result": data.get("status", "completed")}

    def line(request_id: str, result: dict[str, Any]) -> str:
        if result["result"] == "pending":
            return f"Request {request_id} queued for replay"
        return f"Request {request_id} replayed successfully (status {result['status_code']})"

    _each(session, ref, chosen, act, line)


@requests.command(
    "cancel",
    names="requests",
    examples=(
        "agentainerctl requests cancel web 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl requests cancel --all web",
    ),
)
@click.argument("ref", metavar="AGENT")
@click.argument("request_ids", metavar="REQUEST...", nargs=-1)
@click.option("--all", "is_all", is_flag=True, help="All pending ones.")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def cancel(session: Session, ref: str, request_ids: tuple[str, ...], is_all: bool) -> None:
    """Cancel pending requests: they will not be delivered. A failed one is forgotten."""
    chosen = _chosen(session, ref, request_ids, "pending" if is_all else "")

    def act(agent: str, request_id: str, waiting: Waiting) -> dict[str, Any]:
        session.client.call("DELETE", _path(agent, request_id), tick=waiting)
        return {"result": "cancelled"}

    _each(session, ref, chosen, act, lambda request_id, _: f"Request {request_id} cancelled successfully")


@requests.command(
    "purge",
    names="agents",
    examples=("agentainerctl requests purge web", "agentainerctl requests purge --state pending --force web"),
)
@click.argument("ref", metavar="AGENT")
@click.option(
    "--state", type=click.Choice(["failed", "pending"]), default="failed", show_default=True, help="Which ones."
)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@output_options("table", "json", "yaml")
@click.pass_obj
def purge(session: Session, ref: str, state: str, force: bool) -> None:
    """Delete all failed (or pending) requests of an agent for good."""
    if not force:
        what = f"all {state} requests of '{ref}'"
        session.confirm(f"Delete {what} for good?", f"refusing to delete {what}")
    data = with_agent(
        session.client,
        ref,
        lambda known: session.client.call("DELETE", _path(known), query={"state": state}).get("data"),
    )
    removed = data.get("removed", 0) if isinstance(data, dict) else 0
    if session.is_machine:
        output.machine({"removed": removed}, session.output)
    else:
        print(removed if session.is_quiet else f"{removed} {state} request{'' if removed == 1 else 's'} removed")


def _path(agent: str, *more: str) -> str:
    return path_of("agents", agent, "requests", *more)


def _each(session: Session, ref: str, request_ids: Sequence[str], act: Act, line: batch.Line) -> None:
    """Run `act(agent, request id, tick)` on each request of the agent, with a result line each."""

    def one(request_id: str) -> dict[str, Any]:
        with Waiting(f"request {request_id}", is_silent=not session.has_progress) as waiting:
            result = with_agent(session.client, ref, lambda agent: act(agent, request_id, waiting))
        return {"id": request_id, "name": request_id, **result}

    batch.each(session, request_ids, one, line)


def _chosen(session: Session, ref: str, request_ids: Sequence[str], state: str) -> Sequence[str]:
    """Return the requests that were named, or with a state (`--all`) the ids of all that are in it, page by page."""
    if bool(state) == bool(request_ids):
        raise click.UsageError("name requests, or say --all")
    if request_ids:
        return request_ids
    found: list[str] = []
    query: dict[str, object] = {"state": state, "limit": defaults.MAX_PAGE_LIMIT}
    while True:
        data = with_agent(session.client, ref, lambda known: session.client.get(_path(known), dict(query)))
        page = data.get("requests") or []
        found += [str(record["id"]) for record in page]
        query["cursor"] = data.get("next_cursor")
        if not page or not query["cursor"]:
            return found
