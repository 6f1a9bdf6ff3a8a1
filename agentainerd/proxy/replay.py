"""Sending a queued request to an agent, without a client: in this process, never as HTTP to ourselves, so that an
answer of our own (202, 503) can't be taken for the agent's.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from gevent.event import Event
from gevent.pool import Group

from agentainerd import defaults
from agentainerd.model.requests import Record, StoredResponse
from agentainerd.proxy import heads
from agentainerd.proxy.request import Fault
from agentainerd.proxy.response import Answer
from agentainerd.proxy.routing import Route, RouteTable
from agentainerd.proxy.target import Target
from agentainerd.proxy.upstream import Failure as CallFailure
from agentainerd.proxy.upstream import Upstream
from agentainerd.proxy.watch import NEVER, Cause, Sweeper, Watched

_OPEN_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))


class Failure(StrEnum):
    """Why a replay has no answer."""

    NONE = ""
    CONNECT = "connect"  # nothing reached the agent
    DIED = "died"  # it reached the agent, which died before it answered
    NO_ANSWER = "no_answer"  # it reached the agent, which lives and did not answer (closed, timed out, garbage)
    BROKEN = "broken"  # the answer broke off


@dataclass(frozen=True, slots=True)
class Replayed:
    """How one replay went. `status` 0: no answer; then `failure` and `error` say why. `retry_after_s`: the agent's wish."""

    status: int = 0
    response: StoredResponse | None = None
    response_bytes: int = 0
    retry_after_s: float | None = None
    failure: Failure = Failure.NONE
    error: str = ""
    duration_s: float = 0.0


class Replayer:
    """Sends records to targets; shares the data plane's sweeper and pumps. Blocks its greenlet only."""

    def __init__(self, routes: RouteTable, sweeper: Sweeper, pumps: Group) -> None:
        self._routes = routes
        self._sweeper = sweeper
        self._pumps = pumps

    def send(self, route: Route, target: Target, record: Record, body: Iterable[bytes]) -> Replayed:
        """Send `record` with `body` to `target` and return what came of it; never raises for what an agent does.

        The agent sees the original request and `X-Agentainer-Replay: true`, `-Attempt`, `-Received-At` (RFC 3339) and,
        where an earlier attempt may have run, `-Maybe-Duplicate: 1`. At most MAX_STORED_RESPONSE_BYTES of the answer are
        kept; the rest is read and dropped.
        """
        started = time.monotonic()
        attempt = _Attempt(self._sweeper, timeout_s=route.request_timeout_s)
        replayed = self._try(attempt, target, record, body)
        if replayed.failure is Failure.NO_ANSWER and not attempt.timed_out:
            died = self._routes.on_dead_check(route, target)
            replayed = replace(replayed, failure=Failure.DIED if died else Failure.NO_ANSWER)
        return replace(replayed, duration_s=time.monotonic() - started)

    def _try(self, attempt: "_Attempt", target: Target, record: Record, body: Iterable[bytes]) -> Replayed:
        try:
            upstream = target.take(repeatable=record.is_repeatable) or target.connect()
        except OSError as error:
            return Replayed(failure=Failure.CONNECT, error=f"cannot connect: {error.strerror or error}")
        data, rest = _request(record, body)
        upstream.begin(attempt, head_only=record.method == b"HEAD")
        try:
            upstream.send(data)
        except OSError:
            upstream.abort()
            if not upstream.reused:
                return Replayed(failure=Failure.CONNECT, error="the connection closed before anything was sent")
            return self._try_anew(attempt, target, record, data, rest)
        return self._converse(attempt, upstream, rest)

    def _try_anew(
        self, attempt: "_Attempt", target: Target, record: Record, data: bytes, rest: Iterable[bytes] | None
    ) -> Replayed:
        """The kept connection was dead: send on a new one."""
        try:
            upstream = target.connect()
            upstream.begin(attempt, head_only=record.method == b"HEAD")
            upstream.send(data)
        except OSError as error:
            return Replayed(failure=Failure.CONNECT, error=f"cannot connect: {error.strerror or error}")
        return self._converse(attempt, upstream, rest)

    def _converse(self, attempt: "_Attempt", upstream: Upstream, rest: Iterable[bytes] | None) -> Replayed:
        self._sweeper.add(attempt)
        try:
            if rest is not None:
                upstream.pump(self._pumps, rest, chunked=False)
            replayed = attempt.wait(upstream)
            if attempt.unframed and _is_up(upstream.target):
                replayed = attempt.whole()
        finally:
            self._sweeper.remove(attempt)
            upstream.release()
        return replayed


