"""Metrics as the API shows them: the fields of the original, and more beside them."""

import psutil

from agentainerd.model.agents import Agent
from agentainerd.model.metrics import Sample
from agentainerd.model.replicas import container_name
from agentainerd.services.fleet import Fleet
from agentainerd.services.metrics import Measured, MetricsService
from agentainerd.services.views import Json, rfc3339


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
        agent = self._fleet.find(ref)
        return self._report(agent, self._metrics.of(agent), _host_cpu_s())

    def all(self) -> Json:
        """Return what each agent uses, by id."""
        host_cpu_s = _host_cpu_s()
        agents = self._fleet.store.all()
        return {agent.id: self._report(agent, self._metrics.of(agent), host_cpu_s) for agent in agents}

    def _report(self, agent: Agent, measured: Measured, host_cpu_s: float) -> Json:
        return {
            "agent_id": agent.id,
            "agent_name": agent.name,
            "container_id": agent.container_id,
            "status": agent.state.value,
            "timestamp": rfc3339(measured.at),
            **sample_json(measured.whole, host_cpu_s),
            "restarts": agent.restarts,
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


def _host_cpu_s() -> float:
    """Seconds of all cores of this host since it was started, idle ones too; what guests took is in those of users."""
    return float(sum(psutil.cpu_times()[:8]))
