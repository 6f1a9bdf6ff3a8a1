"""`system info ping df logs` and `version`."""

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
from agentainerctl.options import Command, Group, output_options
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.units import format_size
from agentainerd.version import VERSION

Record = dict[str, Any]
_LEVELS = ("debug", "info", "warning", "error", "critical")
_COLOURS = {"warning": "yellow", "error": "red", "critical": "red"}
_COLUMNS = ("time", "level", "component", "message", "traceback")


@click.group(
    "system",
    cls=Group,
    examples=("agentainerctl system info", "agentainerctl system logs --follow"),
)
def system() -> None:
    """Ask the daemon about itself."""


@system.command("info", examples=("agentainerctl system info", "agentainerctl system info -o json | jq .orphans"))
@output_options("table", "json", "yaml")
@click.pass_obj
def info(session: Session) -> None:
    """Show the daemon's versions, dependencies, loops and counts, and containers of ours without a record (orphans)."""
    data = session.client.get(path_of("system", "info"))
    if session.is_machine:
        output.machine(data, session.output)
        return
    endpoint = session.client.endpoint
    output.facts([("Endpoint", f"{endpoint.url} ({endpoint.source})")])
    _tree(data)


@system.command("df", examples=("agentainerctl system df", "agentainerctl system df -o json"))
@output_options("table", "json", "yaml")
@click.pass_obj
def df(session: Session) -> None:
    """Show the disk space that agents, requests and images take."""
    data = session.client.get(path_of("system", "df"))
    if session.is_machine:
        output.machine(data, session.output)
    else:
        _tree(data)


@system.command("ping", examples=("agentainerctl system ping", "agentainerctl system ping -q && echo up"))
@output_options("table", "json", "yaml")
@click.pass_obj
def ping(session: Session) -> None:
    """Say whether the daemon answers, where, and how fast. Exit code 5: it does not."""
    endpoint = session.client.endpoint
    began = time.monotonic()
    session.client.get(path_of("system", "ping"))
    took_ms = (time.monotonic() - began) * 1000
    if session.is_machine:
        answer = {"endpoint": endpoint.url, "source": endpoint.source, "milliseconds": round(took_ms, 1)}
        output.machine(answer, session.output)
    elif not session.is_quiet:
        print(f"agentainerd answers at {endpoint.url} ({endpoint.source}) in {took_ms:.0f} ms")


@system.command(
    "logs",
    examples=(
        "agentainerctl system logs --follow --level warning",
        "agentainerctl system logs --since 1h --component store --component proxy",
        "agentainerctl system logs --since 1d -o json | jq 'select(.agent == \"web\")'",
    ),
)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is logged from now on, until Ctrl-C.")
@click.option("--level", type=click.Choice(_LEVELS), help="Only of this level and worse.")
@click.option(
    "--component",
    "components",
    multiple=True,
    metavar="NAME",
    help="Only of this part of the daemon: store, services.agents, ...; repeatable.",
)
@click.option("--since", metavar="TIME", help="Begin there: 10m (ago), or 2026-11-20T10:00:00Z.")
@click.option(
    "-n", "--limit", type=click.IntRange(1, defaults.MAX_PAGE_LIMIT), metavar="N",
    help=f"Begin with the last N.  [default: {defaults.LOG_LINES}; with --since all]",
)  # fmt: skip
@output_options("table", "json")
@click.pass_obj
def logs(
    session: Session, follow: bool, level: str | None, components: tuple[str, ...], since: str | None, limit: int | None
) -> None:
    """Show the daemon's own log: what it did, for whom, and what is wrong. An agent's output: agentainerctl logs AGENT.

    With -o json each entry is one line.
    """
    query: dict[str, object] = {"level": level, "component": list(components), "since": since, "limit": limit}
    shown = 0
    for entry in _follow_log(session.client, query) if follow else _read_log(session.client, query):
        _show_entry(session, entry)
        shown += 1
    if not shown and session.has_progress:
        output.note("No entries.")


