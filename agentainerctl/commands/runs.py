"""`runs list show events attach answer cancel`."""

import sys
from collections.abc import Iterator
from typing import Any

import click

from agentainerctl import batch, output
from agentainerctl import runs as records
from agentainerctl.client import Client
from agentainerctl.options import Group, output_options
from agentainerctl.runstream import Record, answer, cancel, follow_run, run_path
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.errors import InvalidParameter

_MAX_EVENT = 120  # characters of an event on its line, where no terminal says how many fit


@click.group(
    "runs",
    cls=Group,
    examples=(
        "agentainerctl runs list --agent web",
        "agentainerctl runs attach 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl runs cancel 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
    ),
)
def runs() -> None:
    """Show, join, answer and cancel runs: what agents were given to do, and what became of it."""


@runs.command(
    "list",
    examples=(
        "agentainerctl runs list",
        "agentainerctl runs list --agent web --status failed -o wide",
        "for run in $(agentainerctl runs list --status running -q); do agentainerctl runs cancel $run; done",
    ),
)
@click.option("--agent", metavar="AGENT", help="Only of this agent.")
@click.option("--session", "session_id", metavar="SESSION", help="Only of this conversation.")
@click.option("--status", type=click.Choice(records.STATES), help="Only in this state.")
@click.option("-n", "--limit", type=click.IntRange(1, defaults.MAX_PAGE_LIMIT), metavar="N", help="At most so many.")
@click.option("--cursor", metavar="CURSOR", help="Go on where an earlier page ended.")
@output_options()
@click.pass_obj
def list_(
    session: Session,
    agent: str | None,
    session_id: str | None,
    status: str | None,
    limit: int | None,
    cursor: str | None,
) -> None:
    """List runs, the newest first."""
    query = {"agent_id": agent, "session_id": session_id, "status": status, "limit": limit, "cursor": cursor}
    envelope = session.client.call("GET", run_path(), query=query)
    found: list[Record] = envelope.get("data") or []
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(output.plain(each["id"]))
    elif not found:
        is_any = not (agent or session_id or status or cursor)
        print('No runs yet. Begin one: agentainerctl run AGENT "PROMPT"' if is_any else "No such runs.")
    else:
        is_wide = session.output == "wide"
        rows = [records.row(each, is_wide) for each in found]
        output.table(records.WIDE_COLUMNS if is_wide else records.COLUMNS, rows, colours=records.COLOURS)
    if envelope.get("next_cursor") and session.has_progress:
        options = (("--agent", agent), ("--session", session_id), ("--status", status), ("--limit", limit))
        more = " ".join(f"{name} {value}" for name, value in options if value)
        output.note(
            f"There are more: agentainerctl runs list {more} --cursor {envelope['next_cursor']}".replace("  ", " ")
        )


@runs.command(
    "show",
    names="runs",
    examples=(
        "agentainerctl runs show 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl runs show -o json 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f | jq -r .output",
    ),
)
@click.argument("run_id", metavar="RUN")
@output_options("table", "json", "yaml")
@click.pass_obj
def show(session: Session, run_id: str) -> None:
    """Show one run whole: what was asked, what became of it, what it cost, the answer."""
    run: Record = session.client.get(run_path(run_id))
    if session.is_machine:
        output.machine(run, session.output)
    elif session.is_quiet:
        print(output.plain(run["id"]))
    else:
        records.page(run)


@runs.command(
    "events",
    names="runs",
    examples=(
        "agentainerctl runs events 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl runs events --type TOOL_CALL_START --type TOOL_CALL_RESULT 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl runs events --follow -o json 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f | jq .event.type",
    ),
)
@click.argument("run_id", metavar="RUN")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="N", help="Begin after event number N.")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Only of this type: CUSTOM, STEP_STARTED, ...; repeatable."
)
@output_options("table", "json")
@click.pass_obj
def events(session: Session, run_id: str, follow: bool, after: int, types: tuple[str, ...]) -> None:
    """Show the events of a run, each on a line: its number, when it was, its type, what it says.

    With -o json each line is the event as it was stored.
    """
    show_events(session, run_id, follow=follow, after=after, types=types)


@runs.command(
    "attach",
    names="runs",
    examples=(
        "agentainerctl runs attach 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl runs attach --full 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f 2>&1 | less",
    ),
)
@click.argument("run_id", metavar="RUN")
@click.option(
    "--after", type=click.IntRange(min=0), default=0, metavar="N", help="Begin after event number N.  [default: all]"
)
@click.option(
    "--full", "is_full", is_flag=True, help="Show thinking and steps too, and results of tools and edits whole."
)
@output_options("table", "json")
@click.pass_obj
def attach(session: Session, run_id: str, after: int, is_full: bool) -> None:
    """Show a run from its beginning, as `run` does, and go on until it ends; of one that has ended, all that was.

    Ctrl-C asks whether to cancel it or to leave it running.
    """
    from agentainerctl.watching import View, conclude, watch

    run: Record = session.client.get(run_path(run_id))
    view = View(session, is_full=is_full)
    view.begin(run)
    ended = watch(session, run, view, after=after)
    view.end(ended)
    conclude(session, ended)


