"""What containers use: read from the kernel where the engine is on this host, asked of the engine where it is not."""

from collections.abc import Mapping, Sequence
from typing import Any

from gevent.pool import Pool

from agentainerd import clock, offload
from agentainerd.engine.connection import Connection
from agentainerd.engine.host import Host
from agentainerd.errors import AgentainerError
from agentainerd.model.metrics import Usage

_CHUNK = 16  # containers that a thread reads before others get a turn: about 2 ms
_ASKED_AT_ONCE = 8


class Usages:
    """The usages of one engine's containers. For one caller at a time."""

    def __init__(self, connection: Connection, host: Host) -> None:
        self._connection = connection
        self._host = host

    def read(self, container_ids: Sequence[str]) -> dict[str, Usage]:
        """See Engine.usages."""
        self._host.forget(set(container_ids))
        found: dict[str, Usage] = {}
        for start in range(0, len(container_ids), _CHUNK):
            found |= offload.run(self._host.usages, container_ids[start : start + _CHUNK])
        missing = [container_id for container_id in container_ids if container_id not in found]
        if missing:
            pool = Pool(_ASKED_AT_ONCE)
            answers = pool.map(self._ask, missing)
            found |= {one: usage for one, usage in zip(missing, answers, strict=True) if usage is not None}
        return found

    def _ask(self, container_id: str) -> Usage | None:
        """Find a container's cgroup by its process, else ask the engine for the figures; None: it does not run."""
        try:
            with self._connection.calling("inspect", "container", container_id) as client:
                pid = int(client.inspect_container(container_id)["State"].get("Pid") or 0)
            if not pid:
                return None
            if self._connection.is_local and self._host.learn(container_id, pid):
                usage = self._host.usages([container_id]).get(container_id)
                if usage is not None:
                    return usage
            with self._connection.calling("measure", "container", container_id) as client:
                return from_stats(client.stats(container_id, stream=False, one_shot=True), clock.now())
        except AgentainerError:
            return None  # it was removed meanwhile, or the engine is away: which the look at all agents says


def from_stats(told: Mapping[str, Any], at: float) -> Usage | None:
    """Return what the engine tells of a container's use, None where it does not run. Both versions of cgroups look alike."""
    memory = told.get("memory_stats") or {}
    if "usage" not in memory:
        return None
    stat = memory.get("stats") or {}
    networks = (told.get("networks") or {}).values()
    disk = (told.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ()
    inactive = stat.get("total_inactive_file", stat.get("inactive_file", 0))
    return Usage(
        at=at,
        cpu_s=told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9,
        memory_bytes=max(memory["usage"] - inactive, 0),
        cache_bytes=stat.get("total_cache", stat.get("file", 0)),
        memory_limit_bytes=memory.get("limit", 0),
        pids=(told.get("pids_stats") or {}).get("current", 0),
        rx_bytes=sum(each["rx_bytes"] for each in networks),
        rx_packets=sum(each["rx_packets"] for each in networks),
        tx_bytes=sum(each["tx_bytes"] for each in networks),
        tx_packets=sum(each["tx_packets"] for each in networks),
        read_bytes=sum(each["value"] for each in disk if each["op"].lower() == "read"),
        write_bytes=sum(each["value"] for each in disk if each["op"].lower() == "write"),
    )
