"""Metrics as people read them: facts, table rows, and the curves of a history."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from agentainerctl import graphs, output
from agentainerctl.output import Column, age
from agentainerd.units import format_duration, format_size, parse_duration

Metrics = dict[str, Any]
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
LESS_WANTED = ("RESTARTS", "LIMIT", "DISK READ", "WRITTEN", "PIDS", "NET OUT", "NET IN")
HISTORY_COLUMNS = (
    Column("TIMESTAMP"),
    Column("CPU"),
    Column("MEMORY"),
    Column("NET RX"),
    Column("NET TX"),
    Column("REQ/S"),
    Column("ERR/S"),
    Column("LATENCY"),
    Column("QUEUE"),
)
_LABEL_WIDTH = 11
_FIGURES_WIDTH = 32
_MIN_WIDTH, _MAX_WIDTH = 20, 120


class Curve(NamedTuple):
    """One graph: its title, its value in a point (None: it has none), and that as text; `is_always`: also where all is 0."""

    title: str
    value: Callable[[Metrics], float | None]
    text: Callable[[float], str]
    is_always: bool = False


def facts(found: Metrics) -> list[tuple[str, object]]:
    """Return what is known of one agent, title and text."""
    cpu, memory, network, disk = (found[part] for part in ("cpu", "memory", "network", "disk"))
    containers = len(found["containers"])
    name = ("Agent", f"{found['agent_name']} ({found['agent_id']})")
    if not containers:
        return [name, ("Status", found["status"]), ("Restarts", found["restarts"]), *_requests(found["requests"])]
    return [
        name,
        ("Status", found["status"] + (f", {containers} containers" if containers > 1 else "")),
        ("Measured", age(found["timestamp"])),
        ("CPU", f"{cpu['usage_percent']:.1f} % of one core; {cpu['total_usage'] / 1e9:.1f} s since its start"),
        ("Memory", _memory(memory)),
        ("Network", f"received {_moved(network, 'rx')}; sent {_moved(network, 'tx')}"),
        ("Disk", f"read {_moved(disk, 'read')}; written {_moved(disk, 'write')}"),
        ("Processes", found["pids"]),
        ("Restarts", found["restarts"]),
        *_requests(found["requests"]),
    ]


def row(name: str, status: str, found: Metrics) -> list[str]:
    """Return a row under COLUMNS, of an agent or of one of its containers."""
    if not found["pids"] and status != "running":
        return [name, status, *["-"] * (len(COLUMNS) - 3), str(found["restarts"])]
    network, disk = found["network"], found["disk"]
    return [
        name,
        status,
        f"{found['cpu']['usage_percent']:.1f} %",
        format_size(found["memory"]["usage"]),
        format_size(found["memory"]["limit"]),
        rate(network["rx_bytes_per_s"]),
        rate(network["tx_bytes_per_s"]),
        format_size(disk["read_bytes"]),
        format_size(disk["write_bytes"]),
        str(found["pids"]),
        str(found["restarts"]),
    ]


def show_fitting(columns: Sequence[Column], rows: Sequence[list[str]], less_wanted: Sequence[str]) -> None:
    """Print a table; a terminal that is too narrow goes without the columns of `less_wanted` titles, the first ones first."""
    shown = list(range(len(columns)))
    widths = [max(len(columns[place].title), *(len(row[place]) for row in rows)) for place in shown]
    room = output.terminal_width(sys.stdout) if sys.stdout.isatty() else math.inf
    for title in less_wanted:
        if sum(widths[place] + 3 for place in shown) - 3 <= room:
            break
        shown = [place for place in shown if columns[place].title != title]
    output.table([columns[place] for place in shown], [[row[place] for place in shown] for row in rows])


def history_row(point: Metrics) -> list[str]:
    """Return a row under HISTORY_COLUMNS."""
    requests = point["requests"]
    return [
        point["timestamp"],
        f"{point['cpu']['usage_percent']:.1f} %",
        format_size(point["memory"]["usage"]),
        rate(point["network"]["rx_bytes_per_s"]),
        rate(point["network"]["tx_bytes_per_s"]),
        f"{requests['per_s']:.1f}",
        f"{requests['errors_per_s']:.1f}",
        milliseconds(requests["latency_ms"]) if requests["latency_ms"] else "-",
        f"{requests['pending']:.0f}",
    ]


def drawing(found: Metrics, duration_s: float) -> Iterator[str]:
    """Return lines with the curves of a history that ends now, as wide as the terminal and the number of points let them be."""
    points = found["metrics"]
    end = time.time()
    begin = end - duration_s
    room = output.terminal_width(sys.stdout) - _LABEL_WIDTH - _FIGURES_WIDTH
    finest = int(duration_s / parse_duration(found["step"]) / 1.5)  # no gaps where a point came a little late
    width = max(min(room, finest, _MAX_WIDTH), _MIN_WIDTH)
    span = format_duration(max(duration_s / width, 1))
    yield f"{output.plain(found['agent_name'])}, the last {format_duration(duration_s)}; a column is {span}"
    yield ""
    characters = graphs.blocks()
    for curve in CURVES:
        values = [
            (output.epoch(each["timestamp"]), value) for each in points if (value := curve.value(each)) is not None
        ]
        figures = [value for _, value in values]
        if figures and (curve.is_always or any(figures)):
            drawn = graphs.line(graphs.columns(values, begin, end, width), characters)
            yield f"{curve.title:{_LABEL_WIDTH}}{drawn}  {curve.text(figures[-1])} (up to {curve.text(max(figures))})"
    yield f"{'':{_LABEL_WIDTH}}{graphs.axis(begin, end, width)}"


def milliseconds(value: float) -> str:
    """Return a time for people: "12.3 ms", "4.56 s"."""
    return f"{value / 1000:.3g} s" if value >= 1000 else f"{value:.3g} ms"


def rate(value: float) -> str:
    """Return bytes per second for people."""
    return f"{format_size(int(value))}/s"


def _memory(memory: Metrics) -> str:
    cache = format_size(memory["cache"])
    if not memory["limit"]:
        return f"{format_size(memory['usage'])}; page cache {cache}"
    share = f"{memory['usage_percent']:.1f} % of {format_size(memory['limit'])}"
    return f"{format_size(memory['usage'])} ({share}); page cache {cache}"


def _moved(part: Metrics, way: str) -> str:
    return f"{format_size(part[f'{way}_bytes'])} ({rate(part[f'{way}_bytes_per_s'])})"


def _requests(requests: Metrics) -> list[tuple[str, object]]:
    """Return what the proxy counted since the daemon's start, and the queue where there is one."""
    outcomes = [f"{number} {name.replace('_', ' ')}" for name, number in requests["outcomes"].items() if number]
    latency, replays = requests["latency_ms"], requests["replays"]
    shown: list[tuple[str, object]] = [
        ("Requests", f"{requests['total']}" + (f": {', '.join(outcomes)}" if outcomes else ""))
    ]
    if requests["in_flight"]:
        shown.append(("In flight", requests["in_flight"]))
    if latency["count"]:
        mean, half, most = (milliseconds(latency[name]) for name in ("mean", "p50", "p99"))
        shown.append(("Latency", f"mean {mean}, half within {half}, 99 % within {most}"))
    if requests["pending"]:
        oldest = format_duration(requests["oldest_pending_s"])
        shown.append(("Queue", f"{requests['pending']} waiting, the oldest for {oldest}"))
    if requests["dead_letters"]:
        shown.append(("Failed", f"{requests['dead_letters']} kept; see: agentainerctl requests"))
    if any(replays.values()):
        shown.append(("Replays", ", ".join(f"{number} {name}" for name, number in replays.items() if number)))
    return shown


CURVES = (
    Curve("CPU", lambda each: float(each["cpu"]["usage_percent"]), lambda value: f"{value:.1f} %", True),
    Curve("Memory", lambda each: float(each["memory"]["usage"]), lambda value: format_size(int(value)), True),
    Curve("Net in", lambda each: float(each["network"]["rx_bytes_per_s"]), rate, True),
    Curve("Net out", lambda each: float(each["network"]["tx_bytes_per_s"]), rate, True),
    Curve("Disk read", lambda each: float(each["disk"]["read_bytes_per_s"]), rate),
    Curve("Written", lambda each: float(each["disk"]["write_bytes_per_s"]), rate),
    Curve("Requests", lambda each: float(each["requests"]["per_s"]), lambda value: f"{value:.1f}/s"),
    Curve("Errors", lambda each: float(each["requests"]["errors_per_s"]), lambda value: f"{value:.1f}/s"),
    Curve("Latency", lambda each: float(each["requests"]["latency_ms"]) or None, milliseconds),
    Curve("Queue", lambda each: float(each["requests"]["pending"]), lambda value: f"{value:.0f}"),
)
