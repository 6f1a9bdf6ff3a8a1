"""`GET /metrics`: all figures in the text formats of Prometheus and OpenMetrics.

The families are made anew for each scrape, from what is known then: an agent that is removed has no series any more.
docs/metrics.md has the list.
"""

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from agentainerd import clock, offload
from agentainerd.model.metrics import Sample
from agentainerd.model.model_usage import NANO, Usage
from agentainerd.model.replicas import AgentState
from agentainerd.model.tallies import Histogram
from agentainerd.services.metrics import Figures
from agentainerd.services.metrics_daemon import DaemonFigures
from agentainerd.services.metrics_reports import outcomes
from agentainerd.version import VERSION

Row = tuple[list[str], float]
ModelFigures = tuple[str, str, Usage]
"""Agent, model, and what the one used of the other."""
_AGENT = ("agent",)
_REPLICA = ("agent", "replica")


def expose(
    agents: Sequence[Figures], daemon: DaemonFigures, models: Sequence[ModelFigures], accept: str
) -> tuple[bytes, str]:
    """Return the page and its media type, in the format that `accept` (the header) prefers."""
    encode, media_type = choose_encoder(accept)
    return offload.run(_page, agents, daemon, models, encode), media_type


def _page(
    agents: Sequence[Figures],
    daemon: DaemonFigures,
    models: Sequence[ModelFigures],
    encode: Callable[[Collector], bytes],
) -> bytes:
    """Return the page. For a hundred agents that takes tens of milliseconds, in which others have to have their turn."""
    return encode(_Page([*_of_daemon(daemon), *_of_agents(agents), *_of_containers(agents), *_of_models(models)]))


class _Page(Collector):
    """The families of one scrape, as a collector."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Return them."""
        return iter(self._families)


def _of_daemon(daemon: DaemonFigures) -> Iterator[Metric]:
    yield _gauge("agentainer_build_info", "Version of the daemon.", ("version",), [([VERSION], 1)])
    yield _gauge("process_start_time_seconds", "When the daemon was started.", (), [([], daemon.started_at)])
    yield _counter("process_cpu_seconds", "CPU time of the daemon, without Redis.", (), [([], daemon.cpu_s)])
    yield _gauge("process_resident_memory_bytes", "Memory of the daemon.", (), [([], daemon.memory_bytes)])
    yield _gauge("process_open_fds", "Open files of the daemon.", (), [([], daemon.open_files)])
    yield _gauge("process_max_fds", "How many files it may open.", (), [([], daemon.max_open_files)])
    yield _gauge("agentainer_connections", "Connections of clients to the proxy.", (), [([], daemon.connections)])
    yield _gauge("agentainer_loop_lag_seconds", "How late the event loop was just now.", (), [([], daemon.lag_s)])
    yield _gauge(
        "agentainer_loop_lag_max_seconds", "The most in the last minute.", (), [([], daemon.largest_lag_s)]
    )  # fmt: skip
    yield _gauge(
        "agentainer_journal_available", "The journal takes requests.", (), [([], float(daemon.is_journal_available))]
    )
    yield _histogram(
        "agentainer_journal_batch_seconds", "A batch of the journal, until it is on disk.", (), [([], daemon.batches)]
    )
    yield _counter("agentainer_journal_operations", "Operations in all batches.", (), [([], daemon.operations)])
    yield _gauge("agentainer_redis_up", "Redis answers.", (), [([], float(daemon.redis is not None))])
    if daemon.redis is not None:
        used, limit, file = daemon.redis
        yield _gauge("agentainer_redis_memory_bytes", "Memory that Redis uses.", (), [([], used)])
        yield _gauge("agentainer_redis_max_memory_bytes", "Memory that it may use; 0: no limit.", (), [([], limit)])
        yield _gauge("agentainer_redis_file_bytes", "Length of its append-only file.", (), [([], file)])
    yield _gauge(
        "agentainer_metrics_round_seconds", "How long the last measurement of all agents took.", (),
        [([], daemon.round_s)],
    )  # fmt: skip
    failing = [([loop.name], float(loop.failures)) for loop in daemon.loops]
    yield _gauge("agentainer_loop_failures", "Failures in a row of a background duty.", ("loop",), failing)


