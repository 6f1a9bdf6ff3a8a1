"""One request to a named port of an agent: a screen, a notebook. Live only: never queued, never recorded, never repeated.

A named port is closed. What opens it is a token of the agent's in Authorization, or the cookie of a session, which holds for
one port at a host of its own, `<port>.<agent>.<domain>`: there the pages of other agents are another origin. So a browser
that comes by the path is sent to that host, and a page that is not the port's own gets nothing by the cookie, WebSockets
included. The agent sees neither token nor cookie, but the port's own token.
"""

import hashlib
import hmac
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import gevent

from agentainerd import clock
from agentainerd.proxy import browsers, heads, replies
from agentainerd.proxy.body import Body
from agentainerd.proxy.credentials import credentials
from agentainerd.proxy.exchange import MAX_OWN_VIAS
from agentainerd.proxy.http1 import drop_fields
from agentainerd.proxy.port_access import COOKIE, SESSION_S
from agentainerd.proxy.request import Request
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.proxy.upgrade import Switching
from agentainerd.proxy.upstream import Failure, Upstream

if TYPE_CHECKING:
    from agentainerd.proxy.connection import Connection
    from agentainerd.proxy.server import DataPlane

_CONNECT_AGAIN_S: Final = 0.2
_NO_FRAMES: Final = b"Content-Security-Policy: frame-ancestors 'self'\r\n"
_LOOPBACK: Final = (b"127.", b"[::1]", b"localhost")