@click.command(
    "version",
    cls=Command,
    examples=("agentainerctl version", "agentainerctl version -o json"),
)
@output_options("table", "json", "yaml")
@click.pass_obj
def version(session: Session) -> None:
    """Show the versions of this program and of the daemon; `agentainerctl --version` needs no daemon."""
    server = session.client.get(path_of("version"))
    if session.is_machine:
        output.machine({"client": {"version": VERSION}, "server": server}, session.output)
        return
    output.facts([("Client", VERSION), ("Server", server.get("version")), ("Endpoint", session.client.endpoint.url)])
    if server.get("version") != VERSION and session.has_progress:
        output.note(f"warning: client {VERSION} and server {server.get('version')} differ")


def _read_log(client: Client, query: dict[str, object]) -> Iterator[Record]:
    path = path_of("system", "logs")
    if query["since"] and query["limit"] is None:
        return client.stream("GET", path, query=query)
    return iter(client.get(path, query))


def _follow_log(client: Client, query: dict[str, object]) -> Iterator[Record]:
    """Return entries as they come, also across restarts of the daemon: from the time of the last one on, each once."""
    latest: list[Record] = []  # the last entries of one time
    while True:
        seen = list(latest)
        try:
            for entry in client.stream("GET", path_of("system", "logs"), query={**query, "follow": True}):
                if not entry:
                    continue
                if entry in seen:
                    seen.remove(entry)
                    continue
                latest = [*latest, entry] if latest and latest[0]["time"] == entry["time"] else [entry]
                yield entry
        except StreamBroken:
            output.note("--- the connection to agentainerd broke; reconnecting ---")
        if latest:
            query = {**query, "since": latest[0]["time"], "limit": None}
        wait_for_daemon(client)


def _show_entry(session: Session, entry: Record) -> None:
    if session.is_machine:
        print(json.dumps(entry), flush=True)
        return
    level = output.paint(f"{output.plain(entry['level']):8}", _COLOURS.get(entry["level"], ""), sys.stdout)
    fields = " ".join(f"{name}={output.plain(value)}" for name, value in entry.items() if name not in _COLUMNS)
    words = [entry["time"], level, f"{output.plain(entry['component']):20}", output.plain(entry["message"]), fields]
    print("  ".join(word for word in words if word).rstrip(), flush=True)
    for line in str(entry.get("traceback", "")).splitlines():
        print(f"    {output.plain(line)}", flush=True)


def _tree(data: dict[str, Any], indent: str = "") -> None:
    """Print a JSON object for people: simple values first, aligned, then each part under its title."""
    simple = {key: value for key, value in data.items() if not isinstance(value, dict | list) or not value}
    output.facts([(_title(key), _value(key, value)) for key, value in simple.items()], indent=indent)
    for key, value in data.items():
        if key in simple:
            continue
        print(f"{indent}{_title(key)}:")
        if isinstance(value, dict):
            _tree(value, indent + "  ")
            continue
        for item in value:
            print(f"{indent}  - {output.plain(_item(item))}")


def _item(item: object) -> object:
    """Return one element of a list on one line."""
    if not isinstance(item, dict):
        return item
    return ", ".join(
        f"{_title(key).lower()} {_value(key, value)}" for key, value in item.items() if value not in ("", None)
    )


def _title(key: str) -> str:
    if key == "bytes":
        return "Size"
    for unit in ("_bytes", "_at", "_s"):
        key = key.removesuffix(unit)
    words = output.plain(key).replace("_", " ")
    return words[:1].upper() + words[1:]


def _value(key: str, value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key.rpartition("_")[2] == "bytes" and isinstance(value, int):
        return format_size(value)
    if key.endswith("_at"):
        return output.age(value) or "never"
    if key.endswith("_s") and isinstance(value, int | float):
        return f"{value:g} s"
    return "none" if isinstance(value, dict | list) else value
