"""The data plane: accepts connections, frames requests, and sends each to its agent, or to the control API.

All it knows is a route table and a journal. One greenlet a connection, from a bounded pool; a body that is still on its
way has a second one. What would be a timer is a deadline that the sweeper keeps (watch.py).
"""

import logging
import socket as stdlib_socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import gevent
from gevent import socket
from gevent.pool import Pool
from gevent.server import StreamServer

from agentainerd import defaults
from agentainerd.proxy import replies
from agentainerd.proxy.exchange import Exchange, new_id
from agentainerd.proxy.http1 import Fault, Request, RequestReader
from agentainerd.proxy.journal import Journal
from agentainerd.proxy.passage import Passage
from agentainerd.proxy.routing import Route, RouteTable
from agentainerd.proxy.target import Target
from agentainerd.proxy.upgrade import Tunnel
from agentainerd.proxy.watch import NEVER, Cause, Sweeper, Watched
from agentainerd.proxy.wire import receive, send

log = logging.getLogger(__name__)
_AGENT = b"/agent/"
_LINGER_S = 2.0
_LINGER_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ProxyOptions:
    """What the data plane is told; `domain`: `<ref>.<domain>` is an agent at its root.

    `trusted_proxies`: addresses whose X-Forwarded-* are believed. `reject_without_journal`: refuse instead of going on
    with `X-Agentainer-Journal: unavailable`. `max_age_s`: how long a queued request may wait.
    """

    domain: str = "localhost"
    trusted_proxies: frozenset[str] = frozenset()
    reject_without_journal: bool = False
    max_age_s: float = defaults.MAX_AGE_S
    max_connections: int = defaults.MAX_CONNECTIONS


class DataPlane:
    """Listeners, connections and what they share.

    Attributes:
        routes, journal, options: as given; `options` may be replaced at any time.
        sweeper: deadlines of all waits; pumps: greenlets for bodies on their way.
        ticket: the capability for a request's id.
    """

    def __init__(
        self,
        routes: RouteTable,
        journal: Journal,
        options: ProxyOptions,
        *,
        gateway_socket: str,
        ticket: Callable[[str], str],
    ) -> None:
        self.routes = routes
        self.journal = journal
        self.options = options
        self.ticket = ticket
        self.sweeper = Sweeper()
        self.connections = Pool(options.max_connections)
        self.pumps = Pool(options.max_connections)
        self.draining = False
        self.control = Target(gateway_socket)
        self._servers: list[StreamServer] = []
        self._sweeping = gevent.Greenlet(self.sweeper.run)

    def serve(self, listener: socket.socket) -> None:
        """Accept on a bound and listening TCP socket, from now on. Does not block."""
        if not self._sweeping.started:
            self._sweeping.start()
        server = StreamServer(listener, self._serve_connection, spawn=self.connections)
        server.start()
        self._servers.append(server)

    def stop_accepting(self) -> None:
        """Take no more connections, and no more requests on the idle ones."""
        self.draining = True
        for server in self._servers:
            server.close()
        self._servers.clear()
        for watched in self.sweeper.all():
            if watched.overdue is Cause.IDLE:
                watched.end(Cause.IDLE)

    def drain(self, timeout_s: float) -> int:
        """Wait until every exchange is over, at most `timeout_s`; break off the rest and return how many those were."""
        self.connections.join(timeout=timeout_s)
        left = self.sweeper.all()
        for watched in left:
            watched.end(Cause.STOPPED)
        self.connections.join(timeout=1.0)
        self.connections.kill(timeout=1.0)
        self.pumps.kill(timeout=1.0)
        self._sweeping.kill()
        self.control.drop_idle()
        return len(left)

    def _serve_connection(self, client: socket.socket, address: tuple[str, int]) -> None:
        connection = Connection(self, client, address[0])
        self.sweeper.add(connection.watched)
        try:
            connection.serve()
        except OSError:
            log.debug("client left", extra={"client": connection.peer})
        except Exception:
            log.exception("connection failed", extra={"client": connection.peer})
        finally:
            self.sweeper.remove(connection.watched)


