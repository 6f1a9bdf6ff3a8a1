"""`system info ping df` and `version`."""

import time
from typing import Any

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import Command, Group, output_options
from agentainerctl.session import Session
from agentainerd.units import format_size
from agentainerd.version import VERSION


@click.group(
    "system",
    cls=Group,
    examples=("agentainerctl system info", "agentainerctl system ping"),
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
