"""One connection to an agent, for one call after another: a request goes out, an answer comes in.

A call begins with `begin`, and ends with `release` (the connection goes back to its target's pool, after a whole and
clean exchange) or `abort`. Knows nothing of clients and journals: it tells a `Caller`.
"""

import logging
import time
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import gevent
from gevent.pool import Group

from agentainerd.proxy.request import Fault
from agentainerd.proxy.response import Answer
from agentainerd.proxy.wire import PIECE, Stream

if TYPE_CHECKING:
    from agentainerd.proxy.target import Target

log = logging.getLogger(__name__)


class Failure(Enum):
    """Why a call has no whole answer."""

    SILENT = 1  # the connection ended before the head of an answer
    GARBAGE = 2  # what came is no answer that can be passed on
    BROKEN = 3  # the answer broke off
    UNFRAMED = 4  # the connection ended, and only that could say where the answer ends: does the agent still live?


class Caller(Protocol):
    """Who waits for an answer. Called in the hub: must not block."""

    def answer_came(self) -> None:
        """More of the answer is here: `Upstream.answer` has it."""

    def answer_failed(self, failure: Failure, reason: str) -> None:
        """There is no more of it; the call is to be aborted."""

    def body_sent(self) -> None:
        """All of a body that was pumped is with the agent, or it takes no more."""

    def body_failed(self, error: OSError | Fault) -> None:
        """A body that is pumped can't be read to its end."""


class Upstream:
    """One connection of a target's pool.

    Attributes:
        target: where it leads.
        answer: of the call under way; valid until `release`.
        reused: it had a call before this one.
        idle_since: monotonic time; written by the pool.
    """

    __slots__ = ("_caller", "_pump", "answer", "idle_since", "reused", "stream", "target")

    def __init__(self, target: "Target", stream: Stream) -> None:
        self.stream = stream
        self.answer = Answer()
        self.reused = False
        self.idle_since = 0.0
        self.target = target
        self._caller: Caller | None = None
        self._pump: gevent.Greenlet | None = None
        stream.listen(self._readable)

    def begin(self, caller: Caller, *, head_only: bool, may_switch: bool = False) -> None:
        """Start a call; `head_only`: its answer has no body. Whoever begins it sends next."""
        self._caller = caller
        self.target.in_flight += 1
        self.answer.reset(head_only=head_only, may_switch=may_switch)

    def send(self, data: bytes) -> None:
        """Send a request, or a piece of it, that is here. Does not block: what does not fit follows.

        Raises:
            OSError: the connection broke; of the first piece of a call not one byte can have been read.
        """
        self.stream.push(data)

    def pump(self, group: Group, pieces: Iterable[bytes], *, chunked: bool) -> None:
        """Send a body beside the answer, piece by piece, as it comes."""
        self._pump = group.spawn(self._pump_body, pieces, chunked)

    def pause(self) -> None:
        """Read no more of the answer for now."""
        self.stream.pause()

    def resume(self) -> None:
        """Read on."""
        self.stream.listen(self._readable)

    def release(self) -> None:
        """End the call after a whole answer."""
        pumped = self._pump is None or self._pump.ready()
        if pumped and self.answer.can_be_followed and not self.stream.undrained:
            self._caller = self._pump = None
            self.target.in_flight -= 1
            self.reused = True
            self.target.put(self)
        else:
            self.abort()

    def abort(self) -> None:
        """End the call, and the connection."""
        if self._caller is not None:
            self._caller = None
            self.target.in_flight -= 1
            self.target.used_at = time.monotonic()
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._pump is not None:
            self._pump.kill(block=False)
            self._pump = None
        self.stream.close()
        self.answer.close()

    def detach(self) -> Stream:
        """Hand over the raw stream, for a tunnel; the call goes on until `abort`, which closes it."""
        self.stream.pause()
        return self.stream

    def _readable(self) -> None:
        try:
            data = self.stream.receive(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        caller = self._caller
        if caller is None:
            self.target.drop(self)  # it was idle: the agent closed it, or said what nobody asked for
            return
        try:
            if data:
                self.answer.feed(data)
                caller.answer_came()
            else:
                self._end(caller)
        except Fault as fault:
            began = self.answer.head_done
            caller.answer_failed(Failure.BROKEN if began else Failure.GARBAGE, fault.reason)
        except Exception:
            log.exception("an answer could not be handled")
            caller.answer_failed(Failure.BROKEN, "an internal error; see the log of agentainerd")

    def _end(self, caller: Caller) -> None:
        self.stream.pause()
        answer = self.answer
        if answer.done:
            answer.keep_alive = False  # the caller knows of it, and has not released us yet
        elif not answer.head_done:
            caller.answer_failed(Failure.SILENT, "the agent closed the connection without an answer")
        elif answer.ends_with_connection:
            caller.answer_failed(Failure.UNFRAMED, "the agent died in the middle of its answer")
        else:
            caller.answer_failed(Failure.BROKEN, "the agent closed the connection in the middle of its answer")

    def _pump_body(self, pieces: Iterable[bytes], chunked: bool) -> None:
        caller = self._caller
        assert caller is not None
        iterator = iter(pieces)
        while True:
            try:
                piece = next(iterator, None)
            except (OSError, Fault) as error:
                caller.body_failed(error)
                return
            try:
                if piece is None:
                    if chunked:
                        self.stream.write(b"0\r\n\r\n")
                    break
                self.stream.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            except OSError:
                break  # the agent takes no more: its answer, or its end, is read beside
        caller.body_sent()
