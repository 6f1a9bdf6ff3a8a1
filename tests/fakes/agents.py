"""Agents as raw TCP servers: each test says byte by byte what the agent does, and reads what it was sent."""

import socket
from collections.abc import Callable

import gevent
from gevent.server import StreamServer

Script = Callable[[socket.socket, bytes], None]


def answer(body: bytes = b"ok", *, status: bytes = b"200 OK", fields: bytes = b"") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n%b\r\n%b" % (status, len(body), fields, body)


class RawAgent:
    """Reads one whole request at a time and gives it to `script(connection, request)`.

    `requests` has every request as it came, head and body; `connections` counts how many were opened.
    """

    def __init__(self, script: Script | None = None):
        self.script = script or (lambda connection, request: connection.sendall(answer()))
        self.requests: list[bytes] = []
        self.connections = 0
        self.open: list[socket.socket] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.address = ("127.0.0.1", self._server.server_port)

    def _serve(self, connection, _address):
        self.connections += 1
        self.open.append(connection)
        buffered = b""
        try:
            while True:
                while (end := whole(buffered)) is None:
                    data = connection.recv(65536)
                    if not data:
                        return
                    buffered += data
                request, buffered = buffered[:end], buffered[end:]
                self.requests.append(request)
                self.script(connection, request)
        except OSError:
            pass
        finally:
            connection.close()

    def close(self):
        """Stop listening and reset every connection, as a killed agent does."""
        self._server.stop(timeout=0.1)
        for connection in self.open:
            try:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                connection.close()
            except OSError:
                pass


def whole(data: bytes) -> int | None:
    """Where the first request ends, by the framing that the data plane is expected to use; None: not here yet."""
    head, mark, body = data.partition(b"\r\n\r\n")
    if not mark:
        return None
    lower = head.lower()
    start = len(head) + 4
    if b"transfer-encoding: chunked" in lower:
        end = data.find(b"0\r\n\r\n", start)
        return None if end < 0 else end + 5
    if b"content-length:" in lower:
        length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
        return start + length if len(body) >= length else None
    return start


def body_of(request: bytes) -> bytes:
    """The body, taken out of its framing."""
    head, _, body = request.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    out = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        out += body[: int(size, 16)]
        body = body[int(size, 16) + 2 :]
    return out


def receive_all(connection: socket.socket, limit_s: float = 5.0) -> bytes:
    """Everything until the other side closes (a reset counts)."""
    connection.settimeout(limit_s)
    out = b""
    try:
        while data := connection.recv(65536):
            out += data
    except ConnectionResetError:
        pass
    return out


def pause() -> None:
    """Let the other greenlets run."""
    gevent.sleep(0)
