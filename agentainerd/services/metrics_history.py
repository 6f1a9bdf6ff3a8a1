"""The history of agents' metrics: what the last minute was is here, everything older in Redis."""

import math
from collections import deque
from collections.abc import Collection

from agentainerd.model.metrics_history import Point
from agentainerd.store.metrics import COARSE_S, FINE_PLACES, MetricsStore

AT_ONCE = 100  # agents: packing that many takes some milliseconds, in which nothing else goes on


class MetricsHistory:
    """Points are noted every round and written once a minute, so that they cost one fsync a minute for all agents.

    What was not written yet is lost with the daemon, a minute at most, unless it is stopped in order (`flush`). While Redis is
    away they are kept, the last hour.
    """

    def __init__(self, store: MetricsStore) -> None:
        self._store = store
        self._noted: dict[str, deque[Point]] = {}
        self._minute = 0

    def note(self, agent_id: str, point: Point) -> None:
        """Add a point of an agent; it is newer than those before it."""
        self._noted.setdefault(agent_id, deque(maxlen=FINE_PLACES)).append(point)

    def keep_only(self, agent_ids: Collection[str]) -> None:
        """Forget the other agents; what Redis has of them went with them."""
        for agent_id in [known for known in self._noted if known not in agent_ids]:
            del self._noted[agent_id]

    def turn(self, now: float) -> None:
        """Write the minutes that are over, where one ended since the last time.

        Raises:
            Unavailable: Redis; nothing is lost.
        """
        minute = int(now) // COARSE_S
        if minute != self._minute:
            self._write(minute * COARSE_S)
            self._minute = minute

    def flush(self) -> None:
        """Write everything. Raises Unavailable."""
        self._write(float("inf"))

    def points(self, agent_id: str, since: float, until: float = math.inf) -> list[Point]:
        """Return an agent's points from `since` on (epoch seconds) and before `until`, in order.

        Raises:
            Unavailable: Redis.
        """
        written = self._store.get(agent_id, since, until)
        newest = written[-1].at if written else since
        noted = self._noted.get(agent_id, ())
        return written + [each for each in noted if each.at > newest or (not written and each.at >= since)]

    def _write(self, before: float) -> None:
        found = {agent_id: [each for each in noted if each.at < before] for agent_id, noted in self._noted.items()}
        due = [(agent_id, points) for agent_id, points in found.items() if points]
        for start in range(0, len(due), AT_ONCE):
            some = dict(due[start : start + AT_ONCE])
            self._store.put(some)
            for agent_id, points in some.items():
                noted = self._noted.get(agent_id)
                while noted and noted[0].at <= points[-1].at:
                    noted.popleft()
