"""`metrics`."""

import sys

import click

from agentainerctl import metrics as shown
from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.metrics import Metrics
from agentainerctl.options import DURATION, Command, output_options
from agentainerctl.refs import with_agent
from agentainerctl.session import Session
from agentainerd.units import format_duration

HISTORY_S = 3600.0
MAX_HISTORY_S = 24 * 3600.0


@click.command(
    "metrics",
    cls=Command,
    names="agents",
    examples=(
        "agentainerctl metrics",
        "agentainerctl metrics web",
        "agentainerctl metrics web --history --duration 6h",
        "agentainerctl metrics web --history --step 1m -o json | jq '.metrics[].cpu.usage_percent'",
    ),
)
@click.argument("ref", metavar="[AGENT]", required=False)
@click.option("-H", "--history", "is_history", is_flag=True, help="Show the last hour, or --duration, of AGENT.")
@click.option(
    "-d", "--duration", type=DURATION, default=HISTORY_S, metavar="TIME", help="How long, up to 24h.  [default: 1h]"
)
@click.option("--step", type=DURATION, metavar="TIME", help="One point for so long.  [default: as fine as it is kept]")
@click.option("--table", "is_table", is_flag=True, help="The history as a table, as in a pipe, not as graphs.")
@output_options("table", "json", "yaml")
@click.pass_obj
def metrics(
    session: Session, ref: str | None, is_history: bool, duration: float, step: float | None, is_table: bool
) -> None:
    """Show what agents use: CPU, memory, network, disk; of one agent, or of all in a table.

    CPU is percent of one core. What agents use is measured every 10 seconds. It is kept so for an hour, and in means of a
    minute for a day; --history draws it.
    """
    if duration > MAX_HISTORY_S:
        raise click.UsageError("--duration: a history is kept for 24h")
    client = session.client
    if ref is None:
        if is_history:
            raise click.UsageError("a history is that of one agent: name it")
        _show_all(session, client.get(path_of("metrics", "agents")))
    elif is_history:
        query = {"duration": duration, "step": step}
        found = with_agent(client, ref, lambda known: client.get(path_of("agents", known, "metrics", "history"), query))
        _show_history(session, found, duration, is_table=is_table)
    else:
        _show_one(session, with_agent(client, ref, lambda known: client.get(path_of("agents", known, "metrics"))))


def _show_all(session: Session, found: dict[str, Metrics]) -> None:
    agents = sorted(found.values(), key=lambda each: str(each.get("agent_name")))
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet:
        for each in agents:
            print(output.plain(each.get("agent_id", "")))
    elif not agents:
        print("No agents found")
    else:
        rows = [shown.row(str(each["agent_name"]), str(each["status"]), each) for each in agents]
        shown.show_fitting(shown.COLUMNS, rows, shown.LESS_WANTED)


def _show_one(session: Session, found: Metrics) -> None:
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet:
        print(output.plain(found.get("agent_id", "")))
    else:
        output.facts(shown.facts(found))
        if len(found["containers"]) > 1:
            print()
            rows = [shown.row(f"replica {each['replica']}", "running", each) for each in found["containers"]]
            shown.show_fitting(shown.COLUMNS, rows, shown.LESS_WANTED)


def _show_history(session: Session, found: Metrics, duration_s: float, *, is_table: bool) -> None:
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet:
        print(output.plain(found.get("agent_id", "")))
    elif not found["metrics"]:
        name = output.plain(found["agent_name"])
        print(f"Nothing is known of {name} in the last {format_duration(duration_s)}")
    elif is_table or not output.is_terminal(sys.stdout):
        output.table(shown.HISTORY_COLUMNS, [shown.history_row(each) for each in found["metrics"]])
    else:
        for line in shown.drawing(found, duration_s):
            print(line)
