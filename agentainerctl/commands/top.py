"""`top`."""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.metrics import Metrics, milliseconds, rate, show_fitting
from agentainerctl.options import DURATION, Command, output_options
from agentainerctl.output import Column
from agentainerctl.session import Session
from agentainerd.units import format_duration, format_size

COLUMNS = (
    Column("NAME", can_shrink=True),
    Column("STATUS"),
    Column("CPU"),
    Column("MEMORY"),
    Column("MEM %"),
    Column("NET IN"),
    Column("NET OUT"),
    Column("DISK"),
    Column("REQ/S"),
    Column("ERR/S"),
    Column("LATENCY"),
    Column("IN FLIGHT"),
    Column("QUEUE"),
    Column("RESTARTS"),
)
INTERVAL_S = 2.0
_LESS_WANTED = ("MEM %", "RESTARTS", "DISK", "IN FLIGHT", "STATUS", "NET OUT", "NET IN", "ERR/S", "LATENCY", "REQ/S")
"""What a terminal that is too narrow goes without, in this order."""
_CHROME_LINES = 5  # header, empty line, titles, what did not fit, keys


class Look(NamedTuple):
    """What is known at one moment: `at` by the monotonic clock; `agents` by id; `daemon`."""

    at: float
    agents: dict[str, Metrics]
    daemon: dict[str, Any]


class Line(NamedTuple):
    """One agent, with what has happened since the look before: requests and errors per second, mean latency in ms."""

    found: Metrics
    requests: float = 0.0
    errors: float = 0.0
    latency: float = 0.0


def _network(line: Line) -> float:
    return float(line.found["network"]["rx_bytes_per_s"] + line.found["network"]["tx_bytes_per_s"])


def _disk(line: Line) -> float:
    return float(line.found["disk"]["read_bytes_per_s"] + line.found["disk"]["write_bytes_per_s"])


SORTS: dict[str, Callable[[Line], float]] = {
    "cpu": lambda line: float(line.found["cpu"]["usage_percent"]),
    "memory": lambda line: float(line.found["memory"]["usage"]),
    "network": _network,
    "disk": _disk,
    "requests": lambda line: line.requests,
    "errors": lambda line: line.errors,
    "latency": lambda line: line.latency,
    "queue": lambda line: float(line.found["requests"]["pending"]),
    "name": lambda line: 0.0,
}
"""What agents can be sorted by, the largest first. Equal ones are in the order of names."""


@click.command(
    "top",
    cls=Command,
    examples=(
        "agentainerctl top",
        "agentainerctl top --sort queue --interval 5s",
        "agentainerctl top --once --sort memory",
    ),
)
@click.option(
    "-s",
    "--sort",
    type=click.Choice(list(SORTS)),
    default="cpu",
    help="What the first one has most of.  [default: cpu]",
)
@click.option("--interval", type=DURATION, default=INTERVAL_S, metavar="TIME", help="How often.  [default: 2s]")
@click.option("--once", is_flag=True, help="Show it once, as in a pipe.")
@output_options("table", "json", "yaml")
@click.pass_obj
def top(session: Session, sort: str, interval: float, once: bool) -> None:
    """Show what agents use and do, again and again: the busiest first.

    On a terminal, keys change the order: c cpu, m memory, n network, d disk, r requests, e errors, l latency, u queue, a
    names; q or Ctrl-C ends it.
    """
    interval = max(interval, 0.1)
    look = _look(session, interval)
    if once or session.is_machine or session.is_quiet or not output.is_terminal(sys.stdout):
        _show_once(session, look, sort)
        return
    before = look
    with _keys() as next_key:
        while True:
            _draw(session, _lines(look, before), look, before, sort)
            sort = next_key(interval, sort)
            if not sort:
                return
            if time.monotonic() - look.at >= interval:
                before, look = look, _look(session, interval)


def _look(session: Session, interval_s: float) -> Look:
    client = session.client
    agents = client.get(path_of("metrics", "agents"), {"max_age": min(interval_s, 10.0)})
    return Look(time.monotonic(), agents, client.get(path_of("metrics", "daemon")))


def _show_once(session: Session, look: Look, sort: str) -> None:
    lines = _sorted(_lines(look, look), sort)
    if session.is_machine:
        output.machine({"agents": [line.found for line in lines], "daemon": look.daemon}, session.output)
    elif session.is_quiet:
        for line in lines:
            print(output.plain(line.found["agent_id"]))
    elif not lines:
        print("No agents found")
    else:
        output.table(COLUMNS, [_row(line, is_first=True) for line in lines])


