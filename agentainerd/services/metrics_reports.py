"""Metrics as the API shows them: the fields of the original, and more beside them."""

import psutil

from agentainerd import clock
from agentainerd.errors import Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.metrics import Sample
from agentainerd.model.metrics_history import Point, in_steps
from agentainerd.model.replicas import container_name
from agentainerd.model.tallies import Histogram
from agentainerd.services.fleet import Fleet
from agentainerd.services.metrics import MAX_AGE_S, Figures, MetricsService
from agentainerd.services.metrics_daemon import DaemonFigures
from agentainerd.services.views import Json, rfc3339
from agentainerd.store.metrics import COARSE_S, FINE_S

HISTORY_S = 3600.0
"""How much history is shown where nobody says."""
MAX_HISTORY_S = 24 * 3600.0


class MetricsReports:
    """Reads only. `ref` is an id or a name."""

    def __init__(self, fleet: Fleet, metrics: MetricsService) -> None:
        self._fleet = fleet
        self._metrics = metrics

    def get(self, ref: str) -> Json:
        """Return what an agent uses now. One that does not run uses nothing: all figures are 0.

        Raises:
            NotFound: no such agent. Unavailable: Redis.
        """
        return self._reports([self._fleet.find(ref)], MAX_AGE_S)[0]

    def all(self, max_age_s: float | None = None) -> Json:
        """Return what each agent uses, by id; where that is older than `max_age_s`, it is measured anew. Raises Unavailable."""
        reports = self._reports(self._fleet.store.all(), MAX_AGE_S if max_age_s is None else max_age_s)
        return {str(report["agent_id"]): report for report in reports}

    def figures(self) -> list[Figures]:
        """Return the figures of all agents; none while Redis does not answer."""
        try:
            return self._metrics.figures(self._fleet.store.all())
        except Unavailable:
            return []

    def history(self, ref: str, duration_s: float, step_s: float | None) -> Json:
        """Return the history of an agent's metrics, oldest first.

        What is older than an hour is kept in steps of a minute, whatever `step_s` is. None: 10 seconds for up to an hour, else
        a minute.

        Raises:
            NotFound: no such agent. Unavailable: Redis.
        """
        agent = self._fleet.find(ref)
        step_s = step_s or (FINE_S if duration_s <= HISTORY_S else COARSE_S)
        points = self._metrics.history(agent, clock.now() - duration_s)
        return {
            "agent_id": agent.id,
            "agent_name": agent.name,
            "duration": _duration(duration_s),
            "step": _duration(step_s),
            "metrics": [point_json(agent, point) for point in in_steps(points, step_s)],
        }

    def _reports(self, agents: list[Agent], max_age_s: float) -> list[Json]:
        host_cpu_s = _host_cpu_s()
        return [_report(known, host_cpu_s) for known in self._metrics.figures(agents, max_age_s)]


def _report(known: Figures, host_cpu_s: float) -> Json:
    agent, measured = known.agent, known.measured
    return {
        "agent_id": agent.id,
        "agent_name": agent.name,
        "container_id": agent.container_id,
        "status": agent.state.value,
        "timestamp": rfc3339(measured.at),
        **sample_json(measured.whole, host_cpu_s),
        "restarts": agent.restarts,
        "requests": requests_json(known),
        "containers": [
            {
                "replica": replica.number,
                "name": container_name(agent.id, replica.number, agent.spec.replicas),
                "container_id": replica.container_id,
                "restarts": replica.restarts,
                **sample_json(measured.replicas[replica.number], host_cpu_s),
            }
            for replica in agent.replicas
            if replica.number in measured.replicas
        ],
    }


def sample_json(sample: Sample, host_cpu_s: float) -> Json:
    """Return what containers use. CPU times are nanoseconds, as in the original; `usage_percent` of the CPU is of one core."""
    usage = sample.usage
    return {
        "cpu": {
            "usage_percent": round(sample.cpu_percent, 2),
            "system_cpu": int(host_cpu_s * 1e9),
            "total_usage": int(usage.cpu_s * 1e9),
        },
        "memory": {
            "usage": usage.memory_bytes,
            "limit": usage.memory_limit_bytes,
            "usage_percent": round(sample.memory_percent, 2),
            "cache": usage.cache_bytes,
        },
        "network": {
            "rx_bytes": usage.rx_bytes,
            "tx_bytes": usage.tx_bytes,
            "rx_packets": usage.rx_packets,
            "tx_packets": usage.tx_packets,
            "rx_bytes_per_s": round(sample.rx_per_s, 1),
            "tx_bytes_per_s": round(sample.tx_per_s, 1),
        },
        "disk": {
            "read_bytes": usage.read_bytes,
            "write_bytes": usage.write_bytes,
            "read_bytes_per_s": round(sample.read_per_s, 1),
            "write_bytes_per_s": round(sample.write_per_s, 1),
        },
        "pids": usage.pids,
    }


