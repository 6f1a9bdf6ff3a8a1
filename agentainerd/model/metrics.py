"""Metrics: what a container has used, and at which rate. Numbers and rules only, no I/O.

A `Usage` is what the kernel counts for one container at one moment; two of them make a `Sample`, which has rates as well.
An agent's sample is the sum of those of its containers.
"""

from collections.abc import Sequence

import msgspec


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The kernel's counters of one run of a container. Those without a unit in their name only ever grow, but `pids`.

    `at`: epoch seconds (clock.now) of the reading. `cpu_s`: seconds of one core, of all its processes. `memory_bytes`: what it
    holds without the page cache that can be taken from it; `cache_bytes`: all of its page cache. `memory_limit_bytes`: the
    least of its own limit and the host's memory. `rx` and `tx`: all its interfaces but loopback.
    """

    at: float
    cpu_s: float = 0.0
    memory_bytes: int = 0
    cache_bytes: int = 0
    memory_limit_bytes: int = 0
    pids: int = 0
    rx_bytes: int = 0
    rx_packets: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    read_bytes: int = 0
    write_bytes: int = 0


class Sample(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What containers use: `usage` are sums, and the rates are per second since the sample before, or since the start.

    `cpu_percent`: of one core, as everywhere in Docker: two cores that are busy are 200. `containers`: how many were read.
    """

    usage: Usage
    containers: int = 1
    cpu_percent: float = 0.0
    rx_per_s: float = 0.0
    tx_per_s: float = 0.0
    read_per_s: float = 0.0
    write_per_s: float = 0.0

    @property
    def memory_percent(self) -> float:
        """Of the limit; 0.0 where that is not known."""
        limit = self.usage.memory_limit_bytes
        return 100.0 * self.usage.memory_bytes / limit if limit else 0.0


class Traffic(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the proxy counted for an agent until `at` (epoch seconds), since the daemon's start, and what there is then.

    `requests`: that ended, however; `errors`: those of them that were answered with 5xx or not at all; `answers` of the agent
    took `seconds` in all. There is: `in_flight` at the agent; `pending` in its queue.
    """

    at: float
    requests: int = 0
    errors: int = 0
    answers: int = 0
    seconds: float = 0.0
    in_flight: int = 0
    pending: int = 0


def sample(usage: Usage, before: Usage | None, started_at: float) -> Sample:
    """Return what a container uses, from a reading and the one before it in the same run.

    Without one before, the rates are means since `started_at` (epoch seconds), when all counters were 0.
    """
    if before is None or before.at >= usage.at or before.cpu_s > usage.cpu_s:
        before = Usage(at=min(started_at, usage.at))
    elapsed_s = usage.at - before.at
    if elapsed_s <= 0:
        return Sample(usage=usage)
    return Sample(
        usage=usage,
        cpu_percent=100.0 * (usage.cpu_s - before.cpu_s) / elapsed_s,
        rx_per_s=_rate(usage.rx_bytes, before.rx_bytes, elapsed_s),
        tx_per_s=_rate(usage.tx_bytes, before.tx_bytes, elapsed_s),
        read_per_s=_rate(usage.read_bytes, before.read_bytes, elapsed_s),
        write_per_s=_rate(usage.write_bytes, before.write_bytes, elapsed_s),
    )


def total(samples: Sequence[Sample], at: float) -> Sample:
    """Return the sum of what several containers use; of none it is all zeros, at `at`.

    The limit of their memory is the sum as well: it stays a share of what all of them may take.
    """
    usages = [each.usage for each in samples]
    counters = {name: sum(getattr(usage, name) for usage in usages) for name in Usage.__struct_fields__ if name != "at"}
    rates = {
        name: sum(getattr(each, name) for each in samples)
        for name in ("cpu_percent", "rx_per_s", "tx_per_s", "read_per_s", "write_per_s")
    }
    newest = max((usage.at for usage in usages), default=at)
    return Sample(usage=Usage(at=newest, **counters), containers=len(samples), **rates)


def _rate(now: int, before: int, elapsed_s: float) -> float:
    """A counter that fell, because an interface or a disk went away, has no rate."""
    return max(now - before, 0) / elapsed_s
