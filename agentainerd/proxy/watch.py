"""Deadlines of all exchanges, kept by one sweep instead of a timer each.

A timer per wait would cost the hot path more than the wait. So whoever waits writes down until when (`deadline`, on the
coarse clock `Sweeper.now`), and a sweep every SWEEP_S tells what is overdue.
"""

import time
from enum import StrEnum

import gevent

SWEEP_S = 0.25
_BATCH = 500  # looks at a deadline; then it is the turn of others
_EXPIRY = 100  # looks' worth of work in ending a wait: it may be an answer
_TURN_S = 0.0005  # after a sleep of 0 the sweep goes on before the loop has seen to its sockets
NEVER = float("inf")


class Cause(StrEnum):
    """Why a wait was ended from outside."""

    NONE = ""
    IDLE = "idle"  # a kept connection without a request
    SLOW_HEAD = "slow head"
    SLOW_BODY = "slow body"
    TIMEOUT = "timeout"  # the agent gave no (further) byte
    STALLED = "stalled"  # the other side does not read
    LINGERED = "lingered"  # the client did not close after its last answer
    STOPPED = "stopped"  # the data plane is going down


class Watched:
    """Something that waits.

    Attributes:
        deadline: `Sweeper.now` at which the wait is over.
        overdue: what the cause is then.
    """

    __slots__ = ("deadline", "overdue")

    def __init__(self) -> None:
        self.deadline = NEVER
        self.overdue = Cause.NONE

    def expire(self, cause: Cause) -> None:
        """End the wait. Called in the sweeper's greenlet; must not block."""
        raise NotImplementedError


class Sweeper:
    """All waits of the data plane. `run` is its greenlet; everything else may be called from anywhere."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        """Coarse monotonic clock, at most SWEEP_S old."""
        self._watched: set[Watched] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, watched: Watched) -> None:
        """Keep an eye on it, until `remove`."""
        self._watched.add(watched)

    def remove(self, watched: Watched) -> None:
        """Forget it."""
        self._watched.discard(watched)

    def run(self) -> None:
        """Sweep for ever."""
        while True:
            gevent.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """End what is overdue."""
        self.now = now = time.monotonic()
        left = _BATCH
        for watched in list(self._watched):
            left -= 1
            if now > watched.deadline:
                watched.deadline = NEVER
                watched.expire(watched.overdue)
                left -= _EXPIRY
            if left < 0:
                left = _BATCH
                gevent.sleep(_TURN_S)
