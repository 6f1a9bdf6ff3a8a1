"""What models were used for: counted when a call ends, kept in the store, and known here for budgets.

Counting never blocks and never fails: what ended waits in memory until the store has it, also while Redis is away. A daemon
that is killed loses what waits then: milliseconds' worth.
"""

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice

import gevent
from gevent.lock import RLock

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.model_usage import Usage
from agentainerd.store.model_usage import ModelUsageStore, Spent

log = logging.getLogger(__name__)

BATCH = 200
RETRY_S = 0.5
MAX_WAITING = 100_000
DAY_S = 86400

Spawn = Callable[..., object]


class ModelUsageService:
    """Every method may be called from any greenlet. `add` does not block; the others may ask Redis, and raise Unavailable."""

    def __init__(self, store: ModelUsageStore, spawn: Spawn) -> None:
        self.store = store
        self._spawn = spawn
        self._waiting: deque[Spent] = deque(maxlen=MAX_WAITING)
        self._is_writing = False
        self._batch: list[Spent] = []
        self._batches = 0
        self._started = time.time_ns()
        self._lock = RLock()
        self._day = ""
        self._today: dict[str, int] = {}
        self._all_today = 0
        self._runs: OrderedDict[str, Usage] = OrderedDict()
        self.totals: dict[tuple[str, str], Usage] = {}
        """What was used since this start, by agent id and model."""

    def add(self, spent: Spent) -> None:
        """Count a call that ended."""
        key = (spent.agent_id, spent.model)
        self.totals[key] = self.totals.get(key, Usage()).plus(spent.usage)
        if spent.day == self._day:
            self._today[spent.agent_id] = self._today.get(spent.agent_id, 0) + spent.usage.cost_nano
            self._all_today += spent.usage.cost_nano
        if spent.run_id in self._runs:
            self._runs[spent.run_id] = self._runs[spent.run_id].plus(spent.usage)
        self._waiting.append(spent)
        if not self._is_writing:
            self._is_writing = True
            self._spawn("model usage", self._write)

    def close(self) -> None:
        """Store what waits, before the daemon ends; what can't be is lost."""
        try:
            while self._waiting:
                self._write_batch()
        except Unavailable as error:
            log.error("what %d calls to models used could not be stored: %s", len(self._waiting), error.message)

    def forget(self, agent_id: str) -> None:
        """An agent is gone: what it used stays in the store."""
        for key in [key for key in self.totals if key[0] == agent_id]:
            del self.totals[key]

    def of_today(self, agent_id: str) -> tuple[int, int]:
        """Return what this agent, and all of them, spent today (UTC), in nanodollars."""
        today = day_of(time.time())
        if today != self._day:
            with self._lock:
                self._read_day(today)
        return self._today.get(agent_id, 0), self._all_today

    def _read_day(self, today: str) -> None:
        if today == self._day:
            return
        stored = self.store.days([today])
        found: dict[str, int] = {}
        for each in [*stored, *(spent for spent in self._waiting if spent.day == today)]:
            found[each.agent_id] = found.get(each.agent_id, 0) + each.usage.cost_nano
        self._day, self._today, self._all_today = today, found, sum(found.values())

    def of_run(self, run_id: str) -> Usage:
        """Return what the calls of a run used so far, those among them that are not stored yet."""
        if run_id in self._runs:
            return self._runs[run_id]
        with self._lock:
            if run_id not in self._runs:
                used = self.store.run(run_id)
                for spent in self._waiting:
                    used = used.plus(spent.usage) if spent.run_id == run_id else used
                self._runs[run_id] = used
                if len(self._runs) > defaults.MAX_SPENT_RUNS:
                    self._runs.popitem(last=False)
            return self._runs[run_id]

    def since(self, at: float) -> list[Spent]:
        """Return what was used from the day on that `at` (epoch seconds) lies in, by day, agent and model."""
        now = time.time()
        first = max(at, now - defaults.SPENT_DAYS_S)
        days = [day_of(first + number * DAY_S) for number in range(int((now - first) // DAY_S) + 2)]
        return self.store.days([day for day in dict.fromkeys(days) if day <= day_of(now)])

    def _write(self) -> None:
        """Store what waits, until nothing does."""
        failures = 0
        try:
            while self._waiting:
                try:
                    self._write_batch()
                except Unavailable as error:
                    if error.code == "JOURNAL_FENCED":
                        return
                    failures += 1
                    if failures == 1:
                        log.warning("what models used can't be stored now, and waits: %s", error.message)
                    gevent.sleep(RETRY_S)
                else:
                    failures = 0
        finally:
            self._is_writing = False

    def _write_batch(self) -> None:
        """Store the oldest that wait. Under the lock: whoever reads what is stored adds what waits, and nothing is both."""
        with self._lock:
            batch = self._batch or list(islice(self._waiting, BATCH))
            self._batch = batch  # the same again after a failure, under the same name: it may have been done
            self.store.add(f"{self._started}:{self._batches}", batch)
            self._batches += 1
            self._batch = []
            for each in batch:
                if self._waiting and self._waiting[0] is each:
                    self._waiting.popleft()


def day_of(at: float) -> str:
    """Return the day (UTC) of a time, such as 2026-11-21."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()
