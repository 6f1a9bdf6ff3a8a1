"""Counters of what happens all the time: they only grow, from the daemon's start on, and cost next to nothing.

Compiled with the hot path: one of them is counted up for every request. Whoever reads compares two readings.
"""

from bisect import bisect_left

LATENCY_BOUNDS_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Of an agent's answers: from a cached word to a model that thinks for minutes."""
BATCH_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)


class Histogram:
    """How often a value was at most each of `bounds`, and above the one before; `counts` has one more, for what is above all.

    `seconds` is the sum of all values.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts: list[int] = [0] * (len(bounds) + 1)
        self.seconds = 0.0

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def quantile(self, share: float) -> float:
        """Return the value that `share` (0 to 1) of all are at most, as well as the bounds tell; 0.0 where there is none."""
        rank = share * self.count
        low, seen = 0.0, 0
        for place, bound in enumerate(self.bounds):
            here = self.counts[place]
            if here and seen + here >= rank:
                return low + (bound - low) * (rank - seen) / here
            low, seen = bound, seen + here
        return low if self.count else 0.0

    def note(self, seconds: float) -> None:
        """Add a value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.seconds += seconds


class Tally:
    """How the requests of one agent ended. Each is counted once, when its client has been told or is gone.

    Attributes:
        statuses: answers of the agent to clients who waited for them, by the first digit of the status.
        latency: of those, from the request's head until the client had the whole answer.
        queued: 202. repeated: an answer that was stored (Idempotency-Key).
        refused: 4xx of our own. unavailable: 5xx of our own, and the agent did not get it.
        unknown: 502 or 504 of our own; the agent got it, and may have run it.
        interrupted: the agent's answer broke off. left: the client left first.
        upgraded: became a tunnel.
        delivered, failed, retried: attempts to deliver what was queued, by what came of them.
    """

    def __init__(self) -> None:
        self.statuses: list[int] = [0] * 10
        self.latency = Histogram(LATENCY_BOUNDS_S)
        self.queued = 0
        self.repeated = 0
        self.refused = 0
        self.unavailable = 0
        self.unknown = 0
        self.interrupted = 0
        self.left = 0
        self.upgraded = 0
        self.delivered = 0
        self.failed = 0
        self.retried = 0

    def answered(self, status: int, seconds: float) -> None:
        """The agent answered, and the client has it."""
        self.statuses[status // 100 % 10] += 1
        self.latency.note(seconds)

    def replied(self, status: int, *, reached: bool) -> None:
        """We answered with an error of our own; `reached`: the agent got the request."""
        if reached:
            self.unknown += 1
        elif status >= 500:
            self.unavailable += 1
        else:
            self.refused += 1

    @property
    def answers(self) -> int:
        """How many the agent answered."""
        return sum(self.statuses)

    @property
    def requests(self) -> int:
        """How many ended."""
        ours = self.queued + self.repeated + self.refused + self.unavailable + self.upgraded
        return self.answers + ours + self.unknown + self.interrupted + self.left

    @property
    def errors(self) -> int:
        """How many of them ended in 5xx, or without a whole answer for a client who waited."""
        return self.statuses[5] + self.unavailable + self.unknown + self.interrupted