def requests_json(known: Figures) -> Json:
    """Return what the proxy counted for an agent since the daemon's start, and its queue now."""
    tally, counts = known.tally, known.counts
    oldest_at = counts.oldest_pending_at
    return {
        "total": tally.requests,
        "errors": tally.errors,
        "outcomes": outcomes(known),
        "in_flight": known.in_flight,
        "pending": counts.pending,
        "pending_bytes": counts.pending_bytes,
        "oldest_pending_s": round(max(clock.now() - oldest_at, 0.0), 3) if oldest_at else 0.0,
        "dead_letters": counts.failed,
        "latency_ms": latency_json(tally.latency),
        "replays": {"delivered": tally.delivered, "failed": tally.failed, "retried": tally.retried},
    }


def outcomes(known: Figures) -> dict[str, int]:
    """Return how an agent's requests ended: `answered_2xx` and so on by the agent, the others as in model.tallies.Tally."""
    tally = known.tally
    return {
        **{f"answered_{digit}xx": tally.statuses[digit] for digit in range(2, 6)},
        "queued": tally.queued,
        "repeated": tally.repeated,
        "refused": tally.refused,
        "unavailable": tally.unavailable,
        "outcome_unknown": tally.unknown,
        "interrupted": tally.interrupted,
        "client_left": tally.left,
        "upgraded": tally.upgraded,
    }


def daemon_json(daemon: DaemonFigures) -> Json:
    """Return what the daemon uses and does; `redis` is null where Redis does not answer."""
    redis = daemon.redis
    batches = daemon.batches.count
    return {
        "started_at": rfc3339(daemon.started_at),
        "cpu_seconds": round(daemon.cpu_s, 3),
        "memory_bytes": daemon.memory_bytes,
        "open_files": daemon.open_files,
        "max_open_files": daemon.max_open_files,
        "connections": daemon.connections,
        "loop_lag_ms": {"last": round(daemon.lag_s * 1000, 1), "largest": round(daemon.largest_lag_s * 1000, 1)},
        "journal": {
            "available": daemon.is_journal_available,
            "batches": batches,
            "operations": daemon.operations,
            "operations_per_batch": round(daemon.operations / batches, 2) if batches else 0.0,
            "latency_ms": latency_json(daemon.batches),
        },
        "redis": redis and {"memory_bytes": redis[0], "max_memory_bytes": redis[1], "file_bytes": redis[2]},
        "metrics_round_ms": round(daemon.round_s * 1000, 1),
    }


def latency_json(histogram: Histogram) -> Json:
    """Return the mean and quantiles in milliseconds; quantiles are as exact as the bounds of the histogram."""
    count = histogram.count
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    quantiles = {name: round(histogram.quantile(share) * 1000, 3) for name, share in shares.items()}
    return {"count": count, "mean": round(histogram.seconds / count * 1000, 3) if count else 0.0, **quantiles}


def point_json(agent: Agent, point: Point) -> Json:
    """Return a point of the history in the shape of a measurement, as the original does."""
    limit = point.memory_limit_bytes
    return {
        "agent_id": agent.id,
        "timestamp": rfc3339(point.at),
        "cpu": {"usage_percent": round(point.cpu_percent, 2), "total_usage": int(point.cpu_s * 1e9)},
        "memory": {
            "usage": int(point.memory_bytes),
            "limit": int(limit),
            "usage_percent": round(100.0 * point.memory_bytes / limit, 2) if limit else 0.0,
            "cache": int(point.cache_bytes),
        },
        "network": {
            "rx_bytes": int(point.rx_bytes),
            "tx_bytes": int(point.tx_bytes),
            "rx_bytes_per_s": round(point.rx_per_s, 1),
            "tx_bytes_per_s": round(point.tx_per_s, 1),
        },
        "disk": {
            "read_bytes": int(point.read_bytes),
            "write_bytes": int(point.write_bytes),
            "read_bytes_per_s": round(point.read_per_s, 1),
            "write_bytes_per_s": round(point.write_per_s, 1),
        },
        "pids": round(point.pids, 1),
        "containers": round(point.containers, 2),
        "requests": {
            "per_s": round(point.requests_per_s, 3),
            "errors_per_s": round(point.errors_per_s, 3),
            "latency_ms": round(point.latency_s * 1000, 3),
            "in_flight": round(point.in_flight, 1),
            "pending": round(point.pending, 1),
        },
    }


def _duration(seconds: float) -> str:
    """Return whole seconds as the original does: 1h0m0s, 1m0s, 10s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{f'{hours}h' if hours else ''}{f'{minutes}m' if hours or minutes else ''}{rest}s"


def _host_cpu_s() -> float:
    """Seconds of all cores of this host since it was started, idle ones too; what guests took is in those of users."""
    return float(sum(psutil.cpu_times()[:8]))