@runs.command(
    "answer",
    names="runs",
    examples=(
        "agentainerctl runs answer 5b1f6a0e yes",
        'agentainerctl runs answer 5b1f6a0e "no, use the other branch"',
        "agentainerctl runs answer --payload '{\"approved\": true}' 5b1f6a0e",
    ),
)
@click.argument("run_id", metavar="RUN")
@click.argument("text", metavar="[TEXT]", required=False)
@click.option("--payload", metavar="JSON", help="The answer as the agent takes it, in place of TEXT.")
@click.option("--decline", "is_declined", is_flag=True, help="Nobody will answer it: the agent is told so.")
@output_options("table", "json", "yaml")
@click.pass_obj
def answer_(session: Session, run_id: str, text: str | None, payload: str | None, is_declined: bool) -> None:
    """Answer what a run waits for, and have it go on. Without TEXT the question is shown, and asked.

    TEXT becomes what the agent asks for: yes or no (and why), a number, one of a list, a text. Several questions get the same
    answer.
    """
    from agentainerctl.watching import ask

    run: Record = session.client.get(run_path(run_id))
    if (text is not None) + (payload is not None) + is_declined > 1:
        raise InvalidParameter("TEXT", "is there beside --payload or --decline: one of them")
    if text is None and payload is None and not is_declined:
        if not session.is_interactive:
            raise InvalidParameter("TEXT", "is missing, and there is nobody to ask")
        for question in records.questions(run):
            output.note(output.plain_text(question))
        run = ask(session, run)
    else:
        run = answer(session.client, str(run["id"]), records.answers(run, text, payload))
    if session.is_machine:
        output.machine(run, session.output)
    elif session.is_quiet:
        print(output.plain(run["id"]))
    else:
        print(f"Run {output.plain(run['id'])} goes on")
        output.note(f"Watch it: agentainerctl runs attach {output.plain(run['id'])}")


@runs.command(
    "cancel",
    names="runs",
    examples=(
        "agentainerctl runs cancel 5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f",
        "agentainerctl runs cancel --kill 5b1f6a0e",
        "agentainerctl runs cancel --agent web --status queued",
    ),
)
@click.argument("run_ids", metavar="[RUN...]", nargs=-1)
@click.option("--agent", metavar="AGENT", help="All of this agent.")
@click.option("--session", "session_id", metavar="SESSION", help="All of this conversation.")
@click.option("--status", type=click.Choice(records.UNDER_WAY), help="All in this state.")
@click.option("--kill", is_flag=True, help="Restart the agent's container where the run does not end at once.")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def cancel_(
    session: Session,
    run_ids: tuple[str, ...],
    agent: str | None,
    session_id: str | None,
    status: str | None,
    kill: bool,
) -> None:
    """Cancel runs: the agent stops what it does for them, tools and all. Its conversation can go on.

    Runs by name, or all that match what is said of them.
    """
    mode = "kill" if kill else "interrupt"
    wanted = {
        name: value for name, value in (("agent_id", agent), ("session_id", session_id), ("status", status)) if value
    }
    if bool(wanted) == bool(run_ids):
        raise InvalidParameter("RUN", "name runs, or say which with --agent, --session and --status: one of both")
    if wanted:
        _cancel_all(session, {**wanted, "mode": mode})
        return

    def act(run_id: str) -> dict[str, Any]:
        answer = cancel(session.client, run_id, mode)
        return {**answer["data"], "name": answer["data"]["id"], "was_cancelled": answer.get("cancelled", True)}

    def line(run_id: str, result: dict[str, Any]) -> str:
        if not result["was_cancelled"]:
            return f"Run {run_id} had ended before: {output.plain(result['status'])}"
        return f"Run {run_id} {'cancelled' if result['status'] == 'cancelled' else 'is being cancelled'}"

    batch.each(session, run_ids, act, line)


def _cancel_all(session: Session, wanted: Record) -> None:
    found: list[Record] = session.client.call("POST", run_path("cancel"), body=wanted).get("data") or []
    if session.is_machine:
        output.machine(found, session.output)
        return
    is_short = session.is_quiet or session.output == "name"
    for each in found:
        identity = output.plain(each["id"])
        print(identity if is_short else f"Run {identity} is being cancelled")
    if not found and session.has_progress:
        output.note("No such runs.")


def show_events(session: Session, run_id: str, *, follow: bool, after: int, types: tuple[str, ...]) -> None:
    """Print the events of a run, which a job is too, that come after number `after`; only of `types` where there are any."""
    shown = 0
    for event in _events(session.client, run_id, follow, after):
        if not types or str(event["event"].get("type")) in types:
            _show_event(session, event)
            shown += 1
    if not shown and session.has_progress:
        output.note("No such events." if types or after else "No events yet.")


def _events(client: Client, run_id: str, follow: bool, after: int) -> Iterator[Record]:
    if follow:
        yield from follow_run(client, run_id, after=after)
        return
    while page := client.get(run_path(run_id, "events"), {"after": after, "limit": defaults.MAX_PAGE_LIMIT}):
        yield from page
        after = page[-1]["seq"]


def _show_event(session: Session, event: Record) -> None:
    if session.is_machine:
        output.json_line(event)
        return
    if session.is_quiet:
        print(event["seq"], flush=True)
        return
    from agentainerctl.transcript import words

    payload = {name: value for name, value in event["event"].items() if name not in ("type", "timestamp")}
    mark = "  (by agentainerd)" if event.get("synthetic") else ""
    kind = f"{output.plain(event['event'].get('type', '')):25}"
    line = f"{event['seq']:>6}  {event['ts']}  {kind}  {words(payload, _MAX_EVENT)}{mark}".rstrip()
    print(output.shorten(line, output.terminal_width(sys.stdout)) if sys.stdout.isatty() else line, flush=True)