def _lines(look: Look, before: Look) -> list[Line]:
    """Return the agents of a look with what has happened since the one before."""
    elapsed_s = look.at - before.at
    lines = []
    for agent_id, found in look.agents.items():
        now, then = found["requests"], before.agents.get(agent_id, found)["requests"]
        if elapsed_s <= 0 or now["total"] < then["total"]:
            lines.append(Line(found))
            continue
        answers = now["latency_ms"]["count"] - then["latency_ms"]["count"]
        took = _spent(now) - _spent(then)
        lines.append(
            Line(
                found,
                (now["total"] - then["total"]) / elapsed_s,
                (now["errors"] - then["errors"]) / elapsed_s,
                max(took / answers, 0.0) if answers > 0 else 0.0,
            )
        )
    return lines


def _spent(requests: Metrics) -> float:
    return float(requests["latency_ms"]["mean"] * requests["latency_ms"]["count"])


def _sorted(lines: list[Line], sort: str) -> list[Line]:
    return sorted(lines, key=lambda line: (-SORTS[sort](line), str(line.found["agent_name"])))


def _draw(session: Session, lines: list[Line], look: Look, before: Look, sort: str) -> None:
    output.begin_screen(sys.stdout)
    width = output.terminal_width(sys.stdout)
    print(_header(look, before)[:width])
    print()
    room = max(_terminal_lines() - _CHROME_LINES, 1)
    rows = [_row(line, is_first=look is before) for line in _sorted(lines, sort)]
    if rows:
        show_fitting(COLUMNS, rows[:room], _LESS_WANTED)
    else:
        print("No agents found")
    hidden = f"{len(rows) - room} more agents; " if len(rows) > room else ""
    keys = " ".join(f"{_KEYS[name]} {name}" for name in SORTS)
    told = f"{hidden}by {sort}; keys: {keys}, q end"
    if len(told) >= width:
        told = f"{hidden}by {sort}; keys: {' '.join(_KEYS.values())}, q"[: width - 1]
    print(output.paint(told, "dim", sys.stdout), end="", flush=True)


def _header(look: Look, before: Look) -> str:
    daemon = look.daemon
    elapsed_s = look.at - before.at
    cpu_s = daemon["cpu_seconds"] - before.daemon["cpu_seconds"]
    parts = [f"agentainerd: up {format_duration(time.time() - output.epoch(daemon['started_at']))}"]
    if elapsed_s > 0 and cpu_s >= 0:
        parts.append(f"cpu {100 * cpu_s / elapsed_s:.1f} %")
    redis = daemon["redis"]
    parts += [
        format_size(daemon["memory_bytes"]),
        f"{daemon['connections']} connections",
        f"loop lag {daemon['loop_lag_ms']['last']} ms (up to {daemon['loop_lag_ms']['largest']})",
        f"journal {milliseconds(daemon['journal']['latency_ms']['p99'])}",
        f"redis {format_size(redis['memory_bytes'])}" if redis else "redis is away",
    ]
    return ", ".join(parts)


def _row(line: Line, *, is_first: bool) -> list[str]:
    found, requests = line.found, line.found["requests"]
    lively = [f"{line.requests:.1f}", f"{line.errors:.1f}", milliseconds(line.latency) if line.latency else "-"]
    own = ["-"] * 6
    if found["containers"]:
        network = found["network"]
        own = [
            f"{found['cpu']['usage_percent']:.1f} %",
            format_size(found["memory"]["usage"]),
            f"{found['memory']['usage_percent']:.1f}",
            rate(network["rx_bytes_per_s"]),
            rate(network["tx_bytes_per_s"]),
            rate(_disk(line)),
        ]
    return [
        str(found["agent_name"]),
        str(found["status"]),
        *own,
        *(["-"] * 3 if is_first else lively),
        str(requests["in_flight"]),
        str(requests["pending"]),
        str(found["restarts"]),
    ]


def _terminal_lines() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).lines or 24
    except OSError:
        return 24


_KEYS = {name: {"name": "a", "queue": "u"}.get(name, name[0]) for name in SORTS}


@contextmanager
def _keys() -> Iterator[Callable[[float, str], str]]:
    """Give a function that waits for a key, at most so many seconds, and returns what to sort by then; "" ends."""
    source = sys.stdin
    if source is None or not source.isatty():
        yield _only_wait
        return
    descriptor = source.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield lambda seconds, sort: _after_key(descriptor, seconds, sort)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        print()


def _only_wait(seconds: float, sort: str) -> str:
    time.sleep(seconds)
    return sort


def _after_key(descriptor: int, seconds: float, sort: str) -> str:
    if not select.select([descriptor], [], [], seconds)[0]:
        return sort
    typed = os.read(descriptor, 16).decode("utf-8", "replace")
    if typed in ("q", "\x1b", ""):
        return ""
    names = {key: name for name, key in _KEYS.items()}
    return names.get(typed[-1:], sort) if not typed.startswith("\x1b") else sort
