"""Sending a queued request to an agent, without a client: in this process, never as HTTP to ourselves, so that an
answer of our own (202, 503) can't be taken for the agent's.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

from gevent.pool import Pool

from agentainerd import defaults
from agentainerd.model.requests import Record, StoredResponse
from agentainerd.proxy import upstream
from agentainerd.proxy.http1 import Fault
from agentainerd.proxy.response import Answer
from agentainerd.proxy.routing import Route, RouteTable
from agentainerd.proxy.target import Target
from agentainerd.proxy.watch import Cause, Sweeper, Watched

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

    def __init__(self, routes: RouteTable, sweeper: Sweeper, pumps: Pool) -> None:
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
        watched = Watched()
        call = upstream.Call(target, watched, self._sweeper, timeout_s=route.request_timeout_s)
        target.in_flight += 1
        self._sweeper.add(watched)
        try:
            replayed = self._converse(call, watched, record, body)
        finally:
            self._sweeper.remove(watched)
            target.in_flight -= 1
            call.close()
        if replayed.failure is Failure.NO_ANSWER and watched.cause is not Cause.TIMEOUT:
            died = self._routes.on_dead_check(route, target)
            replayed = replace(replayed, failure=Failure.DIED if died else Failure.NO_ANSWER)
        return replace(replayed, duration_s=time.monotonic() - started)

    def _converse(self, call: upstream.Call, watched: Watched, record: Record, body: Iterable[bytes]) -> Replayed:
        answer = Answer(head_only=record.method == b"HEAD")
        try:
            call.open(fresh=False, repeatable=record.is_repeatable)
        except OSError as error:
            return Replayed(failure=Failure.CONNECT, error=f"cannot connect: {error.strerror or error}")
        try:
            if not self._send(call, record, body):
                return Replayed(failure=Failure.CONNECT, error="the connection closed before anything was sent")
            call.read_head(answer, _ignore)
        except Fault as fault:
            return Replayed(failure=Failure.NO_ANSWER, error=fault.reason)
        except (upstream.Silent, OSError):
            late = watched.cause is Cause.TIMEOUT
            return Replayed(
                failure=Failure.NO_ANSWER, error="no answer in time" if late else "closed without an answer"
            )
        return self._read(call, answer)

    def _send(self, call: upstream.Call, record: Record, body: Iterable[bytes]) -> bool:
        head = record.head + _replay_fields(record)
        size = record.body_bytes
        if size <= defaults.MAX_INLINE_BODY_BYTES:
            length = size if size or record.method in _OPEN_METHODS else -1
            return call.send(head, b"".join(body), length=length)
        try:
            call.pump(self._pumps, head, _iterate(body), length=size)
        except OSError:
            return False
        return True

    def _read(self, call: upstream.Call, answer: Answer) -> Replayed:
        kept: list[bytes] = []
        size = 0

        def keep(piece: bytes) -> None:
            nonlocal size
            size += len(piece)
            if size <= defaults.MAX_STORED_RESPONSE_BYTES:
                kept.append(piece)

        try:
            if answer.done:
                keep(call.whole(answer, b"", upstream.Framing.NONE)[1])
            else:
                for _ in call.stream(answer, b"", upstream.Framing.NONE, keep):
                    pass
        except (upstream.Broken, OSError) as error:
            return Replayed(failure=Failure.BROKEN, error=str(error))
        truncated = size > defaults.MAX_STORED_RESPONSE_BYTES
        head = upstream.stored_head(answer)
        response = StoredResponse(answer.status, head, b"" if truncated else b"".join(kept), truncated)
        return Replayed(
            status=answer.status, response=response, response_bytes=size, retry_after_s=_retry_after(answer)
        )


def _replay_fields(record: Record) -> bytes:
    received = datetime.fromtimestamp(record.received_at, UTC).isoformat(timespec="milliseconds")
    fields = b"X-Agentainer-Replay: true\r\nX-Agentainer-Attempt: %d\r\nX-Agentainer-Received-At: %b\r\n" % (
        record.attempt,
        received.encode(),
    )
    return fields + b"X-Agentainer-Maybe-Duplicate: 1\r\n" if record.maybe_duplicate else fields


def _retry_after(answer: Answer) -> float | None:
    """Read Retry-After (RFC 9110 10.2.3): seconds or a date. Bounded by MAX_RETRY_AFTER_S; nonsense is none."""
    for name, value in answer.headers:
        if name.lower() == b"retry-after":
            text = value.decode("latin-1").strip()
            if text.isdigit():
                return min(float(text[:9]), defaults.MAX_RETRY_AFTER_S)
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, TypeError):
                return None
            return min(max(seconds, 0.0), defaults.MAX_RETRY_AFTER_S)
    return None


def _iterate(body: Iterable[bytes]) -> Iterator[bytes]:
    yield from body


def _ignore(_head: bytes) -> None:
    """Nobody waits for interim answers to a replay."""
