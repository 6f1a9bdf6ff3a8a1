"""Whose turn it is: at most so many jobs at once, by priority, then fair among who submitted them, then in order. Memory only."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from agentainerd.model.jobs import Job


@dataclass(frozen=True, slots=True)
class _Place:
    job: Job
    begin: Callable[[], None]

    @property
    def order(self) -> tuple[int, int]:
        return -self.job.priority, self.job.sequence


class JobQueue:
    """`limit` returns how many may run at once; `now` is the clock, epoch seconds. No method blocks."""

    def __init__(self, limit: Callable[[], int], now: Callable[[], float]) -> None:
        self._limit = limit
        self._now = now
        self._waiting: dict[str, _Place] = {}
        self._running: dict[str, str] = {}  # id -> submitter

    def __len__(self) -> int:
        return len(self._waiting)

    def enlist(self, job: Job, begin: Callable[[], None]) -> None:
        """Put a job in the queue; `begin` is called when its turn has come, at once where that is now."""
        self._waiting[job.id] = _Place(job, begin)
        self.offer()

    def occupy(self, job: Job) -> None:
        """A job runs already: it was begun before this daemon was."""
        self._running[job.id] = job.submitter

    def leave(self, job_id: str) -> None:
        """A job is over, or does not want to run any more: the next one begins."""
        self._waiting.pop(job_id, None)
        self._running.pop(job_id, None)
        self.offer()

    def offer(self) -> None:
        """Begin what may begin now. For every change, and for when the time of a job has come."""
        while self._waiting and len(self._running) < self._limit():
            place = self._next()
            if place is None:
                return
            del self._waiting[place.job.id]
            self._running[place.job.id] = place.job.submitter
            place.begin()

    def position(self, job_id: str) -> int:
        """Return the place of one; 0: it does not wait."""
        mine = self._waiting.get(job_id)
        return sum(place.order <= mine.order for place in self._waiting.values()) if mine else 0

    def positions(self) -> dict[str, int]:
        """Return the places of all that wait, from 1: in the order of priority and time, which is nearly that of their turns."""
        ordered = sorted(self._waiting.values(), key=lambda place: place.order)
        return {place.job.id: number for number, place in enumerate(ordered, 1)}

    @property
    def running(self) -> frozenset[str]:
        """The ids of those whose turn it is."""
        return frozenset(self._running)

    def _next(self) -> _Place | None:
        now = self._now()
        ready = [place for place in self._waiting.values() if place.job.not_before <= now]
        if not ready:
            return None
        busy = Counter(self._running.values())
        return min(ready, key=lambda place: (-place.job.priority, busy[place.job.submitter], place.job.sequence))
