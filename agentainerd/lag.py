"""How long the event loop keeps waiting who is ready: everything that does not yield shows here, and nothing else does."""

import logging
import time
from collections import deque

import gevent

log = logging.getLogger(__name__)

SAMPLE_S = 0.1
WINDOW_S = 60.0
LONG_S = 0.5
_LOG_EVERY_S = 60.0


class Lag:
    """The lag of one loop: `run` is its greenlet, everything else is read by anybody.

    A timer that is set for SAMPLE_S and comes late by so much was kept waiting so long.
    """

    def __init__(self) -> None:
        self._last_s = 0.0
        self._largest: deque[tuple[float, float]] = deque()  # (when, lag), only those that no later one exceeds
        self._told_at = -_LOG_EVERY_S

    def run(self) -> None:
        """Measure for ever."""
        while True:
            began = time.monotonic()
            gevent.sleep(SAMPLE_S)
            now = time.monotonic()
            self.note(max(now - began - SAMPLE_S, 0.0), now)

    def note(self, lag_s: float, now: float) -> None:
        """Take one measurement at monotonic time `now`; a long one is logged, at most once a minute."""
        self._last_s = lag_s
        largest = self._largest
        while largest and largest[-1][1] <= lag_s:
            largest.pop()
        largest.append((now, lag_s))
        while largest[0][0] < now - WINDOW_S:
            largest.popleft()
        if lag_s >= LONG_S and now - self._told_at >= _LOG_EVERY_S:
            self._told_at = now
            log.warning(
                "the event loop stood still for %.1f s: all requests waited so long. If the machine is not overloaded, please "
                "report it with what was done at that time",
                lag_s,
            )

    def facts(self) -> dict[str, float]:
        """Return the last measurement, and the largest of the last minute; milliseconds."""
        largest_s = self._largest[0][1] if self._largest else 0.0
        return {"last_ms": round(self._last_s * 1000, 1), "largest_of_last_minute_ms": round(largest_s * 1000, 1)}
