"""The agent's side of an exchange: a connection, the request on it, the answer from it. Knows nothing of journals.

Between `open` and `close` a `Call` owns one connection of its target. It goes back to the pool only after a whole,
clean exchange; in every other case it is closed.
"""

import socket as stdlib_socket
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING

from gevent import socket
from gevent.pool import Pool

from agentainerd import defaults
from agentainerd.proxy.http1 import Fault, Request
from agentainerd.proxy.replies import PHRASES
from agentainerd.proxy.response import Answer
from agentainerd.proxy.target import Target
from agentainerd.proxy.watch import NEVER, Cause, Sweeper, Watched
from agentainerd.proxy.wire import PIECE, receive, send

if TYPE_CHECKING:
    from agentainerd.proxy.server import Connection


class Silent(Exception):
    """The request reached the agent, and the connection ended without an answer."""


class Broken(Exception):
    """The answer broke off."""


class Framing(Enum):
    """How the client learns where the answer ends."""

    NONE = 0
    LENGTH = 1
    CHUNKED = 2
    CLOSE = 3


_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, phrase) for status, phrase in PHRASES.items()}


def request_head(request: Request, path: bytes, *, prefix: bytes, connection: "Connection", request_id: str) -> bytes:
    """Return the head that an agent gets: end-to-end fields as they came, then ours; no framing, no empty line."""
    lines = [request.method, b" ", path, b" HTTP/1.1\r\n"]
    if request.host is None:
        lines.append(b"Host: localhost\r\n")
    lines += request.lines
    lines.append(connection.forwarded_fields(request))
    if request.host is not None:
        lines += (b"X-Forwarded-Host: ", request.host, b"\r\n")
    ident = request_id.encode()
    if prefix:
        lines += (b"X-Forwarded-Prefix: ", prefix, b"\r\n")
    if not request.traced:
        trace = ident.replace(b"-", b"")
        lines += (b"traceparent: 00-", trace, b"-", trace[8:24], b"-01\r\n")
    lines += (b"X-Agentainer-Request-ID: ", ident, b"\r\n")
    return b"".join(lines)


def answer_head(
    answer: Answer, request: Request, *, request_id: str, prefix: bytes, keep: bool, missed: bool
) -> tuple[bytes, Framing]:
    """Return the head that the client gets, and how the body behind it is framed.

    `prefix` confines cookies to the agent's path. `missed`: the journal is away, and the answer says so.
    """
    lines = [_status_line(answer)]
    lines += answer.lines
    for cookie in answer.cookies:
        lines += (b"Set-Cookie: ", confined(cookie, prefix) if prefix else cookie, b"\r\n")
    framing = Framing.NONE
    if not answer.no_body:
        if answer.length >= 0:
            framing = Framing.LENGTH
        elif request.minor == 1:
            framing = Framing.CHUNKED
            lines.append(b"Transfer-Encoding: chunked\r\n")
        else:
            framing, keep = Framing.CLOSE, False
    if answer.length >= 0 and answer.status != 204:
        lines.append(b"Content-Length: %d\r\n" % answer.length)
    if not keep:
        lines.append(b"Connection: close\r\n")
    elif request.minor == 0:
        lines.append(b"Connection: keep-alive\r\n")
    if missed:
        lines.append(b"X-Agentainer-Journal: unavailable\r\n")
    lines += (b"Via: 1.1 agentainer\r\nX-Agentainer-Request-ID: ", request_id.encode(), b"\r\n\r\n")
    return b"".join(lines), framing


def stored_head(answer: Answer) -> bytes:
    """Return the answer's head as the journal keeps it: no framing, no empty line."""
    cookies = [b"Set-Cookie: %b\r\n" % cookie for cookie in answer.cookies]
    return b"".join([_status_line(answer), *answer.lines, *cookies])


def confined(cookie: bytes, prefix: bytes) -> bytes:
    """Return a Set-Cookie value that holds for the agent's path only: all agents and the API share one origin."""
    parts = [part.strip() for part in cookie.split(b";")]
    kept, path = [parts[0]], b""
    for part in parts[1:]:
        name, _, value = part.partition(b"=")
        lower = name.strip().lower()
        if lower == b"path" and value.startswith(b"/"):
            path = value
        elif lower not in (b"path", b"domain"):
            kept.append(part)
    kept.append(b"Path=" + prefix + (path or b"/"))
    return b"; ".join(kept)