class Connection:
    """One client connection: its requests, one after the other.

    Attributes:
        peer: the client's address.
        watched: what it waits for, for the sweeper.
    """

    __slots__ = ("_closing", "_forwarded", "_plane", "_reader", "_socket", "peer", "watched")

    def __init__(self, plane: DataPlane, client: socket.socket, peer: str) -> None:
        client.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        self._plane = plane
        self._socket = client
        self._reader = RequestReader()
        self._closing = False
        self._forwarded = b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: http\r\nVia: 1.1 agentainer\r\n" % peer.encode()
        self.peer = peer
        self.watched = Watched(client)

    @property
    def is_up(self) -> bool:
        """Nothing has ended it from outside."""
        return self.watched.cause is Cause.NONE

    def serve(self) -> None:
        """Serve requests until the client or we have enough."""
        while not self._closing:
            request = self._next_request()
            if request is None:
                break
            if request.fault:
                self._reject(request.fault)
                return
            try:
                self._dispatch(request)
            except Fault as fault:
                self._reject(fault)
                return
            if not self.can_go_on(request):
                self._linger()
                return
        if not self._closing:
            self._end()

    def can_go_on(self, request: Request) -> bool:
        """Another request may follow this one: its body was read, and both sides want to keep the connection."""
        return request.keep_alive and request.done and not self._plane.draining and not self._closing

    def close_after(self) -> None:
        """The end of the connection is the end of the answer."""
        self._closing = True

    def abort(self) -> None:
        """Break the connection off, so that the client sees that its answer is not whole."""
        self._closing = True
        linger = b"\x01\0\0\0\0\0\0\0"  # struct linger {on, 0 s}: closing sends a reset
        try:
            self._socket.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, linger)
        except OSError:
            return  # gone already

    def write(self, data: bytes) -> None:
        """Send to the client, at its pace.

        Raises:
            OSError: it is gone, or has not read for WRITE_STALL_TIMEOUT_S.
        """
        watched = self.watched
        watched.deadline, watched.overdue = self._plane.sweeper.now + defaults.WRITE_STALL_TIMEOUT_S, Cause.STALLED
        send(self._socket, data)
        watched.deadline = NEVER

    def read_more(self) -> None:
        """Read a further piece of the request under way.

        Raises:
            OSError: the client went away.
            Fault: it sends nothing for too long, or what is no HTTP.
        """
        reader, watched = self._reader, self.watched
        watched.deadline, watched.overdue = self._plane.sweeper.now + defaults.BODY_IDLE_TIMEOUT_S, Cause.SLOW_BODY
        data = receive(self._socket)
        watched.deadline = NEVER
        if not data:
            if watched.cause is Cause.SLOW_BODY:
                raise Fault(408, "the body came too slowly")
            raise ConnectionResetError("the client left in the middle of its request")
        reader.feed(data)
        if reader.broken:
            raise reader.broken

    def forwarded_fields(self, request: Request) -> bytes:
        """Return the lines that tell the agent who asked; a trusted proxy's own are continued."""
        if not request.forwarded or self.peer not in self._plane.options.trusted_proxies:
            return self._forwarded
        came = dict(request.forwarded)
        chain = came.get(b"x-forwarded-for", b"")
        return b"X-Forwarded-For: %b%b\r\nX-Forwarded-Proto: %b\r\nVia: 1.1 agentainer\r\n" % (
            chain + b", " if chain else b"",
            self.peer.encode(),
            came.get(b"x-forwarded-proto", b"http"),
        )

    def tunnel(self) -> tuple[socket.socket, bytes]:
        """Hand the raw socket over, with the bytes that came behind the head of an upgrade."""
        self._closing = True
        return self._socket, self._reader.rest

    def _next_request(self) -> Request | None:
        """Return the next request whose head is whole; None: there will be none."""
        reader, watched, sweeper = self._reader, self.watched, self._plane.sweeper
        while not reader.requests:
            if reader.broken:
                self._reject(reader.broken)
                return None
            if self._plane.draining:
                return None
            if reader.idle:
                watched.deadline, watched.overdue = sweeper.now + defaults.KEEPALIVE_TIMEOUT_S, Cause.IDLE
            elif watched.overdue is not Cause.SLOW_HEAD:
                watched.deadline, watched.overdue = sweeper.now + defaults.HEAD_TIMEOUT_S, Cause.SLOW_HEAD
            data = receive(self._socket)
            if not data:
                if watched.cause is Cause.SLOW_HEAD:
                    self._reject(Fault(408, "the head of the request came too slowly"))
                return None
            reader.feed(data)
        watched.deadline, watched.overdue = NEVER, Cause.NONE
        request = reader.requests.popleft()
        if reader.broken and not request.done and not request.fault:
            request.fault = reader.broken
        return request

    def _dispatch(self, request: Request) -> None:
        if request.method == b"CONNECT":
            self._say(replies.METHOD_NOT_ALLOWED, request)
            return
        self._strip_authority(request)
        ref, path, prefix = self._locate(request)
        if ref is None:
            Passage(self._plane, self, request).run()
            return
        route = self._plane.routes.find(ref)
        if route is None:
            unknown = replies.not_found(ref.decode("latin-1")) if self._plane.routes.complete else replies.NOT_YET
            self._say(unknown, request)
        elif request.upgrade and request.upgrade.lower() != b"h2c":
            Tunnel(self._plane, self, request, route, path=path, prefix=prefix).run()
        else:
            self._exchange(request, route, path, prefix)

    def _exchange(self, request: Request, route: Route, path: bytes, prefix: bytes) -> None:
        started = time.monotonic() if log.isEnabledFor(logging.DEBUG) else 0.0
        exchange = Exchange(self._plane, self, request, route, path=path, prefix=prefix)
        exchange.run()
        if started:
            log.debug(
                "request served",
                extra={
                    "request_id": exchange.id,
                    "agent_id": route.agent_id,
                    "method": request.method.decode(),
                    "duration_s": round(time.monotonic() - started, 6),
                },
            )

    def _strip_authority(self, request: Request) -> None:
        """Take an absolute target apart; its host must be the one in Host (RFC 9112 3.2.2)."""
        target = request.target
        if target.startswith(b"/") or (target == b"*" and request.method == b"OPTIONS"):
            return
        scheme, mark, rest = target.partition(b"://")
        authority, slash, path = rest.partition(b"/")
        query = b""
        if not slash and b"?" in authority:
            authority, _, query = authority.partition(b"?")
            query = b"?" + query
        if not mark or scheme.lower() != b"http" or (request.host is not None and authority != request.host):
            raise Fault(400, "the target is neither a path nor an address of this host")
        request.target = b"/" + path + query

    def _locate(self, request: Request) -> tuple[bytes | None, bytes, bytes]:
        """Return (agent, path at the agent, prefix), (None, ...) for the control API. Raw bytes; nothing is decoded."""
        target, host = request.target, request.host
        if host is not None:
            name = host.rpartition(b":")[0] if host[-1:].isdigit() and b":" in host else host
            suffix = b"." + self._plane.options.domain.encode()
            if name.endswith(suffix):
                return name[: -len(suffix)].lower(), target, b""
        if not target.startswith(_AGENT):
            return None, target, b""
        end = target.find(b"/", len(_AGENT))
        question = target.find(b"?", len(_AGENT))
        if end < 0 or 0 <= question < end:
            end = question if question >= 0 else len(target)
            return target[len(_AGENT) : end], b"/" + target[end:], target[:end]
        return target[len(_AGENT) : end], target[end:], target[:end]

    def _say(self, reply: replies.Reply, request: Request) -> None:
        close = not self.can_go_on(request)
        self.write(replies.encode(reply, new_id(), close=close, head_only=request.method == b"HEAD"))

    def _reject(self, fault: Fault) -> None:
        """Say what is wrong with the request, and take nothing more from this connection."""
        self.write(replies.encode(replies.malformed(fault.status, fault.reason), new_id(), close=True))
        self._linger()

    def _linger(self) -> None:
        """Let the client read the answer before its unread bytes make the kernel reset the connection (RFC 9112 9.6)."""
        self._closing = True
        if self.watched.cause in (Cause.STALLED, Cause.STOPPED, Cause.CLIENT_LEFT):
            return
        try:
            self._socket.shutdown(stdlib_socket.SHUT_WR)
            self.watched.deadline, self.watched.overdue = self._plane.sweeper.now + _LINGER_S, Cause.STALLED
            left = _LINGER_BYTES
            while left > 0 and (data := receive(self._socket)):
                left -= len(data)
        except OSError:
            return

    def _end(self) -> None:
        self._closing = True
