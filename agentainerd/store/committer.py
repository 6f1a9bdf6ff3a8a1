"""Group commit: whoever has something to write appends it here, and one greenlet sends all of it in one script call.

At most one batch is in flight. Whoever appends meanwhile goes out with the next one, so that the price of a round trip
and of an fsync is shared. A batch has a number, and Redis runs it exactly once: after a broken connection the same batch
is sent again until it has an answer, and nothing overtakes it.
"""

import logging
import time
from collections import deque
from collections.abc import Callable

from gevent import GreenletExit
from gevent.event import Event
from redis.connection import AbstractConnection
from redis.exceptions import ConnectionError, NoScriptError, OutOfMemoryError, RedisError

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.tallies import BATCH_BOUNDS_S, Histogram
from agentainerd.store import keys, operations, scripts
from agentainerd.store.connection import RedisClient, is_transient

log = logging.getLogger(__name__)

Spawn = Callable[..., object]

SLOW_S = 1.0  # a batch that is out for longer: the disk is slow, and waiting for it is bounded
SLOW_LOG_INTERVAL_S = 60.0
FULL_PAUSE_S = 1.0  # after Redis had no memory, it is taken to have none for so long
MIN_RECONNECT_S = 0.01
MAX_RECONNECT_S = 0.5
_REFUSALS = {
    "JOURNAL_UNAVAILABLE": "the request journal does not answer",
    "JOURNAL_SLOW": "the disk of the request journal is slow, and too many requests wait for it",
    "JOURNAL_FULL": "the request journal has no memory left",
    "JOURNAL_FENCED": "another agentainerd has taken over the request journal",
    "JOURNAL_LOST": "the request journal is empty: its Redis lost it",
    "JOURNAL_CLOSED": "the request journal is closed",
    "JOURNAL_ERROR": "the request journal failed; see the log of agentainerd",
}
_ENDED = ("FENCED", "LOST")


def refusal(code: str) -> Unavailable:
    """Return the error that says why nothing is written now."""
    return Unavailable(_REFUSALS[code], code=code, retry_after_s=30 if code == "JOURNAL_FULL" else 2)


class Batch:
    """Operations that go to Redis together. It is also the `Write` of each of them that has no answer of its own.

    Attributes:
        number: given when it is first sent; 0 before.
        done: whoever waits for it to be durable need not wait any longer.
        refused: the code of why it is not durable then, or "".
    """

    __slots__ = ("_event", "_then", "calls", "done", "number", "ops", "refused", "size")

    def __init__(self, refused: str = "") -> None:
        self._then: list[Callable[[], None]] = []
        self.ops: list[bytes] = []
        self.calls: list[Call] = []
        self.size = 0
        self.number = 0
        self.done = refused != ""
        self.refused = refused
        self._event: Event | None = None

    def wait(self) -> None:
        """Block until it is durable.

        Raises:
            Unavailable: it is not, or not soon.
        """
        if not self.done:
            if self._event is None:
                self._event = Event()
            self._event.wait()
        if self.refused:
            raise refusal(self.refused)

    def then(self, callback: Callable[[], None]) -> None:
        """Call back once it is done; it is not yet. The callback must not block; what it raises is logged."""
        self._then.append(callback)

    def release(self, refused: str = "") -> None:
        """Let everybody go who waits for it to be durable."""
        self.done = True
        self.refused = refused
        if self._event is not None:
            self._event.set()
            self._event = None
        callbacks, self._then = self._then, []
        for callback in callbacks:
            try:
                callback()
            except Exception:
                log.exception("what waited for the request journal failed")

    def decide(self, answers: list[object]) -> None:
        """Give the calls their answers, and forget what was sent: who waited may hold the batch while its own request runs."""
        for call, answer in zip(self.calls, answers, strict=True):
            call.decide(answer)
        self.calls, self.ops = [], []

    def refuse(self, code: str) -> None:
        """Let everybody go: it is not durable, and has no answers."""
        self.release(code)
        for call in self.calls:
            call.decide(None, code)
        self.calls, self.ops = [], []