def _of_agents(agents: Sequence[Figures]) -> Iterator[Metric]:
    states = [
        ([each.agent.name, state.value], float(each.agent.state is state)) for each in agents for state in AgentState
    ]
    yield _gauge("agentainer_agent_state", "1 for the state that the agent is in.", ("agent", "state"), states)
    yield _gauge("agentainer_agent_ready", "It takes requests.", _AGENT, _each(agents, lambda each: each.is_ready))
    yield _gauge(
        "agentainer_agent_containers", "Containers that run.", _AGENT,
        _each(agents, lambda each: each.measured.whole.containers),
    )  # fmt: skip
    yield _counter(
        "agentainer_agent_restarts", "By the daemon, since it was deployed.", _AGENT,
        _each(agents, lambda each: each.agent.restarts),
    )  # fmt: skip
    ended = [([each.agent.name, name], number) for each in agents for name, number in outcomes(each).items()]
    yield _counter("agentainer_requests", "Requests, by how they ended.", ("agent", "outcome"), ended)
    yield _histogram(
        "agentainer_request_duration_seconds", "Until the client had the agent's whole answer.", _AGENT,
        [([each.agent.name], each.tally.latency) for each in agents],
    )  # fmt: skip
    yield _gauge(
        "agentainer_requests_in_flight", "At the agent now.", _AGENT, _each(agents, lambda each: each.in_flight)
    )
    yield _gauge(
        "agentainer_queue_requests", "Waiting in the queue.", _AGENT, _each(agents, lambda each: each.counts.pending)
    )
    yield _gauge(
        "agentainer_queue_bytes", "Size of the queue.", _AGENT, _each(agents, lambda each: each.counts.pending_bytes)
    )
    yield _gauge("agentainer_queue_oldest_seconds", "Age of the first in the queue.", _AGENT, _each(agents, _age_s))
    yield _gauge(
        "agentainer_dead_letters", "Failed requests that are kept.", _AGENT,
        _each(agents, lambda each: each.counts.failed),
    )  # fmt: skip
    replays = [
        ([each.agent.name, name], float(getattr(each.tally, name)))
        for each in agents
        for name in ("delivered", "failed", "retried")
    ]
    yield _counter("agentainer_replays", "Attempts to deliver what was queued.", ("agent", "result"), replays)


def _of_containers(agents: Sequence[Figures]) -> Iterator[Metric]:
    samples = [
        ([each.agent.name, str(number)], sample)
        for each in agents
        for number, sample in sorted(each.measured.replicas.items())
    ]

    def rows(value: Callable[[Sample], float]) -> list[Row]:
        return [(labels, value(sample)) for labels, sample in samples]

    for name, text, value in _COUNTERS:
        yield _counter(f"agentainer_container_{name}", text, _REPLICA, rows(value))
    for name, text, value in _GAUGES:
        yield _gauge(f"agentainer_container_{name}", text, _REPLICA, rows(value))


def _of_models(models: Sequence[ModelFigures]) -> Iterator[Metric]:
    calls = [
        ([agent, model, result], float(number))
        for agent, model, usage in models
        for result, number in (("answered", usage.calls - usage.failed), ("failed", usage.failed))
    ]
    yield _counter("agentainer_model_calls", "Calls to models, by how they ended.", ("agent", "model", "result"), calls)
    kinds = [
        ([agent, model, kind], float(getattr(usage, f"{kind}_tokens")))
        for agent, model, usage in models
        for kind in ("input", "output", "cached", "reasoning")
    ]
    yield _counter(
        "agentainer_model_tokens", "Tokens; cached ones are among the input, reasoning ones among the output.",
        ("agent", "model", "kind"), kinds,
    )  # fmt: skip
    cost = [([agent, model], usage.cost_nano / NANO) for agent, model, usage in models]
    yield _counter("agentainer_model_cost_usd", "US dollars, as far as they are known.", ("agent", "model"), cost)
    unpriced = [([agent, model], float(usage.unpriced)) for agent, model, usage in models]
    yield _counter(
        "agentainer_model_unpriced_calls", "Calls of which nobody knows the price.", ("agent", "model"), unpriced
    )


_COUNTERS: tuple[tuple[str, str, Callable[[Sample], float]], ...] = (
    ("cpu_seconds", "CPU time since the container's start.", lambda each: each.usage.cpu_s),
    ("network_receive_bytes", "Received, without loopback.", lambda each: each.usage.rx_bytes),
    ("network_transmit_bytes", "Sent, without loopback.", lambda each: each.usage.tx_bytes),
    ("network_receive_packets", "Received, without loopback.", lambda each: each.usage.rx_packets),
    ("network_transmit_packets", "Sent, without loopback.", lambda each: each.usage.tx_packets),
    ("disk_read_bytes", "Read from disks.", lambda each: each.usage.read_bytes),
    ("disk_written_bytes", "Written to disks.", lambda each: each.usage.write_bytes),
)
_GAUGES: tuple[tuple[str, str, Callable[[Sample], float]], ...] = (
    ("memory_working_set_bytes", "Memory without reclaimable page cache.", lambda each: each.usage.memory_bytes),
    ("memory_cache_bytes", "Page cache.", lambda each: each.usage.cache_bytes),
    ("memory_limit_bytes", "Its limit, or the host's memory.", lambda each: each.usage.memory_limit_bytes),
    ("pids", "Processes and threads.", lambda each: each.usage.pids),
)


def _age_s(each: Figures) -> float:
    oldest_at = each.counts.oldest_pending_at
    return max(clock.now() - oldest_at, 0.0) if oldest_at else 0.0


def _each(agents: Sequence[Figures], value: Callable[[Figures], float]) -> list[Row]:
    return [([each.agent.name], float(value(each))) for each in agents]


def _gauge(name: str, text: str, labels: Sequence[str], rows: Sequence[Row]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: Sequence[str], rows: Sequence[Row]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _histogram(name: str, text: str, labels: Sequence[str], rows: Sequence[tuple[list[str], Histogram]]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in rows:
        buckets, seen = [], 0
        for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), float(seen)))
        family.add_metric(values, buckets, histogram.seconds)
    return family