class Visit(Switching):
    """One request of one client to one named port."""

    __slots__ = ("_name", "_path", "_route")

    def __init__(
        self,
        plane: "DataPlane",
        connection: "Connection",
        request: Request,
        route: Route,
        *,
        port: bytes,
        path: bytes,
        prefix: bytes,
    ) -> None:
        super().__init__(plane, connection, request, prefix, route.request_timeout_s)
        self._route = route
        self._name = port
        self._path = path

    def run(self) -> None:
        """Let it in, and send it on. Blocks its greenlet. Raises OSError: the client is gone."""
        request = self._request
        if request.own_vias >= MAX_OWN_VIAS:
            self.say(replies.LOOP)
        elif self._has_session():
            self._send_on()
        elif request.authorization is not None:
            given = request.authorization
            whole = given[7:].strip() if given[:7].lower() == b"bearer " else given
            refusal, _ = self._judge([whole, *credentials(given)])
            if refusal is None:
                self._send_on()
            else:
                self._refuse(refusal)
        else:
            self._log_in()

    # ---- who it is

    def _has_session(self) -> bool:
        """It shows the cookie of a session, and comes from the port's own page or is a person's way to it."""
        if self._prefix or not browsers.is_own_page(self._request):
            return False
        access, route, now = self._plane.routes.ports, self._route, clock.now()
        for cookie in browsers.cookies(self._request.lines):
            name, _, value = cookie.partition(b"=")
            if name.strip() != COOKIE:
                continue
            by = access.holder(value.strip(), route.agent_id, self._name.decode(), now)
            if by is not None and self._is_good_still(by, now):
                return True
        return False

    def _is_good_still(self, by: bytes, now: float) -> bool:
        if not by or hmac.compare_digest(by, self._route.token_digest):
            return True
        given = self._plane.routes.agent_passes.get(by)
        return given is not None and self._route.whole.name in given.agents and not 0 < given.until <= now

    def _judge(self, words: Iterable[bytes]) -> tuple[replies.Reply | None, bytes]:
        """Return why none of these words opens the port, or None and the digest of the one that does."""
        route, routes = self._route, self._plane.routes
        for word in words:
            digest = hashlib.sha256(word).digest()
            if route.token_digest and hmac.compare_digest(digest, route.token_digest):
                return None, digest
            if digest not in routes.control_token_digests:
                continue
            given = routes.agent_passes.get(digest)
            if given is None:
                routes.on_control_token(self._connection.peer, route.name)
                return replies.CONTROL_TOKEN, b""
            if route.whole.name not in given.agents:
                return self._failed(replies.TOKEN_NOT_FOR_THIS, is_wrong=False), b""
            if given.until and clock.now() >= given.until:
                return self._failed(replies.TOKEN_EXPIRED, is_wrong=False), b""
            routes.on_token_used(given.token_id)
            return None, digest
        return self._failed(replies.NO_SESSION, is_wrong=True), b""

    def _failed(self, reply: replies.Reply, *, is_wrong: bool) -> replies.Reply:
        """Have it noted that this may not pass, and return what its client is told."""
        wait_s = self._plane.routes.on_token_refused(self._connection.peer, self._route.name, is_wrong)
        return replies.too_many_logins(wait_s) if wait_s else reply

    def _refuse(self, reply: replies.Reply) -> None:
        self.say(reply, fields=b"WWW-Authenticate: Bearer\r\n" if reply.status == 401 else b"")

    # ---- how a browser gets in

    def _log_in(self) -> None:
        """Turn a token in the query into a session, at the port's own host, and have the browser forget that address."""
        request = self._request
        given, path = browsers.without_token(self._path)
        if (
            request.method != b"GET"
            or request.upgrade
            or (self._prefix and not (given or browsers.wants_page(request)))
        ):
            self._refuse(self._failed(replies.NO_SESSION, is_wrong=False))
            return
        if self._prefix:
            host = self._own_host()
            self._say_go(host, self._path) if host else self.say(replies.NO_HOST_OF_ITS_OWN)
            return
        if not given:
            self._refuse(self._failed(replies.NO_SESSION, is_wrong=False))
            return
        route, access = self._route, self._plane.routes.ports
        port, now = self._name.decode(), clock.now()
        refusal, by = None, b""
        if not access.redeem(given.decode("latin-1"), route.agent_id, port, now):
            refusal, by = self._judge([given])
        if refusal is not None:
            self._refuse(replies.LOGIN_OVER if refusal is replies.NO_SESSION else refusal)
            return
        value = access.session(route.agent_id, port, by, now)
        secure = b"; Secure" if b"-Proto: https\r" in self._connection.forwarded_fields(request) else b""
        cookie = b"Set-Cookie: %b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b\r\n"
        self._say_go(request.host or b"", path, cookie % (COOKIE, value, int(SESSION_S), secure))

    def _say_go(self, host: bytes, path: bytes, fields: bytes = b"") -> None:
        head = b"HTTP/1.1 303 See Other\r\nLocation: //%b%b\r\nContent-Length: 0\r\nCache-Control: no-store\r\n" % (
            host,
            path,
        )
        close = b"" if self._connection.can_go_on() else b"Connection: close\r\n"
        ours = b"Referrer-Policy: no-referrer\r\nX-Agentainer-Request-ID: %b\r\n%b\r\n" % (self.id.encode(), close)
        self._say(head + fields + ours)

    def _own_host(self) -> bytes:
        """Return the port's own host, as this client can reach it, or b"": `localhost` is another machine for one from afar."""
        host, domain = self._request.host or b"", self._plane.suffix
        name, mark, number = host.rpartition(b":")
        if not mark or not number.isdigit():
            name, number = host, b""
        if domain == b".localhost" and not (name.lower().startswith(_LOOPBACK) or name.lower().endswith(domain)):
            return b""
        tail = b":" + number if number else b""
        return b"%b.%b%b%b" % (self._name, self._route.name.encode(), domain, tail)

    # ---- to the port

    def _send_on(self) -> None:
        request, connection = self._request, self._connection
        upstream = self._reach()
        if upstream is None:
            return
        head = self._head() + b"Authorization: Bearer %b\r\n" % self._token()
        self._call(upstream, may_switch=bool(request.upgrade))
        if request.upgrade:
            head += b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
        else:
            head += b"Connection: close\r\n"
        whole = request.done
        body = b"".join(request.pieces) if whole else b""
        if whole and (body or request.length >= 0 or request.chunked):
            head += b"Content-Length: %d\r\n" % len(body)
        elif not whole:
            if request.expects_continue:
                connection.push(b"HTTP/1.1 100 Continue\r\n\r\n")
            head += (
                b"Content-Length: %d\r\n" % request.length if request.length >= 0 else b"Transfer-Encoding: chunked\r\n"
            )
        try:
            upstream.send(head + b"\r\n" + body)
        except OSError:
            self._hang_up()
            self.say(replies.PORT_CLOSED)
            return
        if not whole:
            rest = Body(request, connection.read_more, None)
            rest.kept = False
            self._pump(upstream, rest.pieces(), request.length)

    def _reach(self) -> Upstream | None:
        """Connect to the port, which may take a moment longer to listen than the agent does; None: it was said why not."""
        route, is_late = self._route, False
        target = route.pick() if route.wait_open(route.hold_timeout_s) is Gate.OPEN else None
        end = time.monotonic() + route.hold_timeout_s
        while target is not None:
            port = target.port(route.ports.get(self._name, 0))
            if port.in_flight >= self._plane.options.max_in_flight:
                self.say(replies.BUSY)
                return None
            try:
                return port.connect()
            except OSError:
                is_late = time.monotonic() >= end
            if is_late:
                self.say(replies.PORT_CLOSED)
                return None
            gevent.sleep(_CONNECT_AGAIN_S)
            if self._connection.has_left():
                raise ConnectionResetError("the client left before its port listened")
            target = route.pick()
        self.say(replies.NOT_RUNNING)
        return None

    def _head(self) -> bytes:
        """Return the head as the port gets it: without what opened it."""
        request = self._request
        others = [cookie for cookie in browsers.cookies(request.lines) if cookie.partition(b"=")[0].strip() != COOKIE]
        drop_fields(request.lines, (b"authorization", b"cookie"))
        if others:
            request.lines.append(b"Cookie: %b\r\n" % b"; ".join(others))
        return heads.request_head(
            request, self._path, prefix=self._prefix, connection=self._connection, request_id=self.id
        )

    def _token(self) -> bytes:
        return self._plane.routes.ports.token(self._route.agent_id, self._name.decode()).encode()

    def _may_pass(self) -> bool:
        upstream = self._upstream
        assert upstream is not None
        if self._request.upgrade:
            return super()._may_pass()
        upstream.answer.lines.append(_NO_FRAMES)
        return True

    def _unanswered(self, failure: Failure, target: Target, *, reused: bool, timed_out: bool) -> None:
        if failure is Failure.GARBAGE:
            self.say(replies.BAD_ANSWER)
        else:
            self.say(replies.TIMED_OUT if timed_out else replies.NO_ANSWER)
