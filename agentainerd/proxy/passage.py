"""What is not for an agent: passed on to the control API's gateway socket, unrecorded."""

from typing import TYPE_CHECKING

from agentainerd.proxy import heads, replies
from agentainerd.proxy.body import Body
from agentainerd.proxy.delivery import Delivery
from agentainerd.proxy.request import Request
from agentainerd.proxy.target import Target
from agentainerd.proxy.upstream import Failure

if TYPE_CHECKING:
    from agentainerd.proxy.connection import Connection
    from agentainerd.proxy.server import DataPlane

_TIMEOUT_S = 3600.0
"""Builds and waits answer late, and a followed log is silent for as long as its agent is."""


class Passage(Delivery):
    """One request of one client to the control API."""

    __slots__ = ()

    def __init__(self, plane: "DataPlane", connection: "Connection", request: Request) -> None:
        super().__init__(plane, connection, request, b"", _TIMEOUT_S)

    def run(self) -> None:
        """Send it there. Blocks its greenlet. Raises OSError: the client is gone."""
        request, connection = self._request, self._connection
        head = heads.request_head(request, request.target, prefix=b"", connection=connection, request_id=self.id)
        try:
            upstream = self._plane.control.connect()
        except OSError:
            self.say(replies.NO_CONTROL_API)
            return
        self._call(upstream)
        whole = request.done and not request.pieces
        if whole:
            framing = b"Content-Length: 0\r\n\r\n" if request.length == 0 else b"\r\n"
        else:
            if request.expects_continue:
                connection.push(b"HTTP/1.1 100 Continue\r\n\r\n")
            framing = b"Transfer-Encoding: chunked\r\n\r\n"
            if request.length >= 0:
                framing = b"Content-Length: %d\r\n\r\n" % request.length
        try:
            # An idle connection would hold one of the few places that the API has for those who ask.
            upstream.send(head + b"Connection: close\r\n" + framing)
        except OSError:
            self._hang_up()
            self.say(replies.NO_CONTROL_API)
            return
        if not whole:
            body = Body(request, connection.read_more, None)
            body.kept = False
            self._pump(upstream, body.pieces(), request.length)

    def _unanswered(self, failure: Failure, target: Target, *, reused: bool, timed_out: bool) -> None:
        self.say(replies.NO_CONTROL_API)
