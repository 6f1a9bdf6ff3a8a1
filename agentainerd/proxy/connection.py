"""One client connection: its requests, one after the other.

Nearly everything here runs in the hub, called by the event loop, and must not block: what has to wait (for an agent that
starts, for a body, for a connection, for the disk) goes on in a greenlet (`run`), and comes back when it is done.
While a request is under way the client is listened to, so that it is known at once when it leaves.
"""

import logging
import socket as stdlib_socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import gevent

from agentainerd import defaults
from agentainerd.proxy import browsers, replies
from agentainerd.proxy.delivery import Delivery, new_id
from agentainerd.proxy.exchange import Exchange
from agentainerd.proxy.http1 import RequestReader, strip_authority
from agentainerd.proxy.model_exchange import ModelExchange
from agentainerd.proxy.origins import Verdict
from agentainerd.proxy.passage import Passage
from agentainerd.proxy.request import Fault, Request
from agentainerd.proxy.routing import Route
from agentainerd.proxy.upgrade import Tunnel
from agentainerd.proxy.visit import Visit
from agentainerd.proxy.watch import NEVER, Cause, Watched
from agentainerd.proxy.wire import PIECE, Stream

if TYPE_CHECKING:
    from agentainerd.proxy.server import DataPlane

log = logging.getLogger(__name__)
_AGENT = b"/agent/"
_MODELS = b"/llm/v1/"
_LINGER_S = 2.0
_LINGER_BYTES = 16 * 1024 * 1024  # a client that sends a body a little too large still reads why it was refused
_HALF_CLOSED_S = 1.0
"""Who closes its side may still read: an answer that comes so soon is sent. Nobody can tell that from having left."""
# Members by names of their own: Python 3.11 looks each one up in a map, in Python.
_IDLE: Final = Cause.IDLE
_NONE: Final = Cause.NONE


