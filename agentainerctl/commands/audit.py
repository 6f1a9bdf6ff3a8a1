"""`audit`: the entries, or with --verify whether the log is whole."""

from typing import Any

import click

from agentainerctl import exits, output
from agentainerctl.client import path_of
from agentainerctl.options import Command, output_options
from agentainerctl.output import Column
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.errors import InvalidParameter

Record = dict[str, Any]

COLUMNS = (
    Column("TIME"),
    Column("ACTOR", can_shrink=True),
    Column("ACTION"),
    Column("RESOURCE", can_shrink=True),
    Column("RESULT"),
    Column("ADDRESS"),
)
WIDE_COLUMNS = (Column("SEQ"), *COLUMNS, Column("REQUEST"))
_COLOURS = {"ok": "green", "refused": "yellow"}
FAULT_COLUMNS = (Column("FILE"), Column("LINE"), Column("ENTRY"), Column("WHAT IS WRONG"))


@click.command(
    "audit",
    cls=Command,
    examples=(
        "agentainerctl audit --duration 24h",
        "agentainerctl audit --user ci --action remove_agent --action stop_agent",
        "agentainerctl audit --result failed --limit 1000 -o json",
        "agentainerctl audit --verify",
    ),
)
@click.option(
    "-u", "--user", metavar="TEXT", help="Only of actors whose name holds this: a user, a token's name, 'daemon'."
)
@click.option(
    "-a",
    "--action",
    "actions",
    multiple=True,
    metavar="ACTION",
    help="Only this: start_agent, log_in, deploy_*; repeatable.",
)
@click.option("-r", "--resource", metavar="TEXT", help="Only on what holds this: an agent's name or id, ...")
@click.option(
    "--result", metavar="RESULT", help="Only with this result: ok, refused, an error's code; or failed: all but ok."
)
@click.option("-d", "--duration", metavar="TIME", help="Only the last 30m, 24h, 7d.")
@click.option("--since", metavar="TIME", help="Only from then on: 10m (ago), 2026-11-20T10:00:00Z.")
@click.option("--until", metavar="TIME", help="Only before that.")
@click.option(
    "-l",
    "-n",
    "--limit",
    type=click.IntRange(1, 1_000_000),
    default=defaults.PAGE_LIMIT,
    show_default=True,
    metavar="N",
    help="The last so many.",
)
@click.option("--verify", is_flag=True, help="Check every entry of the log instead; exit 1 where it is broken.")
@output_options("table", "wide", "json", "yaml")
@click.pass_obj
def audit(session: Session, /, actions: tuple[str, ...], limit: int, verify: bool, **filters: str | None) -> None:
    """Show who changed what, from where, and how it ended; the newest entry is the last one.

    With --verify it checks that no entry was changed, removed, put in or cut off, and says where if one was.
    """
    query: dict[str, object] = {"action": list(actions), **filters}
    if verify:
        if any(query.values()):
            raise InvalidParameter("--verify", "is of the whole log, and takes no filter")
        _verify(session)
        return
    found = _fetch(session, query, limit)[::-1]
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet:
        for entry in found:
            print(entry["seq"])
    elif not found:
        print("No entries match." if any(query.values()) else "No entries.")
    else:
        _table(session, found)


def _fetch(session: Session, query: dict[str, object], limit: int) -> list[Record]:
    """Return the newest `limit` entries, newest first."""
    found: list[Record] = []
    cursor = None
    while len(found) < limit:
        size = min(limit - len(found), defaults.MAX_PAGE_LIMIT)
        page = session.client.get(path_of("audit"), {**query, "limit": size, "cursor": cursor})
        found += page["entries"]
        cursor = page.get("next_cursor")
        if not cursor:
            break
    return found


def _table(session: Session, found: list[Record]) -> None:
    is_wide = session.output == "wide"
    rows = []
    for entry in found:
        row = [entry[name] for name in ("time", "actor", "action", "resource", "result", "address")]
        rows.append([str(entry["seq"]), *row, entry["request_id"]] if is_wide else row)
    colours = {entry["result"]: _COLOURS.get(entry["result"], "red") for entry in found}
    output.table(WIDE_COLUMNS if is_wide else COLUMNS, rows, colours=colours)


def _verify(session: Session) -> None:
    check: Record = session.client.call("GET", path_of("audit", "verify"), timeout_s=None)["data"]
    if not check["intact"]:
        session.exit_code = exits.FAILED
    if session.is_machine:
        output.machine(check, session.output)
        return
    span = f"entries {check['first_seq']} to {check['last_seq']}" if check["entries"] else "no entries yet"
    if check["intact"]:
        print(f"The audit log is whole: {span}.")
    else:
        count = check["fault_count"]
        print(f"The audit log is broken in {count} {'place' if count == 1 else 'places'} ({span}):")
        rows = [
            [fault["file"], str(fault["line"]), str(fault["seq"] or "-"), fault["reason"]] for fault in check["faults"]
        ]
        output.table(FAULT_COLUMNS, rows)
        if count > len(rows):
            print(f"... and {count - len(rows)} more")
    if check["torn_lines"]:
        lines = check["torn_lines"]
        print(
            f"{lines} {'line was' if lines == 1 else 'lines were'} torn by a crash, and noted at once; nothing is missing."
        )
    if check["entries"]:
        print(f"Last entry: {check['last_seq']}, seal {check['last_mac']}")
