"""What the daemon itself uses and does: process, event loop, connections, journal, Redis."""

import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from agentainerd import offload
from agentainerd.errors import AgentainerError
from agentainerd.model.tallies import BATCH_BOUNDS_S, Histogram
from agentainerd.services.metrics import MetricsService
from agentainerd.store.connection import RedisClient
from agentainerd.store.journal import RedisJournal
from agentainerd.supervisor import LoopStatus


@dataclass(frozen=True, slots=True)
class DaemonFigures:
    """One reading. Times are seconds, sizes bytes; counters are since the daemon's start.

    `lag_s` is how late the event loop was just now, `largest_lag_s` the most in the last minute. `batches`: of the journal.
    `redis` is None where Redis does not answer: memory used, limit (0: none) and the length of its file.
    """

    started_at: float
    cpu_s: float
    memory_bytes: int
    open_files: int
    max_open_files: int
    connections: int
    lag_s: float
    largest_lag_s: float
    is_journal_available: bool
    batches: Histogram
    operations: int
    redis: tuple[int, int, int] | None
    round_s: float
    loops: Sequence[LoopStatus]


class DaemonMetrics:
    """Reads. `facts`: what only the daemon knows, `loop_lag` (milliseconds) and `connections` among it."""

    def __init__(
        self,
        redis: RedisClient,
        journal: RedisJournal,
        measuring: MetricsService,
        *,
        loops: Callable[[], Sequence[LoopStatus]],
        facts: Callable[[], Mapping[str, object]],
    ) -> None:
        self._redis = redis
        self._journal = journal
        self._measuring = measuring
        self._loops = loops
        self._facts = facts
        self._process = psutil.Process()
        self._started_at = time.time()

    def read(self) -> DaemonFigures:
        """Return the figures; a Redis that does not answer leaves out its own only."""
        facts = self._facts()
        lag = facts.get("loop_lag")
        lags: Mapping[str, float] = lag if isinstance(lag, Mapping) else {}
        connections = facts.get("connections")
        times = self._process.cpu_times()
        return DaemonFigures(
            started_at=self._started_at,
            cpu_s=times.user + times.system,
            memory_bytes=int(self._process.memory_info().rss),
            open_files=offload.run(self._process.num_fds),  # thousands of connections take it milliseconds
            max_open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            connections=connections if isinstance(connections, int) else 0,
            lag_s=lags.get("last_ms", 0.0) / 1000,
            largest_lag_s=lags.get("largest_of_last_minute_ms", 0.0) / 1000,
            is_journal_available=self._journal.available,
            batches=self._journal.latency or Histogram(BATCH_BOUNDS_S),
            operations=self._journal.operations,
            redis=self._read_redis(),
            round_s=self._measuring.round_s,
            loops=self._loops(),
        )

    def _read_redis(self) -> tuple[int, int, int] | None:
        try:
            memory, persistence = self._redis.info("memory"), self._redis.info("persistence")
        except AgentainerError:
            return None
        sizes = (memory.get("used_memory", 0), memory.get("maxmemory", 0), persistence.get("aof_current_size", 0))
        return int(sizes[0]), int(sizes[1]), int(sizes[2])
