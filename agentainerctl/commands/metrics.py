"""`metrics`."""

from typing import Any

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import Command, output_options
from agentainerctl.output import Column, age
from agentainerctl.refs import with_agent
from agentainerctl.session import Session
from agentainerd.units import format_size

COLUMNS = (
    Column("NAME", can_shrink=True),
    Column("STATUS"),
    Column("CPU"),
    Column("MEMORY"),
    Column("LIMIT"),
    Column("NET IN"),
    Column("NET OUT"),
    Column("DISK READ"),
    Column("WRITTEN"),
    Column("PIDS"),
    Column("RESTARTS"),
)

Metrics = dict[str, Any]


@click.command(
    "metrics",
    cls=Command,
    names="agents",
    examples=("agentainerctl metrics", "agentainerctl metrics web", "agentainerctl metrics web -o json | jq .cpu"),
)
@click.argument("ref", metavar="[AGENT]", required=False)
@output_options("table", "json", "yaml")
@click.pass_obj
def metrics(session: Session, ref: str | None) -> None:
    """Show what agents use: CPU, memory, network, disk; of one agent, or of all in a table.

    CPU is percent of one core. What agents use is measured every 10 seconds.
    """
    client = session.client
    if ref is not None:
        _show_one(session, with_agent(client, ref, lambda known: client.get(path_of("agents", known, "metrics"))))
    else:
        _show_all(session, client.get(path_of("metrics", "agents")))


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
        output.table(COLUMNS, [_row(str(each["agent_name"]), str(each["status"]), each) for each in agents])


def _show_one(session: Session, found: Metrics) -> None:
    if session.is_machine:
        output.machine(found, session.output)
        return
    if session.is_quiet:
        print(output.plain(found.get("agent_id", "")))
        return
    cpu, memory, network, disk = (found[part] for part in ("cpu", "memory", "network", "disk"))
    containers = found["containers"]
    output.facts(
        (
            ("Agent", f"{found['agent_name']} ({found['agent_id']})"),
            ("Status", found["status"] + (f", {len(containers)} containers" if len(containers) > 1 else "")),
            ("Measured", age(found["timestamp"])),
            ("CPU", f"{cpu['usage_percent']:.1f} % of one core; {cpu['total_usage'] / 1e9:.1f} s since its start"),
            ("Memory", _memory(memory)),
            ("Network", f"received {_moved(network, 'rx')}; sent {_moved(network, 'tx')}"),
            ("Disk", f"read {_moved(disk, 'read')}; written {_moved(disk, 'write')}"),
            ("Processes", found["pids"]),
            ("Restarts", found["restarts"]),
        )
    )
    if len(containers) > 1:
        print()
        output.table(COLUMNS, [_row(f"replica {each['replica']}", "running", each) for each in containers])


def _memory(memory: Metrics) -> str:
    cache = format_size(memory["cache"])
    if not memory["limit"]:
        return f"{format_size(memory['usage'])}; page cache {cache}"
    share = f"{memory['usage_percent']:.1f} % of {format_size(memory['limit'])}"
    return f"{format_size(memory['usage'])} ({share}); page cache {cache}"


def _moved(part: Metrics, way: str) -> str:
    return f"{format_size(part[f'{way}_bytes'])} ({format_size(int(part[f'{way}_bytes_per_s']))}/s)"


def _row(name: str, status: str, found: Metrics) -> list[str]:
    if not found["pids"] and status != "running":
        return [name, status, *["-"] * (len(COLUMNS) - 3), str(found["restarts"])]
    network, disk = found["network"], found["disk"]
    return [
        name,
        status,
        f"{found['cpu']['usage_percent']:.1f} %",
        format_size(found["memory"]["usage"]),
        format_size(found["memory"]["limit"]),
        f"{format_size(int(network['rx_bytes_per_s']))}/s",
        f"{format_size(int(network['tx_bytes_per_s']))}/s",
        format_size(disk["read_bytes"]),
        format_size(disk["write_bytes"]),
        str(found["pids"]),
        str(found["restarts"]),
    ]