class Call:
    """One operation whose answer somebody waits for. After `wait` returned True: `answer`, or `refused` (a code)."""

    __slots__ = ("_event", "answer", "batch", "op", "refused")

    def __init__(self, op: bytes, batch: Batch, refused: str = "") -> None:
        self.op = op
        self.batch = batch
        self.answer: object = None
        self.refused = refused
        self._event = Event()
        if refused:
            self._event.set()

    def wait(self, timeout_s: float | None) -> bool:
        """Block at most `timeout_s` (None: for ever); return whether it is decided."""
        self._event.wait(timeout_s)
        return bool(self._event.is_set())

    def decide(self, answer: object, refused: str = "") -> None:
        """Give it its answer, or the reason why it has none."""
        self.answer = answer
        self.refused = refused
        self._event.set()


class Committer:
    """The queue of batches and the greenlet that sends them. All methods may be called from any greenlet; none blocks but
    `close`.

    `latency`: of each batch, from its sending to its answer; `operations`: how many all batches had.

    `on_end` is called once, from its greenlet, if the journal can't go on in this process: it was fenced, lost, or failed.
    """

    def __init__(self, client: RedisClient, epoch: int, *, spawn: Spawn, on_end: Callable[[], None]) -> None:
        self._epoch = b"%d" % epoch
        self._connection: AbstractConnection = client.connection(defaults.JOURNAL_TIMEOUT_S)
        self._commit = scripts.load("batch")
        self._free = scripts.load("batch", flags="allow-oom")
        self._on_end = on_end
        self.latency = Histogram(BATCH_BOUNDS_S)
        self.operations = 0
        self._batches = 0
        self._durable = 0
        self._sending: Batch | None = None
        self._open = Batch()
        self._queue: deque[Batch] = deque([self._open])
        self._up = True
        self._ended = ""
        self._full_until = 0.0
        self._sent_at = 0.0
        self._shed = 0
        self._slow_told_at = -SLOW_LOG_INTERVAL_S
        self._asleep = False
        self._wake = Event()
        self._closing = False
        self._abort = Event()
        self._stopped = Event()
        spawn("journal", self._run)

    @property
    def available(self) -> bool:
        """Redis answers and has room."""
        return self._up and (not self._full_until or time.monotonic() >= self._full_until)

    @property
    def in_flight(self) -> int:
        """The number of the batch that was sent, or waits for Redis, and has no answer yet; 0 where there is none."""
        return self._sending.number if self._sending is not None else 0

    @property
    def durable(self) -> int:
        """The number of the last batch that Redis has applied; 0: none yet."""
        return self._durable

    @property
    def is_fenced(self) -> bool:
        """Another process has taken the journal over, or Redis lost it."""
        return self._ended in ("JOURNAL_FENCED", "JOURNAL_LOST")

    def append(self, op: bytes, *, keep: bool = True) -> Batch | None:
        """Add an operation without an answer; return the batch that it is in.

        While Redis is away or slow it waits in memory; with `keep` False only as long as there is room for it, else None is
        returned and it is forgotten.
        """
        if not self._up and (self._ended or not (keep or self._has_room(len(op)))):
            return None
        batch = self._open
        if batch.size + len(op) > defaults.COMMIT_BATCH_BYTES or len(batch.ops) >= defaults.COMMIT_BATCH:
            if not keep and self._is_overloaded():
                self._shed += 1
                return None
            batch = self._turn_over()
        batch.ops.append(op)
        batch.size += len(op)
        if self._asleep:
            self._asleep = False
            self._wake.set()
        return batch

    def call(self, op: bytes, *, keep: bool = True) -> Call:
        """Add an operation that has an answer; refused at once while Redis is away.

        With `keep` False it is refused also while Redis is slow and there is no room for it.
        """
        if not self._up:
            return Call(op, self._open, self._ended or "JOURNAL_UNAVAILABLE")
        batch = self.append(op, keep=keep)
        if batch is None:
            return Call(op, self._open, "JOURNAL_SLOW")
        call = Call(op, batch)
        batch.calls.append(call)
        return call

    def withdraw(self, call: Call, undo: bytes) -> None:
        """Take back an operation that was not decided in time; nothing of it remains, whatever has become of it.

        One that may have reached Redis is undone by `undo`, before anything else is done.
        """
        batch = call.batch
        if batch.number:
            batch.ops[batch.ops.index(call.op)] = operations.NOTHING
            call.op = operations.NOTHING
            self._queue[0].ops.insert(0, undo)
        else:
            batch.ops.remove(call.op)
            batch.calls.remove(call)

    def close(self, timeout_s: float) -> bool:
        """Send what is left, for `timeout_s` at most, and end. Return whether all of it is durable."""
        self._closing = True
        self._wake.set()
        flushed = bool(self._stopped.wait(timeout_s))
        if not flushed:
            self._abort.set()
            self._connection.disconnect()
            self._stopped.wait(2 * defaults.JOURNAL_TIMEOUT_S)
        return flushed

    # ---- the greenlet

    def _run(self) -> None:
        try:
            self._work()
        except GreenletExit:
            self._closing = True
        finally:
            broken = not self._closing and not self._ended
            self._finish("JOURNAL_CLOSED" if self._closing else "JOURNAL_ERROR")
            self._connection.disconnect()
            self._stopped.set()
            if broken:
                self._on_end()

    def _work(self) -> None:
        if not self._try_connect():
            self._lose(ConnectionError("can't connect"))
            if not self._connect():
                return
            self._answered()
        while not self._ended:
            batch = self._next()
            if batch is None:
                return
            self._sending = batch
            self._sent_at = time.monotonic()
            self._settle(batch)
            self._sending = None

    def _next(self) -> Batch | None:
        """Wait for something to send; None: closed, and all is sent."""
        while not self._queue[0].ops:
            if len(self._queue) > 1:
                self._queue.popleft()
                continue
            if self._closing:
                return None
            self._asleep = True
            self._wake.wait()
            self._wake.clear()
        batch = self._queue.popleft()
        if not self._queue:
            self._turn_over()
        self._batches += 1
        batch.number = self._batches
        return batch

    def _settle(self, batch: Batch) -> None:
        """Send a batch until it is decided.

        Once it may have run, it is sent again whatever the memory is: its answer says what was promised.
        """
        script, is_whole = self._commit, True
        failures = 0
        while batch.ops and not self._ended:
            try:
                answers = self._send(batch, script)
            except OutOfMemoryError:
                self._full_until = time.monotonic() + FULL_PAUSE_S
                self._answered()
                _drop_commits(batch)
                script, is_whole = self._free, False
            except RedisError as exc:
                if not is_transient(exc):
                    self._refused(batch, exc)
                    return
                failures += 1
                script = self._free
                if not self._recover(exc, failures):
                    return
            else:
                self._decided(batch, answers, is_whole=is_whole)
                return

    def _send(self, batch: Batch, script: scripts.Script) -> list[object]:
        number = b"%d" % batch.number
        count = 5 + sum([operations.ARGUMENTS[op[operations.LETTER]] for op in batch.ops])
        head = b"*%d\r\n$7\r\nEVALSHA\r\n$40\r\n%b\r\n$1\r\n0\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (
            count,
            script.sha.encode(),
            len(self._epoch),
            self._epoch,
            len(number),
            number,
        )
        self._connection.send_packed_command((b"".join([head, *batch.ops]),), check_health=False)
        answers: list[object] = self._connection.read_response()
        return answers

    def _decided(self, batch: Batch, answers: list[object], *, is_whole: bool) -> None:
        self._durable = batch.number
        if is_whole:
            self._full_until = 0.0
            batch.release()
        count = len(batch.ops)
        batch.decide(answers)
        self._answered()
        now = time.monotonic()
        self.operations += count
        self.latency.note(now - self._sent_at)
        if now - self._sent_at > SLOW_S and now - self._slow_told_at >= SLOW_LOG_INTERVAL_S:
            log.warning(
                "the disk of the request journal is slow: %d operations took %.1f s; %d were refused since this was last said",
                count,
                now - self._sent_at,
                self._shed,
            )
            self._slow_told_at, self._shed = now, 0

    def _answered(self) -> None:
        if not self._up:
            log.info("the request journal answers again")
            self._up = True
            self._turn_over()

    def _refused(self, batch: Batch, error: RedisError) -> None:
        """Redis will never run this batch: it was taken over, lost, or there is a bug."""
        word = str(error).split(" ", 1)[0]
        if word in _ENDED:
            log.error("the request journal can't be written any more: %s", error)
            self._finish(f"JOURNAL_{word}")
            self._on_end()
            return
        log.error("the request journal refused %d operations: %s", len(batch.ops), error)
        batch.refuse("JOURNAL_ERROR")
        self._answered()

    def _recover(self, error: RedisError, failures: int) -> bool:
        """Get a connection on which the batch can be sent again; False: closed meanwhile.

        A connection that broke is replaced without a word: Redis may have been restarted while nothing was sent.
        """
        if failures > 1 or not isinstance(error, (ConnectionError, NoScriptError)) or not self._try_connect():
            self._lose(error)
            pause_s = min(MIN_RECONNECT_S * 2 ** min(failures - 1, 16), MAX_RECONNECT_S)
            return not self._abort.wait(pause_s) and self._connect()
        return True

    def _lose(self, error: RedisError) -> None:
        """Redis is away: let everybody go who waits only for durability; what they wrote is kept."""
        if self._up:
            log.warning("the request journal does not answer: %s", error)
        self._up = False
        for batch in (self._sending, *self._queue):
            if batch is not None:
                batch.release("JOURNAL_UNAVAILABLE")

    def _connect(self) -> bool:
        """Connect, for as long as it takes; False: closed meanwhile."""
        pause_s = MIN_RECONNECT_S
        while not self._try_connect():
            if self._abort.wait(pause_s):
                return False
            pause_s = min(pause_s * 2, MAX_RECONNECT_S)
        return True

    def _try_connect(self) -> bool:
        self._connection.disconnect()
        try:
            self._connection.connect()
            for script in (self._commit, self._free):
                self._connection.send_command("SCRIPT", "LOAD", script.source)
                self._connection.read_response()
            self._compare()
        except RedisError as exc:
            if not is_transient(exc):
                raise
            self._connection.disconnect()
            return False
        return True

    def _compare(self) -> None:
        """A server that keeps less than is promised can come back without what it had answered: say so."""
        self._connection.send_command("GET", keys.EPOCH)
        if self._connection.read_response() != self._epoch:
            return  # empty, or taken over: the next batch is refused
        self._connection.send_command("HGET", keys.BATCH, "number")
        found = int(self._connection.read_response() or 0)
        if found < self._durable:
            log.error(
                "Redis came back without the last %d batches that it had answered: accepted requests may be missing",
                self._durable - found,
            )
            self._durable = found

    def _turn_over(self) -> Batch:
        self._open = Batch("" if self._up else "JOURNAL_UNAVAILABLE")
        self._queue.append(self._open)
        return self._open

    def _is_overloaded(self) -> bool:
        return (
            len(self._queue) * defaults.COMMIT_BATCH >= defaults.JOURNAL_BACKLOG
            and time.monotonic() - self._sent_at > SLOW_S
        )

    def _has_room(self, size: int) -> bool:
        batches = [batch for batch in (self._sending, *self._queue) if batch is not None]
        return (
            sum(len(batch.ops) for batch in batches) < defaults.JOURNAL_BACKLOG
            and sum(batch.size for batch in batches) + size <= defaults.JOURNAL_BACKLOG_BYTES
        )

    def _finish(self, code: str) -> None:
        """Nothing is written any more."""
        self._up = False
        if self._ended:
            return
        self._ended = code
        for batch in (self._sending, *self._queue):
            if batch is not None:
                batch.refuse(code)


def _drop_commits(batch: Batch) -> None:
    """Redis is full: leave in the batch what frees memory, and refuse the rest."""
    batch.ops = [op for op in batch.ops if op[operations.LETTER] not in operations.COMMITS]
    refused = [call for call in batch.calls if call.op[operations.LETTER] in operations.COMMITS]
    batch.calls = [call for call in batch.calls if call.op[operations.LETTER] not in operations.COMMITS]
    for call in refused:
        call.decide(None, "JOURNAL_FULL")
    batch.release("JOURNAL_FULL")