class _Attempt(Watched):
    """Waits for an agent's answer, and keeps what is to be kept of it. `unframed`: see CallFailure."""

    __slots__ = (
        "_done",
        "_failure",
        "_kept",
        "_reason",
        "_size",
        "_sweeper",
        "_timeout_s",
        "_upstream",
        "timed_out",
        "unframed",
    )

    def __init__(self, sweeper: Sweeper, *, timeout_s: float) -> None:
        super().__init__()
        self._sweeper = sweeper
        self._timeout_s = timeout_s
        self._upstream: Upstream | None = None
        self._done = Event()
        self._kept: list[bytes] = []
        self._size = 0
        self._failure = Failure.NONE
        self._reason = ""
        self.timed_out = self.unframed = False
        self.overdue = Cause.TIMEOUT

    def wait(self, upstream: Upstream) -> Replayed:
        """Block until the answer is whole, or there is none."""
        self._upstream = upstream
        self._touch()
        self._done.wait()
        if self._failure is not Failure.NONE:
            return Replayed(failure=self._failure, error=self._reason)
        return self.whole()

    def whole(self) -> Replayed:
        """Return the answer."""
        assert self._upstream is not None
        answer = self._upstream.answer
        truncated = self._size > defaults.MAX_STORED_RESPONSE_BYTES
        body = b"" if truncated else b"".join(self._kept)
        response = StoredResponse(answer.status, heads.stored_head(answer), body, truncated)
        return Replayed(
            status=answer.status, response=response, response_bytes=self._size, retry_after_s=_retry_after(answer)
        )

    def answer_came(self) -> None:
        """Keep a further piece."""
        assert self._upstream is not None
        answer = self._upstream.answer
        self._touch()
        answer.interim.clear()
        if answer.pieces:
            piece = answer.take()
            self._size += len(piece)
            if self._size <= defaults.MAX_STORED_RESPONSE_BYTES:
                self._kept.append(piece)
        if answer.done:
            self._end(Failure.NONE, "")

    def answer_failed(self, failure: CallFailure, reason: str) -> None:
        """There is no more of it."""
        self.unframed = failure is CallFailure.UNFRAMED
        begun = failure in (CallFailure.UNFRAMED, CallFailure.BROKEN)
        self._end(Failure.BROKEN if begun else Failure.NO_ANSWER, reason)

    def body_sent(self) -> None:
        """Nothing waits for that."""

    def body_failed(self, error: OSError | Fault) -> None:
        """The stored body can't be read."""
        self._end(Failure.NO_ANSWER, f"the stored body can't be read: {error}")

    def expire(self, cause: Cause) -> None:
        """The agent gave no (further) byte for too long."""
        self.timed_out = True
        begun = self._upstream is not None and self._upstream.answer.head_done
        self._end(Failure.BROKEN if begun else Failure.NO_ANSWER, "no answer in time")

    def _touch(self) -> None:
        self.deadline = self._sweeper.now + self._timeout_s

    def _end(self, failure: Failure, reason: str) -> None:
        if not self._done.is_set():
            self._failure, self._reason = failure, reason
            self.deadline = NEVER
            self._done.set()


def _request(record: Record, body: Iterable[bytes]) -> tuple[bytes, Iterable[bytes] | None]:
    """Return what is sent at once, and the rest, which is pumped; None: there is none."""
    head = record.head + _replay_fields(record)
    size = record.body_bytes
    if size > defaults.MAX_INLINE_BODY_BYTES:
        return b"%bContent-Length: %d\r\n\r\n" % (head, size), body
    if size or record.method in _OPEN_METHODS:
        return b"%bContent-Length: %d\r\n\r\n%b" % (head, size, b"".join(body)), None
    return head + b"\r\n", None


def _is_up(target: Target) -> bool:
    """The agent still listens: an answer that ended with its connection is whole."""
    try:
        target.connect().close()
    except OSError:
        return False
    return True


def _replay_fields(record: Record) -> bytes:
    received = datetime.fromtimestamp(record.received_at, UTC).isoformat(timespec="milliseconds")
    fields = b"X-Agentainer-Replay: true\r\nX-Agentainer-Attempt: %d\r\nX-Agentainer-Received-At: %b\r\n" % (
        record.attempt,
        received.encode(),
    )
    return fields + b"X-Agentainer-Maybe-Duplicate: 1\r\n" if record.maybe_duplicate else fields


def _retry_after(answer: Answer) -> float | None:
    """Read Retry-After (RFC 9110 10.2.3): seconds or a date. Bounded by MAX_RETRY_AFTER_S; nonsense is none."""
    value = answer.value(b"retry-after")
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if text.isdigit():
        return min(float(text[:9]), defaults.MAX_RETRY_AFTER_S)
    try:
        seconds = parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 0.0), defaults.MAX_RETRY_AFTER_S)
