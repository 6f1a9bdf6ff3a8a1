"""An agent's answer on its way to a client: head, pieces, end; at the client's pace, and nothing of it held back.

What stands behind an answer - a record, the control API, a tunnel - is a subclass and says what is to be done at each step.
"""

import itertools
import random
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from agentainerd import defaults
from agentainerd.proxy import heads, replies
from agentainerd.proxy.heads import Framing
from agentainerd.proxy.request import Fault, Request
from agentainerd.proxy.response import Answer
from agentainerd.proxy.target import Target
from agentainerd.proxy.upstream import Failure, Upstream
from agentainerd.proxy.watch import Cause

if TYPE_CHECKING:
    from agentainerd.proxy.connection import Connection
    from agentainerd.proxy.server import DataPlane

_numbers = itertools.count(random.SystemRandom().getrandbits(44))
_start = str(uuid.uuid4())[:24]
# Members by names of their own: Python 3.11 looks each one up in a map, in Python.
_TIMEOUT: Final = Cause.TIMEOUT
_CHUNKED: Final = Framing.CHUNKED
_CLOSE: Final = Framing.CLOSE


def new_id() -> str:
    """Return an id in the form of a UUID: random for each start of the process, and then counted.

    It names a request and opens nothing: a ticket does that. Drawing each one anew would cost a request 1 us.
    """
    return f"{_start}{next(_numbers) & 0xFFFFFFFFFFFF:012x}"