class Connection(Watched):
    """One client connection; it serves itself from `start` to its end.

    Attributes:
        peer: the client's address.
        cause: why it was ended from outside.
        is_pumping: a greenlet reads the body of the request under way.
        push: Stream.push of the client.
    """

    __slots__ = (
        "_ahead", "_body_left_s", "_body_until", "_closing", "_delivery", "_ended", "_forwarded", "_held", "_host",
        "_in_greenlet", "_plane", "_proceeding", "_reader", "_ref", "_request", "_stream", "cause", "is_pumping", "peer", "push",
    )  # fmt: skip

    def __init__(self, plane: "DataPlane", stream: Stream, peer: str) -> None:
        super().__init__()
        self._plane = plane
        self._stream = stream
        self.push = stream.push
        self._host: bytes | None = None
        self._ref: bytes | None = None
        self._reader = RequestReader()
        self._request: Request | None = None
        self._delivery: Delivery | None = None
        self._closing = self._ended = self._proceeding = self._in_greenlet = False
        self._ahead = 0
        self._body_left_s = self._body_until = 0.0
        self._held = 0
        self._forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\nVia: 1.1 agentainer\r\n" % peer.encode()
        self.peer = peer
        self.cause = _NONE
        self.is_pumping = False

    def start(self) -> None:
        """Serve requests from now on, until the client or we have enough. Does not block."""
        self._plane.sweeper.add(self)
        self.wait_for(_IDLE, defaults.KEEPALIVE_TIMEOUT_S)
        self.listen()

    # ---- for whoever answers a request

    @property
    def is_up(self) -> bool:
        """Nothing has ended it from outside."""
        return self.cause is _NONE and self._stream.fileno >= 0

    @property
    def is_broken(self) -> bool:
        """What was pushed could not be written."""
        return self._stream.broken is not None

    @property
    def is_idle(self) -> bool:
        """No request is under way, and none has begun to arrive."""
        return self._request is None and self._reader.idle

    def can_go_on(self) -> bool:
        """Another request may follow this one: its body was read, and both sides want to keep the connection."""
        request = self._request
        return (
            request is not None
            and request.keep_alive
            and request.done
            and not self._plane.draining
            and not self._closing
        )

    def wait_for(self, cause: Cause, timeout_s: float) -> None:
        """Give what is waited for now so long."""
        self.deadline = self._plane.sweeper.now + timeout_s
        self.overdue = cause

    def when_drained(self, callback: Callable[[], None]) -> None:
        """Call once, when all is written after a `push` that returned False, or can't be (`is_broken`)."""
        self._stream.on_drained = callback

    def listen(self) -> None:
        """Notice what the client does while its request is under way."""
        if not self._ended:
            self._stream.listen(self._readable)

    def run(self, function: Callable[..., None], *arguments: object) -> None:
        """Go on in a greenlet, with a function that may block; the client is not listened to meanwhile."""
        self._stream.pause()
        self._in_greenlet = True
        self.is_pumping = False
        self.deadline = NEVER
        self._plane.greenlets.spawn(self._run, function, arguments)

    def read_more(self) -> None:
        """Read a further piece of the request under way. Blocks its greenlet.

        Raises:
            OSError: the client went away.
            Fault: it sends nothing for too long, or what is no HTTP.
        """
        sweeper = self._plane.sweeper
        began = sweeper.now
        self._await_body()
        data = self._stream.read()
        self.deadline = NEVER
        self._body_left_s += len(data) / defaults.MIN_BODY_RATE - (sweeper.now - began)
        if not data:
            if self.cause is Cause.SLOW_BODY:
                raise Fault(408, "the body came too slowly")
            raise ConnectionResetError("the client left in the middle of its request")
        self._reader.feed(data)
        if self._reader.broken:
            raise self._reader.broken

    def _await_body(self) -> None:
        """Give the client so long for a further piece of its body."""
        self.wait_for(Cause.SLOW_BODY, min(defaults.BODY_IDLE_TIMEOUT_S, self._body_left_s))

    def has_left(self) -> bool:
        """The client closed its side, as far as can be seen: it may have sent more before."""
        return self._stream.has_ended()

    def forwarded_fields(self, request: Request) -> bytes:
        """Return the lines that tell the agent who asked; a trusted proxy's own are continued."""
        if not request.forwarded or self.peer not in self._plane.options.trusted_proxies:
            return self._forwarded
        came = dict(request.forwarded)
        chain = b", ".join(value for name, value in request.forwarded if name == b"x-forwarded-for")
        return b"X-Forwarded-For: %b%b\r\nX-Forwarded-Proto: %b\r\nVia: 1.1 agentainer\r\n" % (
            chain + b", " if chain else b"",
            self.peer.encode(),
            came.get(b"x-forwarded-proto", b"http"),
        )

    def detach(self) -> tuple[Stream, bytes]:
        """Hand the raw stream over, with the bytes that came behind the head of an upgrade."""
        self._closing = True
        self._stream.pause()
        return self._stream, self._reader.rest

    # ---- ends

    def finish(self) -> None:
        """The request under way is answered, or its answer is written already: go on with the next, or close."""
        if self._stream.undrained:
            self.wait_for(Cause.STALLED, defaults.WRITE_STALL_TIMEOUT_S)
            self.when_drained(self._finish_drained)
            return
        go_on = self.can_go_on()
        self._request = self._delivery = None
        if not go_on:
            self._linger()
        elif self._proceeding or self._in_greenlet:
            return
        elif self._reader.idle and not self._ended and not self._ahead:
            self.wait_for(_IDLE, defaults.KEEPALIVE_TIMEOUT_S)
        else:
            self._proceed()

    def close_after(self) -> None:
        """The end of the connection is the end of the answer."""
        self._closing = True

    def abort(self) -> None:
        """Break the connection off, so that the client sees that its answer is not whole."""
        self._close(reset=True)

    def reject(self, fault: Fault) -> None:
        """Say what is wrong with the request, and take nothing more from this connection."""
        self._closing = True
        self._request = self._delivery = None
        try:
            self.push(replies.encode(replies.malformed(fault.status, fault.reason), new_id(), close=True))
        except OSError:
            self._close()
        else:
            self._linger()

    def expire(self, cause: Cause) -> None:
        """Something was waited for too long."""
        self.cause = cause
        if cause is Cause.SLOW_BODY and (self._in_greenlet or self.is_pumping):
            self._stream.shut(stdlib_socket.SHUT_RD)  # whoever reads wakes
        elif cause is Cause.TIMEOUT and self._delivery is not None:
            self.cause = _NONE
            self._delivery.timed_out()
        elif cause in (Cause.STALLED, Cause.STOPPED) and self._delivery is not None:
            self._delivery.client_left()
        elif cause is Cause.SLOW_HEAD:
            self.reject(Fault(408, "the head of the request came too slowly"))
        elif cause is Cause.SLOW_BODY:
            self.reject(Fault(408, "the body came too slowly"))
        else:
            self._close(reset=cause is Cause.STALLED)

    def _finish_drained(self) -> None:
        if self.is_broken:
            self._close()
        else:
            self.finish()

    def _linger(self) -> None:
        """Let the client read the answer before its unread bytes make the kernel reset the connection (RFC 9112 9.6)."""
        self._closing = True
        if self._stream.undrained:
            self.wait_for(Cause.STALLED, _LINGER_S)
            self.when_drained(self._linger)
            return
        self._stream.shut(stdlib_socket.SHUT_WR)
        self.wait_for(Cause.LINGERED, _LINGER_S)
        self._ahead = 0
        self._stream.listen(self._discard)

    def _discard(self) -> None:
        try:
            data = self._stream.receive(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._ahead += len(data)
        if not data or self._ahead > _LINGER_BYTES:
            self._close()

    def _close(self, *, reset: bool = False) -> None:
        self._closing = True
        self.deadline = NEVER
        self._let_go()
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.abandon()
        self._stream.close(reset=reset)
        self._plane.forget(self)

    # ---- requests

    def _readable(self) -> None:
        try:
            data = self._stream.receive(PIECE)
        except BlockingIOError:
            return
        except OSError:
            self._left()
            return
        try:
            if not data:
                self._end()
                return
            self._reader.feed(data)
            if self._request is None:
                self._proceed()
            else:
                self._ahead += len(data)
                if self._ahead > PIECE:
                    self._stream.pause()  # it pipelines; that much is enough for now
        except Exception:
            log.exception("connection failed", extra={"client": self.peer})
            self._close(reset=True)

    def _end(self) -> None:
        """The client closed its side."""
        self._ended = True
        self._stream.pause()
        if self._request is None:
            self._close()
        else:
            gevent.spawn_later(_HALF_CLOSED_S, self._give_up_on, self._request)

    def _give_up_on(self, request: Request) -> None:
        if self._request is request and not self._closing:
            self._left()

    def _left(self) -> None:
        if self._delivery is not None:
            self._delivery.client_left()
        else:
            self._close()

    def _proceed(self) -> None:
        """Begin with the requests that have come, as far as they are answered at once."""
        self._proceeding = True
        try:
            while self._request is None and not self._closing and self._next():
                pass
        finally:
            self._proceeding = False

    def _next(self) -> bool:
        """Begin with the next request; False: there is none yet, or there will be none."""
        reader = self._reader
        if self._ahead:
            self._ahead = 0
            self.listen()
        if not reader.requests:
            self._await_head()
            return False
        request = reader.requests[0]
        fault = request.fault or (None if request.done else reader.broken)
        if fault is not None:
            self.reject(fault)
            return False
        if not request.done and self._holds(request):
            return False
        self._let_go()
        reader.requests.popleft()
        self.overdue = _NONE
        self._body_left_s = defaults.BODY_GRACE_S
        self._request = request
        try:
            self._dispatch(request)
        except Fault as wrong:
            self.reject(wrong)
        except OSError:
            self._left()
        return True

    def _holds(self, request: Request) -> bool:
        """Wait for a small body to be whole, if there is room for it; else it is passed on as it comes."""
        now = self._plane.sweeper.now
        if not self._held:
            small = 0 < request.length <= defaults.MAX_MEMORY_BODY_BYTES
            if not small or request.expects_continue or not self._plane.hold(request.length):
                return False
            self._held = request.length
            self._body_until = now + defaults.BODY_GRACE_S + request.length / defaults.MIN_BODY_RATE
        self._body_left_s = self._body_until - now
        self._await_body()
        return True

    def _let_go(self) -> None:
        if self._held:
            self._plane.hold(-self._held)
            self._held = 0

    def _await_head(self) -> None:
        """There is no whole head: wait for one, unless there will be none."""
        if self._reader.broken:
            self.reject(self._reader.broken)
        elif self._plane.draining or self._ended:
            self._close()
        elif self._reader.idle:
            self.wait_for(_IDLE, defaults.KEEPALIVE_TIMEOUT_S)
        elif self.overdue is not Cause.SLOW_HEAD:
            self.wait_for(Cause.SLOW_HEAD, defaults.HEAD_TIMEOUT_S)

    def _run(self, function: Callable[..., None], arguments: tuple[object, ...]) -> None:
        """A greenlet's part of a request: afterwards it is answered, or waits for its agent."""
        try:
            function(*arguments)
        except Fault as fault:
            self.reject(fault)
        except OSError:
            self._close(reset=True)
        except Exception:
            log.exception("connection failed", extra={"client": self.peer})
            self._close(reset=True)
        finally:
            self._in_greenlet = False
            self._come_back()

    def _come_back(self) -> None:
        """Go on in the hub after a greenlet's part."""
        if self._closing or self.is_pumping:
            return
        self.listen()
        if self._request is None:
            self._proceed()

    def _dispatch(self, request: Request) -> None:
        if request.method == b"CONNECT":
            self._say(replies.METHOD_NOT_ALLOWED, request)
            return
        target = strip_authority(request)
        ref, path, prefix = self._locate(request, target)
        if ref is None:
            self._dispatch_other(request, target)
            return
        route = self._plane.routes.find(ref)
        if verdict := self._plane.options.judge(request.host, request.origin):
            self._refuse_stranger(verdict, request)
        elif route is None:
            self._dispatch_unknown(ref, request, target)
        elif route.ports and path.startswith(b"/:") and (port := browsers.split(path))[0] in route.ports:
            self._visit(request, route, port[0], port[1], b"%b/:%b" % (prefix, port[0]))
        elif route.is_busy(self._plane.options.max_in_flight):
            route.tally.unavailable += 1
            self._say(replies.BUSY, request)
        elif request.upgrade and request.upgrade.lower() != b"h2c":
            tunnel = Tunnel(self._plane, self, request, route, path=path, prefix=prefix)
            self._delivery = tunnel
            self.run(tunnel.run)
        else:
            self._delivery = exchange = Exchange(self._plane, self, request, route, path=path, prefix=prefix)
            exchange.start()

    def _dispatch_unknown(self, ref: bytes, request: Request, target: bytes) -> None:
        """Begin with a request whose agent has no route; that of a host `<port>.<agent>.<domain>` is for a named port."""
        port, _, agent = ref.partition(b".")
        route = self._plane.routes.find(agent) if self._ref is not None else None
        if route is not None and port in route.ports:
            self._visit(request, route, port, target, b"")
        else:
            unknown = replies.not_found(ref.decode("latin-1")) if self._plane.routes.complete else replies.NOT_YET
            self._say(unknown, request)

    def _visit(self, request: Request, route: Route, port: bytes, path: bytes, prefix: bytes) -> None:
        delivery = Visit(self._plane, self, request, route, port=port, path=path, prefix=prefix)
        self._delivery = delivery
        self.run(delivery.run)

    def _dispatch_other(self, request: Request, target: bytes) -> None:
        """Begin with a request that is not for an agent: for a model, or the control API."""
        if not target.startswith(_MODELS):
            passage = Passage(self._plane, self, request)
            self._delivery = passage
            self.run(passage.run)
        elif verdict := self._plane.options.judge(request.host, request.origin):
            self._refuse_stranger(verdict, request)
        else:
            exchange = ModelExchange(self._plane, self, request)
            self._delivery = exchange
            self.run(exchange.run)

    def _refuse_stranger(self, verdict: Verdict, request: Request) -> None:
        strange_host = verdict is Verdict.STRANGE_HOST
        self._say(replies.HOST_NOT_ALLOWED if strange_host else replies.ORIGIN_NOT_ALLOWED, request)

    def _locate(self, request: Request, target: bytes) -> tuple[bytes | None, bytes, bytes]:
        """Return (agent, path at the agent, prefix), (None, ...) for the control API. Raw bytes; nothing is decoded."""
        if request.host != self._host:
            self._host = request.host
            self._ref = self._ref_of_host()
        if self._ref is not None:
            return self._ref, target, b""
        if not target.startswith(_AGENT):
            return None, target, b""
        end = target.find(b"/", 7)
        question = target.find(b"?", 7)
        if end < 0 or 0 <= question < end:
            end = question if question >= 0 else len(target)
            return target[7:end], b"/" + target[end:], target[:end]
        return target[7:end], target[end:], target[:end]

    def _ref_of_host(self) -> bytes | None:
        """Return the agent that the host `<ref>.<domain>` names, or None."""
        host = self._host
        if host is None:
            return None
        name = host.rpartition(b":")[0] if host[-1:].isdigit() and b":" in host else host
        name, suffix = name.lower(), self._plane.suffix
        return name[: -len(suffix)] if name.endswith(suffix) else None

    def _say(self, reply: replies.Reply, request: Request) -> None:
        close = not self.can_go_on()
        self.push(replies.encode(reply, new_id(), close=close, head_only=request.method == b"HEAD"))
        self.finish()
