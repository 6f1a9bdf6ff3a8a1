"""`events`."""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

from agentainerctl import output
from agentainerctl.client import Client, path_of
from agentainerctl.failures import StreamBroken
from agentainerctl.logstream import wait_for_daemon
from agentainerctl.options import Command, output_options
from agentainerctl.session import Session
from agentainerd import defaults

Record = dict[str, Any]
_COLOURS = {"die": "red", "oom": "red", "fail": "red", "ready": "green", "remove": "yellow", "stop": "yellow"}


@click.command(
    "events",
    cls=Command,
    examples=(
        "agentainerctl events --follow",
        "agentainerctl events --since 1h --agent web --action die --action oom",
        "agentainerctl events --follow -o json | jq -r 'select(.action == \"die\") | .details.exit_code'",
    ),
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on, until Ctrl-C.")
@click.option(
    "--since", metavar="TIME|ID", help="Begin there: 10m (ago), 2026-11-20T10:00:00Z, or after an event's id."
)
@click.option("--agent", "agents", multiple=True, metavar="AGENT", help="Only of this agent (name or id); repeatable.")
@click.option(
    "--action", "actions", multiple=True, metavar="ACTION", help="Only this: die, oom, ready, ...; repeatable."
)
@click.option(
    "-n", "--limit", type=click.IntRange(1, defaults.MAX_PAGE_LIMIT), metavar="N",
    help="At most so many, without --follow.  [default: 100]",
)  # fmt: skip
@output_options("table", "json")
@click.pass_obj
def events(
    session: Session,
    follow: bool,
    since: str | None,
    agents: tuple[str, ...],
    actions: tuple[str, ...],
    limit: int | None,
) -> None:
    """Show what happened to agents: the last events, or those since a time; with --follow also what happens next.

    With -o json each event is one line.
    """
    query: dict[str, object] = {"since": since, "agent": list(agents), "action": list(actions)}
    found = (
        _follow(session.client, query) if follow else session.client.get(path_of("events"), {**query, "limit": limit})
    )
    shown = 0
    for event in found:
        _show(session, event)
        shown += 1
    if not shown and session.has_progress:
        output.note("No events." if since or agents or actions else "No events yet.")


def _follow(client: Client, query: dict[str, object]) -> Iterator[Record]:
    """Return events as they come, also across restarts of the daemon."""
    began = f"{time.time():.3f}"
    while True:
        try:
            for event in client.stream("GET", path_of("events"), query={**query, "follow": True}):
                if event:
                    query["since"] = event["id"]
                    yield event
        except StreamBroken:
            output.note("--- the connection to agentainerd broke; reconnecting ---")
        query["since"] = query["since"] or began
        wait_for_daemon(client)


def _show(session: Session, event: Record) -> None:
    if session.is_machine:
        print(json.dumps(event), flush=True)
        return
    action = output.paint(f"{event['action']:8}", _COLOURS.get(event["action"], ""), sys.stdout)
    details = " ".join(f"{name}={output.plain(value)}" for name, value in sorted(event["details"].items()))
    words = [event["time"], action, f"{output.plain(event['agent']):20}", output.plain(event["message"]), details]
    print("  ".join(word for word in words if word).rstrip(), flush=True)
