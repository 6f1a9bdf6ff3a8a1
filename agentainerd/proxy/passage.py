"""What is not for an agent: passed on to the control API's gateway socket, unrecorded."""

from typing import TYPE_CHECKING

from agentainerd.proxy import replies, upstream
from agentainerd.proxy.body import Body
from agentainerd.proxy.exchange import new_id
from agentainerd.proxy.http1 import Fault, Request
from agentainerd.proxy.response import Answer

if TYPE_CHECKING:
    from agentainerd.proxy.server import Connection, DataPlane

_TIMEOUT_S = 3600.0
"""Builds and waits answer late, and a followed log is silent for as long as its agent is."""


class Passage:
    """One request of one client to the control API."""

    __slots__ = ("_connection", "_id", "_plane", "_request")

    def __init__(self, plane: "DataPlane", connection: "Connection", request: Request) -> None:
        self._plane = plane
        self._connection = connection
        self._request = request
        self._id = new_id()

    def run(self) -> None:
        """Pass it there and back. Raises OSError, Fault: the client is gone or sends what is no request."""
        request, connection = self._request, self._connection
        body = Body(request, connection.read_more, None)
        body.kept = False
        head = upstream.request_head(request, request.target, prefix=b"", connection=connection, request_id=self._id)
        call = upstream.Call(self._plane.control, connection.watched, self._plane.sweeper, timeout_s=_TIMEOUT_S)
        answer = Answer(head_only=request.method == b"HEAD")
        try:
            call.open(fresh=not request.done, repeatable=False)
            if request.done and not request.pieces:
                sent = call.send(head, b"", length=request.length if request.length == 0 else -1)
            else:
                if request.expects_continue:
                    connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                call.pump(self._plane.pumps, head, body.pieces(), length=request.length)
                sent = True
            if not sent:
                raise ConnectionRefusedError
            call.read_head(answer, connection.write)
            self._pass(call, answer)
        except (upstream.Silent, ConnectionRefusedError, FileNotFoundError, Fault):
            if not connection.is_up or call.client_error:
                connection.abort()
            else:
                reply = replies.NO_CONTROL_API
                close = not connection.can_go_on(request)
                connection.write(replies.encode(reply, self._id, close=close, head_only=request.method == b"HEAD"))
        except upstream.Broken:
            connection.abort()
        finally:
            call.close()

    def _pass(self, call: upstream.Call, answer: Answer) -> None:
        request, connection = self._request, self._connection
        keep = connection.can_go_on(request)
        head, framing = upstream.answer_head(answer, request, request_id=self._id, prefix=b"", keep=keep, missed=False)
        if answer.done:
            connection.write(call.whole(answer, head, framing)[0])
        else:
            for data in call.stream(answer, head, framing, _ignore):
                connection.write(data)
        if framing is upstream.Framing.CLOSE:
            connection.close_after()


def _ignore(_piece: bytes) -> None:
    """The API's answers are not counted."""
