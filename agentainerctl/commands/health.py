"""`health`."""

import sys
import time
from typing import Any

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import DURATION, Command, output_options
from agentainerctl.output import Column, age
from agentainerctl.refs import with_agent
from agentainerctl.session import Session

COLUMNS = (
    Column("ID"),
    Column("NAME", can_shrink=True),
    Column("HEALTH"),
    Column("FAILURES"),
    Column("LAST CHECK"),
    Column("LATENCY"),
    Column("MESSAGE", can_shrink=True),
)
_MARKS = {"healthy": "✓ healthy", "unhealthy": "✗ unhealthy"}
_COLOURS = {"✓ healthy": "green", "✗ unhealthy": "red", "starting": "yellow", "none": "dim"}
INTERVAL_S = 2.0

Report = dict[str, Any]


@click.command(
    "health",
    cls=Command,
    names="agents",
    examples=("agentainerctl health", "agentainerctl health web", "agentainerctl health --watch web"),
)
@click.argument("ref", metavar="[AGENT]", required=False)
@click.option("-w", "--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval", type=DURATION, default=INTERVAL_S, metavar="TIME", help="How often --watch asks.  [default: 2s]"
)
@output_options("table", "json", "yaml")
@click.pass_obj
def health(session: Session, ref: str | None, watch: bool, interval: float) -> None:
    """Show how agents are: one, replica by replica, or all that have a health check.

    With --watch, a terminal shows the newest state; in a pipe each is printed below the one before.
    """
    while True:
        found = _ask(session, ref)
        if watch and not session.is_machine:
            output.begin_screen(sys.stdout)
        _show(session, found, is_one=ref is not None)
        if not watch:
            return
        sys.stdout.flush()
        time.sleep(interval)


def _ask(session: Session, ref: str | None) -> list[Report]:
    client = session.client
    if ref is not None:
        return [with_agent(client, ref, lambda known: client.get(path_of("agents", known, "health")))]
    return sorted(client.get(path_of("health", "agents")).values(), key=lambda each: str(each.get("agent_name")))


def _show(session: Session, found: list[Report], *, is_one: bool) -> None:
    if session.is_machine:
        output.machine(found[0] if is_one else {each["agent_id"]: each for each in found}, session.output)
    elif session.is_quiet:
        for each in found:
            print(output.plain(each.get("agent_id", "")))
    elif not found:
        print("No agent has a health check")
    else:
        output.table(COLUMNS, [row for each in found for row in _rows(each)], colours=_COLOURS)
        if is_one and session.has_progress:
            output.note(_what(found[0].get("check") or {}))


def _rows(report: Report) -> list[list[str]]:
    replicas = report.get("replicas") or []
    agent_id, name = report.get("agent_id"), report.get("agent_name")
    if len(replicas) < 2:
        return [_row(report, agent_id, name)]
    return [_row(each, agent_id, f"{name}-{each.get('replica')}") for each in replicas]


def _row(report: Report, agent_id: object, name: object) -> list[str]:
    status = str(report.get("status", ""))
    last = report.get("last_check")
    return [
        str(agent_id),
        str(name),
        _MARKS.get(status, status),
        str(report.get("failure_count", 0)),
        age(last) if last else "never",
        f"{report.get('latency_ms', 0):.1f} ms" if last else "-",
        str(report.get("message") or "-"),
    ]


def _what(check: Report) -> str:
    """Return what is asked, in a sentence."""
    endpoint = check.get("endpoint")
    asked = " ".join(check.get("command") or []) or ("a connection" if endpoint == "tcp" else f"GET {endpoint}")
    start = str(check.get("start_period", "0s"))
    grace = "" if start in ("0", "0s") else f"; for {start} after a start failures do not count"
    return output.plain(
        f"{asked} every {check.get('interval')}, within {check.get('timeout')}; "
        f"unhealthy after {check.get('retries')} failures in a row{grace}"
    )
