"""Upgrades (WebSocket and others): after 101 both sides are one raw tunnel. Never queued, never recorded."""

import socket as stdlib_socket
from typing import TYPE_CHECKING

from agentainerd import clock
from agentainerd.proxy import replies
from agentainerd.proxy.delivery import Delivery
from agentainerd.proxy.exchange import Exchange
from agentainerd.proxy.request import Request
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.proxy.upstream import Failure
from agentainerd.proxy.watch import NEVER
from agentainerd.proxy.wire import Stream

if TYPE_CHECKING:
    from agentainerd.proxy.connection import Connection
    from agentainerd.proxy.server import DataPlane


class Switching(Delivery):
    """A request whose answer may be a switch to another protocol."""

    __slots__ = ()

    def _may_pass(self) -> bool:
        """An agent that did not switch has its answer passed on, and the connection ends."""
        upstream = self._upstream
        assert upstream is not None
        if upstream.answer.switched:
            upstream.pause()
            self._connection.run(self._open)
            return False
        self._connection.close_after()
        return True

    def _note_switch(self) -> None:
        """The agent switched."""

    def _open(self) -> None:
        """The agent switched: from now on bytes are copied both ways until both have ended."""
        upstream, connection = self._upstream, self._connection
        assert upstream is not None
        answer = upstream.answer
        client, early = connection.detach()
        connection.deadline = NEVER
        lines = [b"HTTP/1.1 101 Switching Protocols\r\n", *answer.lines, b"Connection: Upgrade\r\n"]
        upgrade = answer.value(b"upgrade")
        if upgrade is not None:
            lines.append(b"Upgrade: %b\r\n" % upgrade)
        lines.append(b"X-Agentainer-Request-ID: %b\r\n\r\n" % self.id.encode())
        agent = upstream.detach()
        back = None
        self._note_switch()
        try:
            client.write(b"".join(lines) + answer.rest)
            if early:
                agent.write(early)
            back = self._plane.pumps.spawn(_copy, client, agent)
            _copy(agent, client)
            back.join()
        finally:
            if back is not None:
                back.kill()
            self._hang_up()
            connection.finish()


class Tunnel(Switching):
    """One upgrade of one client at one agent."""

    __slots__ = ("_exchange", "_route")

    def __init__(
        self,
        plane: "DataPlane",
        connection: "Connection",
        request: Request,
        route: Route,
        *,
        path: bytes,
        prefix: bytes,
    ) -> None:
        super().__init__(plane, connection, request, prefix, route.request_timeout_s)
        self._route = route
        self._exchange = Exchange(plane, connection, request, route, path=path, prefix=prefix)
        self.id = self._exchange.id

    def run(self) -> None:
        """Ask the agent to switch. Blocks its greenlet. Raises OSError: the client is gone."""
        request, route = self._request, self._route
        refusal = self._exchange.refusal()
        if refusal:
            self.say(refusal)
            return
        target = route.pick() if route.wait_open(route.hold_timeout_s) is Gate.OPEN else None
        if target is None or not request.done:
            self.say(replies.CANNOT_QUEUE)
            return
        fields = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
        if request.length >= 0:
            fields += b"Content-Length: %d\r\n" % request.length
        head = b"".join([self._exchange.head, fields, b"\r\n", *request.pieces])
        tried: list[Target] = []
        while target is not None and not self._reach(target, head):
            self._plane.routes.on_suspect(route, target)
            tried.append(target)
            target = route.pick_but(tried)
        if target is None:
            self.say(replies.CANNOT_QUEUE)

    def say(self, reply: replies.Reply, *, fields: bytes = b"") -> None:
        """Give an answer of our own, and end."""
        self._route.tally.replied(reply.status, reached=reply.is_reached)
        super().say(reply, fields=fields)

    def _succeed(self) -> None:
        self._route.tally.answered(self._status, clock.now() - self._exchange.received_at)

    def _reach(self, target: Target, head: bytes) -> bool:
        try:
            upstream = target.connect()
        except OSError:
            return False
        self._call(upstream, may_switch=True)
        try:
            upstream.send(head)
        except OSError:
            self._hang_up()
            return False
        return True

    def _unanswered(self, failure: Failure, target: Target, *, reused: bool, timed_out: bool) -> None:
        self.say(replies.BAD_ANSWER if failure is Failure.GARBAGE else replies.CANNOT_QUEUE)

    def _note_switch(self) -> None:
        self._route.tally.upgraded += 1


def _copy(source: Stream, sink: Stream) -> None:
    """Copy until the source ends, then end the sink's side; if either breaks, break both."""
    try:
        while data := source.read():
            sink.write(data)
        sink.shut(stdlib_socket.SHUT_WR)
    except OSError:
        for broken in (source, sink):
            broken.shut(stdlib_socket.SHUT_RDWR)
