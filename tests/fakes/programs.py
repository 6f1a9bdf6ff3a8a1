"""What runs inside the containers of a FakeEngine: programs in Python instead of images.

A `Program` says what a container does when it starts; its `handler` serves one connection on a raw socket, in a greenlet:

    def rude(connection, run):                       # any bytes, or none: whatever an agent can do wrong
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf")

    def greet(request, run):                         # whole requests and answers: wrap it in `http`
        return Answer(200, b"hello " + request.body)

    Program(rude)        Program(http(greet))        Program(http(echo), ports=(9000,), listens=False)

A program may be changed between two runs of its containers (`program.exits = 1`: the next start dies at once).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gevent import socket
from gevent.event import Event

from tests.fakes.commands import Command, shell


class Connection:
    """One accepted connection of an agent; a paused agent stands still in every call."""

    def __init__(self, sock: socket.socket, thawed: Event) -> None:
        self._sock = sock
        self._thawed = thawed
        self._rest = b""

    def recv(self, size: int) -> bytes:
        """Return what has arrived, at most `size` bytes, or b"" at the end."""
        self._thawed.wait()
        if self._rest:
            data, self._rest = self._rest[:size], self._rest[size:]
        else:
            data = self._sock.recv(size)
        self._thawed.wait()
        return data

    def recv_until(self, mark: bytes) -> bytes:
        """Return all up to and including `mark`; b"" where the peer closed before it."""
        data = b""
        while mark not in data:
            piece = self.recv(65536)
            if not piece:
                return b""
            data += piece
        end = data.index(mark) + len(mark)
        self._rest = data[end:] + self._rest
        return data[:end]

    def recv_exactly(self, size: int) -> bytes:
        """Return `size` bytes, or fewer where the peer closed before."""
        data = b""
        while len(data) < size and (piece := self.recv(size - len(data))):
            data += piece
        return data

    def sendall(self, data: bytes) -> None:
        """Send all of it."""
        self._thawed.wait()
        self._sock.sendall(data)

    def close(self) -> None:
        """Close it in the normal way."""
        self._sock.close()

    def reset(self) -> None:
        """Close it with a reset, as the kernel does when a process dies with data unread."""
        if self._sock.fileno() >= 0:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self._sock.close()


class Run(Protocol):
    """One run of one container, as its program sees it."""

    @property
    def agent_id(self) -> str:
        """The label `agentainer.id` of its container."""

    @property
    def env(self) -> dict[str, str]:
        """Its environment."""

    @property
    def number(self) -> int:
        """1 for the first run of the container, 2 for the next."""

    def say(self, text: str, *, stream: str = "stdout") -> None:
        """Write to its log."""

    def exit(self, code: int) -> None:
        """End the run, as a program that calls exit()."""


@dataclass(frozen=True)
class Request:
    """One whole request as an agent got it; `headers` in order and as they were spelled."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        """Return the values of all fields of this name, joined by ", "; "" where there is none."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Connection, Run], None]
Responder = Callable[[Request, Run], Answer]


def echo(request: Request, run: Run) -> Answer:
    """Answer with the request as JSON: agent_id, run, method, target, headers (list of pairs), body (text)."""
    said = {
        "agent_id": run.agent_id,
        "run": run.number,
        "method": request.method,
        "target": request.target,
        "headers": request.headers,
        "body": request.body.decode("utf-8", "replace"),
    }
    return Answer(200, json.dumps(said).encode() + b"\n", (("Content-Type", "application/json"),))


def http(respond: Responder) -> Handler:
    """Return a handler that reads whole requests (keep-alive, chunked bodies) and sends what `respond` returns."""

    def serve(connection: Connection, run: Run) -> None:
        while (request := read_request(connection)) is not None:
            answer = respond(request, run)
            lines = [f"HTTP/1.1 {answer.status} Status", *(f"{key}: {value}" for key, value in answer.headers)]
            body = b"" if request.method == "HEAD" or answer.status in (204, 304) else answer.body
            if answer.status not in (204, 304):
                lines.append(f"Content-Length: {len(answer.body)}")
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)

    return serve


def read_request(connection: Connection) -> Request | None:
    """Return the next request of a connection, or None where the peer closed it."""
    head = connection.recv_until(b"\r\n\r\n")
    if not head:
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = tuple((key, value.strip()) for key, _, value in (line.partition(":") for line in lines))
    request = Request(method, target, headers, b"")
    if "chunked" in request.header("Transfer-Encoding").lower():
        body = _read_chunks(connection)
    else:
        body = connection.recv_exactly(int(request.header("Content-Length") or 0))
    return Request(method, target, headers, body)


def _read_chunks(connection: Connection) -> bytes:
    body = b""
    while size := int(connection.recv_until(b"\r\n").split(b";")[0] or b"0", 16):
        body += connection.recv_exactly(size)
        connection.recv_until(b"\r\n")
    while connection.recv_until(b"\r\n") not in (b"\r\n", b""):
        pass
    return body


@dataclass
class Program:
    """What the containers of an image do when they start.

    Attributes:
        handler: serves one connection; it ends with the container.
        ports: where it listens; also what the image EXPOSEs, unless `exposed` says otherwise.
        exposed: the image's EXPOSE.
        listens: False: it does not listen until `FakeEngine.listen(agent_id)`.
        exits: it exits at once with this code.
        fails: it can't be started: (exit code as the engine gives it, the engine's words).
        heeds_sigterm: False: it ends only by SIGKILL, after the grace.
        prints: its first lines, on stdout.
        commands_exit: what commands that are run in it exit with.
        command: what commands do that somebody speaks with.
    """

    handler: Handler = field(default_factory=lambda: http(echo))
    ports: tuple[int, ...] = (8000,)
    exposed: tuple[int, ...] | None = None
    listens: bool = True
    exits: int | None = None
    fails: tuple[int, str] | None = None
    heeds_sigterm: bool = True
    prints: tuple[str, ...] = ()
    commands_exit: int = 0
    command: Command = shell
