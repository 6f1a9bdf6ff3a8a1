"""One call of an agent to a model: to the first provider that takes it, and its answer back as it comes.

`/llm/v1/...` is not an agent's path: nothing of it is recorded or queued. Who may call, whom that goes to and what it costs
is not known here, but asked of the `ModelGate`. Of an answer a meter (metering.py) sees each piece as it passes.
"""

import re
import time
from typing import TYPE_CHECKING, Final

import gevent
from gevent.event import Event

from agentainerd import defaults
from agentainerd.proxy import heads, replies
from agentainerd.proxy.delivery import Delivery
from agentainerd.proxy.http1 import drop_fields
from agentainerd.proxy.metering import Meter
from agentainerd.proxy.model_gate import ModelAsk, ModelCall, ModelPlay, ModelReply, ModelWay, refusal
from agentainerd.proxy.request import Request
from agentainerd.proxy.response import Answer
from agentainerd.proxy.target import Target
from agentainerd.proxy.upstream import Failure, Upstream
from agentainerd.proxy.watch import NEVER, Cause

if TYPE_CHECKING:
    from agentainerd.proxy.connection import Connection
    from agentainerd.proxy.server import DataPlane

PREFIX: Final = b"/llm/v1"
_EVENTS: Final = "text/event-stream"
_ACCOUNT = (b"openai-organization", b"openai-project", b"anthropic-organization-id")
"""Fields of an answer that say whose account it is."""
_NOT_NOW = frozenset((401, 402, 403, 404, 408, 409, 429, 500, 502, 503, 504, 520, 522, 524, 529))
"""Another provider may well answer what this one does not."""
_OUR_KEY = frozenset((401, 403))
_ID = re.compile(rb"[A-Za-z0-9_.-]{1,128}")


