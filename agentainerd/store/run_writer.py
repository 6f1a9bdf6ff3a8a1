"""The writer of runs and sessions: what many greenlets write at the same time goes to Redis in one script, with one sync.

Operations are letters with arguments (store/lua/write_runs.lua), made by store/runs.py and store/sessions.py. Each may run
twice, so one without an answer is simply sent again, in its place, for as long as it takes.
"""

import logging
from collections import deque
from collections.abc import Callable, Sequence

import gevent
from gevent.event import Event

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.store import scripts
from agentainerd.store.connection import Argument, RedisClient

log = logging.getLogger(__name__)

BATCH = 512
BATCH_BYTES = 1024 * 1024
RETRY_S = 0.2
_FOR_GOOD = ("JOURNAL_FENCED", "REDIS_REFUSED")

_WRITE = scripts.load("write_runs", is_fenced=True)
_INSIST = scripts.load("write_runs", flags="allow-oom", is_fenced=True)

Spawn = Callable[..., object]
Operations = Sequence[Argument]


class Write:
    """One write under way: all of its operations, or none."""

    __slots__ = ("_done", "_error", "_on_written", "insists", "operations", "size")

    def __init__(self, operations: Operations, *, insists: bool, on_written: Callable[[], None]) -> None:
        self.operations = operations
        self.insists = insists
        self._on_written = on_written
        self.size = sum(len(part) for part in operations if isinstance(part, (str, bytes)))
        self._done = Event()
        self._error: Unavailable | None = None

    @property
    def is_done(self) -> bool:
        """Whether it is known how it ended."""
        return bool(self._done.is_set())

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until it is on disk, at most so long; return whether it is.

        Raises:
            Unavailable: it never will be (REDIS_FULL, JOURNAL_FENCED).
        """
        if not self._done.wait(timeout_s):
            return False
        if self._error is not None:
            raise self._error
        return True

    def end(self, error: Unavailable | None = None) -> None:
        """Say how it ended."""
        self._error = error
        if error is None:
            self._on_written()
        self._done.set()


class RunWriter:
    """One for all runs. `write` may be called from any greenlet, and does not block."""

    def __init__(self, client: RedisClient, spawn: Spawn) -> None:
        self._client = client
        self._spawn = spawn
        self._waiting: deque[Write] = deque()
        self._is_writing = False

    def write(
        self, operations: Operations, *, insists: bool = False, on_written: Callable[[], None] = lambda: None
    ) -> Write:
        """Begin to write; what was begun before is written before. `insists`: also where Redis is full.

        `on_written` is called when it is on disk, and must not block.
        """
        write = Write(operations, insists=insists, on_written=on_written)
        self._waiting.append(write)
        if not self._is_writing:
            self._is_writing = True
            self._spawn("runs", self._run)
        return write

    def commit(self, operations: Operations) -> None:
        """Write, and block until it is on disk.

        Raises:
            Unavailable: it is not (REDIS_FULL, JOURNAL_FENCED), or not within JOURNAL_WAIT_S (REDIS_UNAVAILABLE), in which case
                it may yet be written.
        """
        write = self.write(operations)
        if not write.wait(defaults.JOURNAL_WAIT_S):
            self.withdraw(write)
            raise Unavailable(
                "Redis does not answer", code="REDIS_UNAVAILABLE", hint="agentainerctl system doctor", retry_after_s=2
            )

    def withdraw(self, write: Write) -> bool:
        """Take back what was not sent yet; return whether that was possible."""
        try:
            self._waiting.remove(write)
        except ValueError:
            return False
        return True

    def _run(self) -> None:
        """Write what waits, then end. Begun by `write`, one at a time."""
        try:
            while self._waiting:
                self._commit(self._next())
        finally:
            self._is_writing = False

    def _next(self) -> list[Write]:
        batch: list[Write] = []
        count = size = 0
        while self._waiting and count < BATCH and size < BATCH_BYTES:
            write = self._waiting.popleft()
            batch.append(write)
            count += 1
            size += write.size
        return batch

    def _commit(self, batch: list[Write]) -> None:
        """Write a batch, for as long as it takes; one by one where Redis is full."""
        while (error := self._attempt(batch)) is not None:
            is_full = error.code == "REDIS_FULL"
            if is_full and len(batch) > 1:
                for write in batch:
                    self._commit([write])
                return
            if error.code in _FOR_GOOD or (is_full and not batch[0].insists):
                break
            gevent.sleep(RETRY_S)
        for write in batch:
            write.end(error)

    def _attempt(self, batch: list[Write]) -> Unavailable | None:
        """Send a batch; return why it is not known to be written."""
        script = _INSIST if all(write.insists for write in batch) else _WRITE
        try:
            self._client.run(script, *[part for write in batch for part in write.operations])
        except Unavailable as error:
            return error
        except Exception as error:
            log.exception("runs could not be written")
            return Unavailable(f"Redis refused what was to be written: {error}", code="REDIS_REFUSED")
        return None