class Delivery:
    """One request of one client, and the answer to it. `id` names it."""

    __slots__ = ("_connection", "_framing", "_plane", "_prefix", "_request", "_status", "_timeout_s", "_upstream", "id")

    def __init__(
        self, plane: "DataPlane", connection: "Connection", request: Request, prefix: bytes, timeout_s: float
    ) -> None:
        self.id = new_id()
        self._plane = plane
        self._connection = connection
        self._request = request
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._upstream: Upstream | None = None
        self._framing: Framing | None = None
        self._status = 0

    # ---- what the subclasses say

    def _may_pass(self) -> bool:
        """Whether the answer, whose head is here, may go to the client now; else `_resume` is called when it may."""
        return True

    def _note_head(self, answer: Answer) -> None:
        """The head is passed on."""

    def _note(self, piece: bytes) -> None:
        """A piece of the body is passed on."""

    @property
    def _missed(self) -> bool:
        """The journal is away, and the answer must say so."""
        return False

    def _succeed(self) -> None:
        """The client has the whole answer."""

    def _fail(self, reason: str) -> None:
        """The answer broke off, or its client left."""

    def _unanswered(self, failure: Failure, target: Target, *, reused: bool, timed_out: bool) -> None:
        """There is no answer that could be passed on, and nothing was said to the client yet."""
        raise NotImplementedError

    # ---- words of our own

    def say(self, reply: replies.Reply, *, fields: bytes = b"") -> None:
        """Give an answer of our own, and end."""
        close, head_only = not self._connection.can_go_on(), self._request.method == b"HEAD"
        self._say(replies.encode(reply, self.id, fields=fields, close=close, head_only=head_only))

    def _say(self, answer: bytes) -> None:
        try:
            self._connection.push(answer)
        except OSError:
            self._connection.abort()
        else:
            self._connection.finish()

    # ---- the call

    def _call(self, upstream: Upstream, *, may_switch: bool = False) -> None:
        """Expect the answer from `upstream`, which is sent the request next.

        Raises:
            ConnectionResetError: the client's connection ended while the agent was being reached.
        """
        if not self._connection.is_up:
            upstream.close()
            raise ConnectionResetError("the client left before its request was sent")
        self._upstream = upstream
        upstream.begin(self, head_only=self._request.method == b"HEAD", may_switch=may_switch)
        self._connection.wait_for(_TIMEOUT, self._timeout_s)

    def _pump(self, upstream: Upstream, pieces: Iterator[bytes], length: int) -> None:
        """Send a body beside the answer, as it comes; `length` -1: in chunks."""
        self._connection.is_pumping = True
        upstream.pump(self._plane.pumps, self._timed(pieces), chunked=length < 0)

    def _timed(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """The agent has so long to take each piece."""
        for piece in pieces:
            self._connection.wait_for(_TIMEOUT, self._timeout_s)
            yield piece

    def _hang_up(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abort()

    def answer_came(self) -> None:
        """More of the answer is here."""
        upstream = self._upstream
        assert upstream is not None
        answer = upstream.answer
        if not answer.done:
            self._connection.wait_for(_TIMEOUT, self._timeout_s)
        try:
            if answer.interim:
                self._pass_interim(answer)
            if self._framing is not None:
                self._pass_pieces(answer)
            elif answer.head_done:
                if self._may_pass():
                    self._pass_head(answer)
                elif not answer.done:
                    upstream.pause()
        except OSError:
            self.client_left()

    def _resume(self) -> None:
        """The answer may be passed on now."""
        upstream = self._upstream
        if upstream is None or self._framing is not None:
            return  # the client left meanwhile
        try:
            if not upstream.answer.done:
                upstream.resume()
            self._pass_head(upstream.answer)
        except OSError:
            self.client_left()

    def _pass_interim(self, answer: Answer) -> None:
        if self._request.minor == 1:
            self._connection.push(b"".join(answer.interim))
        answer.interim.clear()

    def _pass_head(self, answer: Answer) -> None:
        """Pass on the head, and all of the body that is here with it."""
        self._status = answer.status
        head, framing = heads.answer_head(
            answer, self._request, request_id=self.id, prefix=self._prefix, keep=self._connection.can_go_on(),
            missed=self._missed,
        )  # fmt: skip
        self._framing = framing
        self._note_head(answer)
        body = answer.take() if answer.pieces else b""
        if body:
            self._note(body)
        if answer.done:
            self._release()
            self._finish(heads.framed(head, body, framing))
        else:
            self._pass(head + (heads.chunk(body) if framing is _CHUNKED else body))

    def _pass_pieces(self, answer: Answer) -> None:
        body = answer.take() if answer.pieces else b""
        if body:
            self._note(body)
        data = body
        if self._framing is _CHUNKED:
            data = heads.chunk(body)
            if answer.done:
                data += heads.LAST_CHUNK
        if answer.done:
            self._release()
            self._finish(data)
        elif data:
            self._pass(data)

    def _pass(self, data: bytes) -> None:
        """Send a piece; read on from the agent only when the client took it."""
        connection, upstream = self._connection, self._upstream
        assert upstream is not None
        if not connection.push(data):
            upstream.pause()
            connection.wait_for(Cause.STALLED, defaults.WRITE_STALL_TIMEOUT_S)
            connection.when_drained(self._go_on)

    def _go_on(self) -> None:
        if self._connection.is_broken:
            self.client_left()
        elif self._upstream is not None:
            self._connection.wait_for(_TIMEOUT, self._timeout_s)
            self._upstream.resume()

    def _release(self) -> None:
        upstream, self._upstream = self._upstream, None
        assert upstream is not None
        upstream.release()

    def _finish(self, data: bytes) -> None:
        """Send the last piece; the exchange is over when the client took it."""
        connection = self._connection
        if self._framing is _CLOSE:
            connection.close_after()
        if connection.push(data):
            self._succeed()
            connection.finish()
        else:
            connection.wait_for(Cause.STALLED, defaults.WRITE_STALL_TIMEOUT_S)
            connection.when_drained(self._finished)

    def _finished(self) -> None:
        if self._connection.is_broken:
            self.client_left()
        else:
            self._succeed()
            self._connection.finish()

    # ---- what goes wrong

    def answer_failed(self, failure: Failure, reason: str) -> None:
        """There is no more of the answer."""
        self._lose(failure, reason, timed_out=False)

    def _lose(self, failure: Failure, reason: str, *, timed_out: bool) -> None:
        upstream = self._upstream
        assert upstream is not None
        target, reused = upstream.target, upstream.reused
        if failure is Failure.UNFRAMED:
            self._connection.run(self._confirm_end, target, reason)
            return
        self._hang_up()
        if self._framing is None:
            self._unanswered(failure, target, reused=reused, timed_out=timed_out)
        else:
            self._break_off(reason)

    def _break_off(self, reason: str) -> None:
        self._fail(reason)
        self._connection.abort()

    def _confirm_end(self, target: Target, reason: str) -> None:
        """Tell an answer that ends with its connection from one whose agent died: does it still listen?"""
        try:
            target.connect().close()
        except OSError:
            self._hang_up()
            self._break_off(reason)
            return
        upstream = self._upstream
        if upstream is None:
            return  # the client left meanwhile
        upstream.answer.done = True
        self.answer_came()

    def timed_out(self) -> None:
        """The agent gave no (further) byte for too long."""
        begun = self._framing is not None
        self._lose(Failure.BROKEN if begun else Failure.SILENT, "the agent gave no further byte", timed_out=True)

    def client_left(self) -> None:
        """The client went away, or does not read any more."""
        self.abandon()
        self._connection.abort()

    def abandon(self) -> None:
        """The connection is closed: nothing of this goes on."""
        self._hang_up()
        self._fail("the client left before the end of the answer")

    def body_sent(self) -> None:
        """The body that was pumped is with the agent."""
        self._connection.is_pumping = False
        self._connection.listen()
        if self._framing is None:
            self._connection.wait_for(_TIMEOUT, self._timeout_s)

    def body_failed(self, error: OSError | Fault) -> None:
        """The client left in the middle of its body, or sent what is none."""
        if isinstance(error, Fault) and self._framing is None:
            self._hang_up()
            self._fail("the client's request broke off")
            self._connection.reject(error)
        else:
            self.client_left()
