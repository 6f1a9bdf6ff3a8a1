"""The history of an agent's metrics: points, and what several of them are together. Numbers only, no I/O."""

from collections.abc import Iterable, Sequence

import msgspec

from agentainerd.model.metrics import Sample, Traffic

TOTALS = ("cpu_s", "rx_bytes", "tx_bytes", "read_bytes", "write_bytes")
"""Counters: of several points the last one counts. Everything else is a mean."""


class Point(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An agent over an interval that begins at `at` (epoch seconds), the sum of its containers.

    Bytes, percent of one core, and rates per second. `requests_per_s`: that ended, however; `errors_per_s`: those of them that
    were answered with 5xx or not at all; `latency_s`: mean until the whole answer was with its client, 0.0 where none ended;
    `pending`: its queue.
    """

    at: float
    cpu_percent: float = 0.0
    memory_bytes: float = 0.0
    cache_bytes: float = 0.0
    memory_limit_bytes: float = 0.0
    pids: float = 0.0
    containers: float = 0.0
    rx_per_s: float = 0.0
    tx_per_s: float = 0.0
    read_per_s: float = 0.0
    write_per_s: float = 0.0
    requests_per_s: float = 0.0
    errors_per_s: float = 0.0
    latency_s: float = 0.0
    in_flight: float = 0.0
    pending: float = 0.0
    cpu_s: float = 0.0
    rx_bytes: float = 0.0
    tx_bytes: float = 0.0
    read_bytes: float = 0.0
    write_bytes: float = 0.0


_MEANS = tuple(name for name in Point.__struct_fields__ if name not in (*TOTALS, "at", "latency_s"))


def point(at: float, sample: Sample, traffic: Traffic, before: Traffic | None) -> Point:
    """Return the point of an interval that ends at `at`; the requests are those since `before`, None: not known."""
    usage = sample.usage
    elapsed_s = traffic.at - before.at if before is not None else 0.0
    requests = errors = answers = 0
    seconds = 0.0
    if before is not None and elapsed_s > 0 and traffic.requests >= before.requests:
        requests, errors = traffic.requests - before.requests, traffic.errors - before.errors
        answers, seconds = traffic.answers - before.answers, traffic.seconds - before.seconds
    return Point(
        at=at,
        cpu_percent=sample.cpu_percent,
        memory_bytes=usage.memory_bytes,
        cache_bytes=usage.cache_bytes,
        memory_limit_bytes=usage.memory_limit_bytes,
        pids=usage.pids,
        containers=sample.containers,
        rx_per_s=sample.rx_per_s,
        tx_per_s=sample.tx_per_s,
        read_per_s=sample.read_per_s,
        write_per_s=sample.write_per_s,
        requests_per_s=requests / elapsed_s if requests else 0.0,
        errors_per_s=errors / elapsed_s if errors else 0.0,
        latency_s=seconds / answers if answers else 0.0,
        in_flight=traffic.in_flight,
        pending=traffic.pending,
        cpu_s=usage.cpu_s,
        rx_bytes=usage.rx_bytes,
        tx_bytes=usage.tx_bytes,
        read_bytes=usage.read_bytes,
        write_bytes=usage.write_bytes,
    )


def merged(points: Sequence[Point], at: float) -> Point:
    """Return what one or more points, in order, are together, as one that begins at `at`.

    The latency is weighed by the requests of each.
    """
    count, last = len(points), points[-1]
    weight = sum(each.requests_per_s for each in points)
    means = {name: sum(getattr(each, name) for each in points) / count for name in _MEANS}
    latency_s = sum(each.latency_s * each.requests_per_s for each in points) / weight if weight else 0.0
    return Point(at=at, latency_s=latency_s, **means, **{name: getattr(last, name) for name in TOTALS})


def in_steps(points: Iterable[Point], step_s: float) -> list[Point]:
    """Return points in order, merged where several begin within the same `step_s` seconds, counted from the epoch."""
    groups: dict[float, list[Point]] = {}
    for each in points:
        groups.setdefault(each.at // step_s * step_s, []).append(each)
    return [merged(group, at) for at, group in sorted(groups.items())]
