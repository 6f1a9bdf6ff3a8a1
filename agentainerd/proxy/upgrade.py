"""Upgrades (WebSocket and others): after 101 both sides are one raw tunnel. Never queued, never recorded."""

import contextlib
import socket as stdlib_socket
from typing import TYPE_CHECKING

from gevent import socket

from agentainerd.proxy import replies, upstream
from agentainerd.proxy.exchange import Exchange
from agentainerd.proxy.http1 import Fault, Request
from agentainerd.proxy.response import Answer
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.watch import NEVER
from agentainerd.proxy.wire import receive, send

if TYPE_CHECKING:
    from agentainerd.proxy.server import Connection, DataPlane


class Tunnel:
    """One upgrade of one client at one agent."""

    __slots__ = ("_connection", "_exchange", "_path", "_plane", "_prefix", "_request", "_route")

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
        self._plane = plane
        self._connection = connection
        self._request = request
        self._route = route
        self._prefix = prefix
        self._path = path
        self._exchange = Exchange(plane, connection, request, route, path=path, prefix=prefix)

    def run(self) -> None:
        """Ask the agent to switch; tunnel if it does, pass its answer on if not."""
        request, route, exchange = self._request, self._route, self._exchange
        refusal = exchange.refusal()
        if refusal:
            exchange.say(refusal)
            return
        target = route.pick() if route.wait_open(route.hold_timeout_s) is Gate.OPEN else None
        if target is None or not request.done:
            exchange.say(replies.CANNOT_QUEUE)
            return
        call = upstream.Call(target, self._connection.watched, self._plane.sweeper, timeout_s=route.request_timeout_s)
        target.in_flight += 1
        try:
            self._converse(call)
        finally:
            target.in_flight -= 1
            call.close()

    def _converse(self, call: upstream.Call) -> None:
        request, exchange = self._request, self._exchange
        fields = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % request.upgrade
        answer = Answer(may_switch=True)
        try:
            call.open(fresh=True, repeatable=False)
            head = exchange.head + fields
            if not call.send(head, b"".join(request.pieces), length=request.length):
                raise ConnectionResetError
            call.read_head(answer, self._connection.write)
        except (upstream.Silent, OSError):
            if self._connection.is_up:
                exchange.say(replies.CANNOT_QUEUE)
            return
        except Fault:
            exchange.say(replies.BAD_ANSWER)
            return
        if not answer.switched:
            self._pass(call, answer)
            return
        client, early = self._connection.tunnel()
        lines = [b"HTTP/1.1 101 Switching Protocols\r\n", *answer.lines, b"Connection: Upgrade\r\n"]
        lines += [b"%b: %b\r\n" % field for field in answer.headers if field[0].lower() == b"upgrade"]
        lines.append(b"X-Agentainer-Request-ID: %b\r\n\r\n" % exchange.id.encode())
        self._connection.write(b"".join(lines) + answer.rest)
        agent = call.raw()
        self._splice(client, agent, early)

    def _pass(self, call: upstream.Call, answer: Answer) -> None:
        """The agent did not switch: its answer is passed on, and the connection ends."""
        head, framing = upstream.answer_head(
            answer, self._request, request_id=self._exchange.id, prefix=self._prefix, keep=False, missed=False
        )
        self._connection.close_after()
        if answer.done:
            self._connection.write(call.whole(answer, head, framing)[0])
            return
        try:
            for data in call.stream(answer, head, framing, lambda _piece: None):
                self._connection.write(data)
        except upstream.Broken:
            self._connection.abort()

    def _splice(self, client: socket.socket, agent: socket.socket, early: bytes) -> None:
        """Copy both ways until both have ended; each end is passed on as such."""
        watched = self._connection.watched
        watched.deadline, watched.waits_for_agent = NEVER, False
        if early:
            send(agent, early)
        back = self._plane.pumps.spawn(_copy, client, agent)
        try:
            _copy(agent, client)
            back.join()
        finally:
            back.kill()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copy until the source ends, then end the sink's side; if either breaks, break both."""
    try:
        while data := receive(source):
            send(sink, data)
        sink._sock.shutdown(stdlib_socket.SHUT_WR)
    except OSError:
        for broken in (source, sink):
            with contextlib.suppress(OSError):
                broken._sock.shutdown(stdlib_socket.SHUT_RDWR)