def _status_line(answer: Answer) -> bytes:
    line = _STATUS_LINES.get(answer.status)
    if line is None or answer.phrase != PHRASES[answer.status]:
        return b"HTTP/1.1 %d %b\r\n" % (answer.status, answer.phrase)
    return line


class Call:
    """One attempt at one target.

    Attributes:
        reused: the connection was used before.
        client_error: what the client did wrong while its body was on the way: it left (OSError), or sent no HTTP (Fault).
    """

    __slots__ = (
        "_connection",
        "_pump",
        "_reusable",
        "_sweeper",
        "_target",
        "_timeout_s",
        "_watched",
        "client_error",
        "reused",
    )

    def __init__(self, target: Target, watched: Watched, sweeper: Sweeper, *, timeout_s: float) -> None:
        self._target = target
        self._watched = watched
        self._sweeper = sweeper
        self._timeout_s = timeout_s
        self._connection: socket.socket | None = None
        self._pump: object = None
        self._reusable = False
        self.reused = False
        self.client_error: OSError | Fault | None = None

    def open(self, *, fresh: bool, repeatable: bool) -> None:
        """Get a connection: a pooled one, unless `fresh`.

        Raises:
            OSError: the agent can't be connected.
        """
        pooled = None if fresh else self._target.take(repeatable=repeatable)
        self.reused = pooled is not None
        self._connection = self._watched.upstream = pooled or self._target.connect()

    def close(self) -> None:
        """End the call: the connection goes back to the pool after a clean exchange, else it is closed."""
        if self._pump is not None:
            self._pump.kill()  # type: ignore[attr-defined]
        connection, self._connection, self._watched.upstream = self._connection, None, None
        if connection is not None:
            if self._reusable:
                self._target.put(connection)
            else:
                connection.close()

    # ---- the request

    def send(self, head: bytes, body: bytes, *, length: int) -> bool:
        """Send a request that is here whole; `length` -1: it has no body and says so by having no framing.

        Returns False where not one byte can have reached the agent. A pooled connection that turns out to be dead is
        replaced once.
        """
        framing = b"Content-Length: %d\r\n\r\n" % length if length >= 0 else b"\r\n"
        data = head + framing + body if body else head + framing
        try:
            self._write(data)
        except OSError:
            if not self.reused or self._watched.cause is not Cause.NONE:
                return False
            self._drop_connection()
            try:
                self.open(fresh=True, repeatable=False)
                self._write(data)
            except OSError:
                return False
        return True

    def pump(self, pool: Pool, head: bytes, pieces: Iterator[bytes], *, length: int) -> None:
        """Send the head now and the body beside the answer, piece by piece, as it comes; `length` -1: chunked.

        Raises:
            OSError: the agent is gone.
        """
        framing = b"Content-Length: %d\r\n\r\n" % length if length >= 0 else b"Transfer-Encoding: chunked\r\n\r\n"
        self._write(head + framing)
        self._pump = pool.spawn(self._pump_body, pieces, length < 0)

    def _pump_body(self, pieces: Iterator[bytes], chunked: bool) -> None:
        connection = self._connection
        while True:
            try:
                piece = next(pieces, None)
            except (OSError, Fault) as error:
                self.client_error = error
                self._shut()
                return
            try:
                if piece is None:
                    if chunked:
                        send(connection, b"0\r\n\r\n")
                    self._watched.waits_for_agent = self._watched.client is not None
                    return
                send(connection, b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            except OSError:
                return  # the agent takes no more: its answer, or its end, is read by the other greenlet
            self._watched.deadline = self._sweeper.now + self._timeout_s

    def _write(self, data: bytes) -> None:
        watched = self._watched
        watched.deadline, watched.overdue = self._sweeper.now + self._timeout_s, Cause.TIMEOUT
        send(self._connection, data)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = self._watched.upstream = None

    def _shut(self) -> None:
        connection = self._connection
        if connection is not None:
            try:
                connection._sock.shutdown(stdlib_socket.SHUT_RDWR)
            except OSError:
                return  # down already

    def raw(self) -> socket.socket:
        """Return the connection, for a tunnel; it still belongs to this call."""
        assert self._connection is not None
        return self._connection

    # ---- the answer

    def read_head(self, answer: Answer, on_interim: Callable[[bytes], None]) -> None:
        """Block until the head of the final answer is there; interim ones go to `on_interim`.

        Raises:
            Silent, OSError: the connection ended first.
            Fault: what came is no answer that can be passed on.
        """
        size = interims = 0
        while not answer.status:
            data = self._receive(waits_for_agent=self._pump is None)
            if not data:
                raise Silent
            answer.feed(data)
            for interim in answer.interim:
                on_interim(interim)
            interims += len(answer.interim)
            answer.interim.clear()
            size += len(data)
            if interims > defaults.MAX_INTERIM_RESPONSES or (
                size > defaults.MAX_HEAD_BYTES + PIECE and not answer.status
            ):
                raise Fault(502, "the head of the agent's answer is too large")
        answer.read_fields()

    def whole(self, answer: Answer, head: bytes, framing: Framing) -> tuple[bytes, bytes]:
        """Return an answer that is here whole, as the client gets it, and its body alone."""
        pieces = answer.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._finish(answer)
        if framing is Framing.CHUNKED:
            return head + (b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"), body
        return head + body if body else head, body

    def stream(self, answer: Answer, head: bytes, framing: Framing, note: Callable[[bytes], None]) -> Iterator[bytes]:
        """Return an answer piece by piece, as the client gets it; `note` is told of each piece of the body.

        Raises:
            Broken, OSError: the answer broke off.
        """
        first = b"".join(answer.pieces)
        answer.pieces.clear()
        if first:
            note(first)
        yield head + (_chunk(first) if framing is Framing.CHUNKED else first)
        pieces = self._counted(answer, len(first)) if answer.length >= 0 else self._parsed(answer)
        for piece in pieces:
            note(piece)
            yield _chunk(piece) if framing is Framing.CHUNKED else piece
        self._finish(answer)
        if framing is Framing.CHUNKED:
            yield b"0\r\n\r\n"

    def _counted(self, answer: Answer, got: int) -> Iterator[bytes]:
        """Read a body of known length, past the parser: there is nothing in it to parse."""
        left = answer.length - got
        while left > 0:
            data = self._next()
            if len(data) > left:
                data, answer.overrun = data[:left], True
            left -= len(data)
            yield data
        answer.done = True

    def _parsed(self, answer: Answer) -> Iterator[bytes]:
        while not answer.done:
            data = self._receive(waits_for_agent=True)
            if not data:
                self._confirm_end(answer)
                return
            try:
                answer.feed(data)
            except Fault as fault:
                raise Broken(fault.reason) from fault
            if answer.pieces:
                yield b"".join(answer.pieces)
                answer.pieces.clear()

    def _next(self) -> bytes:
        data = self._receive(waits_for_agent=True)
        if not data:
            raise Broken("the agent closed the connection in the middle of its answer")
        return data

    def _confirm_end(self, answer: Answer) -> None:
        """Tell an answer that ends with its connection from one whose agent died: does it still listen?"""
        if answer.chunked or self._watched.cause is not Cause.NONE:
            raise Broken("the agent closed the connection in the middle of its answer")
        try:
            self._target.connect().close()
        except OSError as error:
            raise Broken("the agent died in the middle of its answer") from error
        answer.done = True
        answer.keep_alive = False

    def _finish(self, answer: Answer) -> None:
        pumped = self._pump is None or self._pump.ready()  # type: ignore[attr-defined]
        self._reusable = answer.done and answer.keep_alive and not answer.overrun and pumped
        if not answer.no_body and answer.length < 0 and not answer.chunked:
            self._reusable = False
        self._watched.deadline = NEVER
        self._watched.waits_for_agent = False
        self._watched.upstream = None

    def _receive(self, *, waits_for_agent: bool) -> bytes:
        watched = self._watched
        watched.deadline, watched.overdue = self._sweeper.now + self._timeout_s, Cause.TIMEOUT
        watched.waits_for_agent = waits_for_agent
        data = receive(self._connection)
        watched.waits_for_agent = False
        return data


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
