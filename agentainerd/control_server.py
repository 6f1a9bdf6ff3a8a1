"""The HTTP server of the two Unix sockets: gevent's pywsgi, bounded, quiet, and aware of clients that leave.

pywsgi is not fit for public ports, and does not get near one: what comes over TCP has been parsed, strictly, by the
data plane before it arrives at the gateway socket. Adds to the WSGI environ `agentainer.peer`: (pid, uid, gid), and
`agentainer.left`: a function that returns whether the client closed its side.
"""

import logging
import socket as stdlib_socket
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import gevent
from gevent import socket
from gevent.greenlet import Greenlet
from gevent.pool import Pool
from gevent.pywsgi import Input, WSGIHandler, WSGIServer

from agentainerd import defaults
from agentainerd.listeners import peer_of

log = logging.getLogger(__name__)

Application = Callable[[dict[str, Any], Callable[..., object]], Iterable[bytes]]
PEER = "agentainer.peer"
LEFT = "agentainer.left"


class ControlServer:
    """Serves one WSGI application on one Unix socket.

    `name` is for the log. At most MAX_API_CONNECTIONS connections are open at once; further ones wait in the kernel.
    """

    def __init__(self, name: str, listener: socket.socket, application: Application) -> None:
        self.name = name
        self._pool = Pool(defaults.MAX_API_CONNECTIONS)
        self._server = _Server(listener, application, self._pool)

    def start(self) -> None:
        """Accept from now on. Does not block."""
        self._server.start()

    def stop_accepting(self) -> None:
        """Take no new connections, end the idle ones, and end answers that only watch (a followed log)."""
        self._server.drain()

    def drain(self, timeout_s: float) -> int:
        """Wait until every request is answered, at most `timeout_s`; break off the rest and return how many those were."""
        self._pool.join(timeout=timeout_s)
        left = len(self._pool)
        self._pool.kill(timeout=1.0)
        return left


class _Server(WSGIServer):  # type: ignore[misc]  # gevent is untyped
    """pywsgi's server with the connections it has."""

    def __init__(self, listener: socket.socket, application: Application, pool: Pool) -> None:
        super().__init__(listener, application, spawn=pool, log=None, error_log=log, handler_class=_Handler)
        self.draining = False
        self.handlers: set[_Handler] = set()

    def handle(self, sock: socket.socket, address: object) -> None:
        handler = _Handler(sock, address, self)
        self.handlers.add(handler)
        try:
            handler.handle()
        finally:
            self.handlers.discard(handler)

    def drain(self) -> None:
        self.draining = True
        self.close()
        for handler in list(self.handlers):
            handler.leave()


class _Input(Input):  # type: ignore[misc]
    """A request's body that is not waited for where the client waits for our `100 Continue`."""

    __slots__ = ()

    @property
    def is_consumed(self) -> bool:
        """All of it was read."""
        if self.chunked_input:
            return bool(self.chunk_length == 0)
        return bool(self.position >= (self.content_length or 0))

    @property
    def is_withheld(self) -> bool:
        """The client has not sent it, and will not unless asked to."""
        return self.socket is not None and not self.is_consumed

    def _discard(self) -> None:
        if not self.is_withheld:
            super()._discard()


class _Handler(WSGIHandler):  # type: ignore[misc]
    """One connection."""

    def __init__(self, sock: socket.socket, address: object, server: _Server) -> None:
        super().__init__(sock, address, server)
        self._peer = peer_of(sock)
        self._greenlet: Greenlet = gevent.getcurrent()
        self._idle = True
        self._watcher: Any = None
        self.wsgi_input: Any = None

    def leave(self) -> None:
        """End the connection if it is idle or its answer is a GET's that is streamed; else after this answer."""
        if self._idle and self.socket is not None:
            _shut_down(self.socket)
        elif self._watcher is not None and self.command == "GET":
            self._greenlet.kill(block=False)

    def read_requestline(self) -> str:
        self._idle = True
        if self.server.draining:
            return ""
        self.socket.settimeout(defaults.KEEPALIVE_TIMEOUT_S)
        line: str = super().read_requestline()
        self._idle = False
        return line

    def read_request(self, raw_requestline: str) -> bool:
        well_formed = bool(super().read_request(raw_requestline))
        self.socket.settimeout(None)
        return well_formed

    def get_environ(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environ()
        environ[PEER] = self._peer
        environ[LEFT] = self._has_left
        environ["RAW_URI"] = self.path  # as it came: PATH_INFO has lost which slashes were encoded
        plain = self.wsgi_input
        self.wsgi_input = _Input(plain.rfile, plain.content_length, plain.socket, plain.chunked_input)
        if environ["wsgi.input"] is plain:
            environ["wsgi.input"] = self.wsgi_input
        return environ

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> object:
        # A client whose body was neither asked for nor sent must not have its next bytes taken for a request.
        if self.server.draining or self.wsgi_input.is_withheld:
            headers = [*headers, ("Connection", "close")]
        return super().start_response(status, headers, exc_info)

    def finalize_headers(self) -> None:
        super().finalize_headers()
        if self.command == "HEAD":
            self.response_use_chunked = (
                False  # the header may say so; but no last chunk follows, that the next answer would begin with
            )

    def process_result(self) -> None:
        """Send the answer piece by piece; a client that leaves ends the application where it waits."""
        if hasattr(self.result, "__len__"):
            super().process_result()
            return
        self._watcher = gevent.get_hub().loop.io(self.socket.fileno(), 1)
        self._watch()
        try:
            super().process_result()
        finally:
            self._watcher.close()
            self._watcher = None

    def write(self, data: bytes) -> None:
        super().write(data)
        self._watch()

    def _watch(self) -> None:
        """From now on nothing more can come but the next request, or the end."""
        if self._watcher is not None and not self._watcher.active and self.wsgi_input.is_consumed:
            self._watcher.start(self._look)

    def _look(self) -> None:
        """In the hub: the client sent something, or left."""
        gone = self._peek()
        if gone is None:
            return
        self._watcher.stop()
        if gone:
            self._greenlet.kill(block=False)

    def _has_left(self) -> bool:
        return bool(self.wsgi_input.is_consumed and self._peek())

    def _peek(self) -> bool | None:
        """Return whether the client left; None: it neither left nor sent more."""
        try:
            return not self.socket._sock.recv(1, stdlib_socket.MSG_PEEK | stdlib_socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return True

    def log_request(self) -> None:
        if log.isEnabledFor(logging.DEBUG):
            path = (self.path or "").partition("?")[0] if hasattr(self, "path") else ""
            duration_s = (self.time_finish or time.time()) - self.time_start
            log.debug(
                "control request served",
                extra={
                    "method": getattr(self, "command", ""),
                    "path": path,
                    "status": getattr(self, "code", 0),
                    "duration_s": round(duration_s, 6),
                    "uid": self._peer[1],
                },
            )

    def log_error(self, msg: str, *args: object) -> None:
        # What was sent is not told: a header line that is malformed may hold a token.
        log.warning(
            "control request refused: %s", msg.partition("%")[0].strip(" :").lower(), extra={"uid": self._peer[1]}
        )

    def _log_error(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, gevent.GreenletExit):
            log.error("control request failed", exc_info=(kind, error, trace))


def _shut_down(connection: socket.socket) -> None:
    try:
        connection._sock.shutdown(stdlib_socket.SHUT_RDWR)
    except OSError:
        return  # it is down already