class ModelExchange(Delivery):
    """One call, from its head to the end of its answer."""

    __slots__ = ("_call_made", "_is_over", "_is_read", "_is_second", "_meter", "_refused", "_way")

    def __init__(self, plane: "DataPlane", connection: "Connection", request: Request) -> None:
        super().__init__(plane, connection, request, b"", defaults.PROVIDER_TIMEOUT_S)
        self._call_made: ModelCall | None = None
        self._way: ModelWay | None = None
        self._meter: Meter | None = None
        self._is_over = self._is_read = self._is_second = False
        self._refused = ""

    def run(self) -> None:
        """Ask whether it may be made, and make it. Blocks its greenlet. Raises OSError: the client is gone."""
        body = self._read_body()
        if body is None:
            limit = defaults.MAX_MODEL_BODY_BYTES // (1024 * 1024)
            self._reply(refusal(413, f"the request is larger than {limit} MiB", "request_too_large"))
            return
        verdict = self._plane.routes.models.on_ask(self._ask(body))
        if isinstance(verdict, ModelReply):
            self._reply(verdict)
            return
        self._call_made = verdict
        if verdict.play is not None:
            self._play(verdict, verdict.play)
        else:
            self._try_next()

    def _read_body(self) -> bytes | None:
        """Return the body, whole; None: it is too large."""
        request, connection = self._request, self._connection
        if request.expects_continue and not request.done:
            request.expects_continue = False
            connection.push(b"HTTP/1.1 100 Continue\r\n\r\n")
        pieces: list[bytes] = []
        size = 0
        while True:
            for piece in request.pieces:
                size += len(piece)
                pieces.append(piece)
            request.pieces.clear()
            if size > defaults.MAX_MODEL_BODY_BYTES or request.length > defaults.MAX_MODEL_BODY_BYTES:
                return None
            if request.done:
                return b"".join(pieces)
            connection.read_more()

    def _ask(self, body: bytes) -> ModelAsk:
        request = self._request
        said = {name: value.decode() for name, value in request.forwarded if _ID.fullmatch(value)}
        given = request.authorization or b""
        return ModelAsk(
            request.method.decode(),
            request.target[len(PREFIX) :].decode("latin-1"),
            body,
            peer=self._connection.peer,
            token=given[7:].strip().decode("latin-1") if given[:7].lower() == b"bearer " else "",
            run_id=said.get(b"x-agentainer-run-id", ""),
            session_id=said.get(b"x-agentainer-session-id", ""),
        )

    # ---- an answer that was recorded

    def _play(self, call: ModelCall, play: ModelPlay) -> None:
        """Give it, cut as it came. In a greenlet."""
        connection = self._connection
        is_chunked = self._request.minor == 1
        if not is_chunked:
            connection.close_after()
        call.model, call.status = play.name, play.status
        self._meter = meter = Meter(is_stream=play.content_type.startswith(_EVENTS), hides_usage=play.hides_usage)
        connection.push(_played_head(play, self.id, is_chunked=is_chunked, close=not connection.can_go_on()))
        for piece in play.pieces:
            self._give(meter.feed(piece), is_chunked=is_chunked)
        self._give(meter.end(), is_chunked=is_chunked)
        if is_chunked:
            connection.push(heads.LAST_CHUNK)
        self._succeed()
        connection.finish()

    def _give(self, piece: bytes, *, is_chunked: bool) -> None:
        """Send a piece and wait until the client took it."""
        connection = self._connection
        if piece and not connection.push(heads.chunk(piece) if is_chunked else piece):
            taken = Event()
            connection.wait_for(Cause.STALLED, defaults.WRITE_STALL_TIMEOUT_S)
            connection.when_drained(taken.set)
            taken.wait()
            if connection.is_broken:
                raise ConnectionResetError("the client left before the end of the answer")
            connection.deadline = NEVER
        gevent.sleep(0)  # so that each piece leaves by itself

    # ---- providers, one after the other

    def _try_next(self) -> None:
        """Ask the next provider, or say that there is none left. In a greenlet: it may have to connect."""
        call = self._call_made
        assert call is not None
        while call.ways:
            self._way = way = call.ways.pop(0)
            call.model = way.name
            call.status = 0
            self._is_second = False
            upstream = way.target.take(repeatable=True)
            if upstream is not None and self._send(upstream):
                return
            if self._connect():
                return
        call.reason = call.reason or self._refused
        self._reply(refusal(502, f"no provider answered: {self._refused}", "provider_unavailable", kind="server_error"))

    def _connect(self) -> bool:
        """Ask the provider on a new connection; False: it can't be reached."""
        way = self._way
        assert way is not None
        try:
            upstream = way.target.connect()
        except OSError as error:
            self._refused = f"{way.name} can't be reached ({error.strerror or error})"
            return False
        if self._send(upstream):
            return True
        self._refused = f"{way.name} closed the connection"
        return False

    def _send(self, upstream: Upstream) -> bool:
        way = self._way
        assert way is not None
        self._call(upstream)
        try:
            upstream.send(b"%bContent-Length: %d\r\n\r\n%b" % (way.head, len(way.body), way.body))
        except OSError:
            self._hang_up()
            return False
        return True

    def _unanswered(self, failure: Failure, target: Target, *, reused: bool, timed_out: bool) -> None:
        call = self._call_made
        assert call is not None
        name = call.model
        self._refused = f"{name} gave no answer in time" if timed_out else f"{name} gave no answer"
        if failure is Failure.SILENT and reused and not self._is_second and not timed_out:
            self._is_second = True  # it had closed the kept connection before it can have seen this
            self._connection.run(self._again)
        elif timed_out and not call.ways:
            call.reason = self._refused
            self._reply(refusal(504, self._refused, "provider_timeout", kind="server_error"))
        else:
            self._connection.run(self._try_next)

    def _again(self) -> None:
        if not self._connect():
            self._try_next()

    # ---- the answer

    def answer_came(self) -> None:
        """More of the answer is here."""
        upstream = self._upstream
        assert upstream is not None
        answer = upstream.answer
        if answer.head_done:
            if not self._is_read and not self._read_head(answer):
                return
            meter = self._meter
            if meter is not None and (answer.pieces or answer.done):
                piece = answer.take() if answer.pieces else b""
                self._keep(piece)
                piece = meter.feed(piece) if piece else b""
                if answer.done:
                    piece += meter.end()
                if piece:
                    answer.pieces.append(piece)
        super().answer_came()

    def _keep(self, piece: bytes) -> None:
        """Record a piece, where that is wanted."""
        call = self._call_made
        if call is not None and call.tape is not None and piece:
            call.tape.append((time.monotonic(), piece))

    def _read_head(self, answer: Answer) -> bool:
        """Take the head; False: this answer is not the one that is passed on."""
        call, way = self._call_made, self._way
        assert call is not None and way is not None
        status = answer.status
        if status in _NOT_NOW and (call.ways or status in _OUR_KEY):
            call.status = status
            self._refused = f"{way.name} answered {status}"
            self._hang_up()
            if call.ways:
                self._connection.run(self._try_next)
            else:
                call.reason = self._refused
                self._reply(
                    refusal(
                        502,
                        f"the provider does not take the key that agentainerd has for {way.name}",
                        "provider_key_refused",
                        kind="server_error",
                    )
                )
            return False
        self._is_read = True
        call.ways.clear()
        way.body = b""  # answers take minutes: what was asked is not kept that long
        call.status = status
        answer.cookies.clear()
        drop_fields(answer.lines, _ACCOUNT)
        answer.lines.append(b"X-Agentainer-Model: %b\r\n" % way.name.encode())
        kind = answer.value(b"content-type") or b""
        call.content_type = kind.decode("latin-1")
        is_stream = call.content_type[:17].lower() == _EVENTS
        if answer.value(b"content-encoding") is None:
            hides = way.hides_usage and answer.length < 0
            self._meter = Meter(is_stream=is_stream, hides_usage=hides)
        return True

    def _succeed(self) -> None:
        if self._call_made is not None:
            self._call_made.is_whole = True
        self._end()

    def _fail(self, reason: str) -> None:
        if self._call_made is not None and not self._is_over:
            self._call_made.reason = reason
        self._end()

    def _end(self) -> None:
        """Tell how it went, once."""
        call, meter = self._call_made, self._meter
        if call is None or self._is_over:
            return
        self._is_over = True
        if meter is not None:
            meter.end()
            call.usage, call.events = meter.usage, meter.events
        self._plane.routes.models.on_end(call)

    def _reply(self, reply: ModelReply) -> None:
        """Give an answer of our own, and end."""
        self._end()
        close, head_only = not self._connection.can_go_on(), self._request.method == b"HEAD"
        head = replies.head(reply.status, len(reply.body), self.id, fields=reply.fields, close=close)
        self._say(head if head_only else head + reply.body)


def _played_head(play: ModelPlay, request_id: str, *, is_chunked: bool, close: bool) -> bytes:
    framing = "Transfer-Encoding: chunked\r\n" if is_chunked else ""
    framing += "Connection: close\r\n" if close else ""
    return (
        f"HTTP/1.1 {play.status} {replies.PHRASES.get(play.status, b'Unknown').decode()}\r\n"
        f"Content-Type: {play.content_type}\r\n{framing}"
        f"X-Agentainer-Model: {play.name}\r\nX-Agentainer-Request-ID: {request_id}\r\n\r\n"
    ).encode()
