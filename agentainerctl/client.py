"""HTTP/1.1 to the daemon, over its Unix socket or TCP, with the standard library only (imports are what a CLI waits for).

One connection a request: a kept one could be stale, and a command must not be sent twice. Every failure leaves here as an
AgentainerError with the endpoint in its text. Nothing prints.
"""

import json
import select
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Any
from urllib.parse import quote, urlencode

from agentainerctl import failures
from agentainerctl.endpoints import Endpoint
from agentainerctl.failures import ApiError, StreamBroken
from agentainerctl.fetched import Fetched

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 60.0  # of calls that wait for nothing but Redis and the engine
KEEPALIVE_IDLE_S = 30  # then the kernel asks whether the other side is still there
TICK_INTERVAL_S = 0.1
MAX_LINE_BYTES = 16 * 1024 * 1024  # of a stream
_CHUNK_BYTES = 64 * 1024

Query = Mapping[str, object]
"""Parameters by name: None is left out, a list is sent as several."""


def path_of(*parts: str) -> str:
    """Return the path of `parts`, each one quoted whole."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class ChunkedBody:
    """A binary file for writing, that sends what it gets as chunks of the request's body."""

    def __init__(self, connection: HTTPConnection) -> None:
        self._connection = connection
        self._buffer = bytearray()

    def write(self, data: bytes) -> int:
        """Send `data`, or keep it until there is enough for a chunk."""
        self._buffer += data
        if len(self._buffer) >= _CHUNK_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Send what is kept."""
        if self._buffer:
            self._connection.send(b"%x\r\n%b\r\n" % (len(self._buffer), bytes(self._buffer)))
            self._buffer.clear()

    def finish(self) -> None:
        """Send what is kept, and the last chunk."""
        self.flush()
        self._connection.send(b"0\r\n\r\n")


class Client:
    """Calls of the control API; `endpoint` says where it is."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint

    def get(self, path: str, query: Query | None = None) -> Any:  # noqa: ANN401 - JSON
        """Return the `data` of GET `path`."""
        return self.call("GET", path, query=query).get("data")

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        timeout_s: float | None = READ_TIMEOUT_S,
        tick: Callable[[], None] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send one request and return the whole envelope of its answer.

        Blocks until the answer is there, at most `timeout_s` (None: for ever), and calls `tick` every TICK_INTERVAL_S
        meanwhile. `body` is sent as JSON. `headers`: further ones.

        Raises:
            ApiError: the daemon says no.
            Unavailable: no daemon there, not ours, or the connection broke.
            DeadlineExceeded: no answer within `timeout_s`.
        """
        content = None if body is None else json.dumps(body).encode()
        sent = {**(headers or {}), **({} if content is None else {"Content-Type": "application/json"})}
        connection = self._connect(timeout_s)
        try:
            with _Exchange(self.endpoint, timeout_s):
                with suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # it may answer before it has read all; that says why
                    connection.request(method, _target(path, query), body=content, headers=self._headers(sent))
                if tick:
                    _wait(connection, timeout_s, tick)
                response = connection.getresponse()
                answer = response.read()
            return self._envelope(response.status, answer)
        finally:
            connection.close()

    def fetch(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Fetched:
        """Send one request and return the head of its answer, whose body is read in pieces (not an envelope). Use it in a `with`.

        Raises:
            ApiError: the daemon says no. Unavailable, DeadlineExceeded: as `call`.
        """
        connection = self._connect(timeout_s)
        try:
            with _Exchange(self.endpoint, timeout_s):
                sent = self._headers({"Accept": "*/*", **(headers or {})})
                connection.request(method, _target(path, query), headers=sent)
                response = connection.getresponse()
                answer = response.read() if response.status >= 400 and method != "HEAD" else b"{}"
            if response.status >= 400:
                self._envelope(response.status, answer)
            return Fetched(connection, response, self._pieces(response))
        except BaseException:
            connection.close()
            raise

    def save(self, path: str, write: Callable[[bytes, int], object], query: Query | None = None) -> int:
        """Give the body of GET `path` to `write` in pieces, each with the length of the whole (0: not known); return its length.

        Raises:
            AgentainerError: as `fetch`. StreamBroken: it stopped in the middle.
        """
        with self.fetch("GET", path, query=query) as answer:
            done = 0
            for piece in answer:
                write(piece, answer.length)
                done += len(piece)
            return done

    def stream(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: object = None,
        write: Callable[[ChunkedBody], None] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Send one request and give the lines of its NDJSON answer as they come, without a time limit.

        `write` sends the body through the file that it is given, as chunks; `body` is sent as JSON. Close the iterator
        to leave early.

        Raises:
            ApiError: the daemon says no, or the stream brings an error.
            StreamBroken: the answer stopped in the middle.
        """
        connection = self._connect(None)
        try:
            with _Exchange(self.endpoint, None):
                response = self._send_stream(connection, method, _target(path, query), body=body, write=write)
                if response.status >= 400:
                    answer = response.read()
            if response.status >= 400:
                self._envelope(response.status, answer)
            for line in filter(None, self._lines(response)):  # an empty line is a heartbeat
                entry = self._decode(line)
                if isinstance(entry.get("error"), dict):
                    raise ApiError(0, entry["error"])
                yield entry
        finally:
            connection.close()

    def events(self, path: str, query: Query | None = None) -> Iterator[dict[str, Any]]:
        """Give the data of the server-sent events of GET `path` as they come, without a time limit.

        The daemon writes the data of an event on one line. Close the iterator to leave early.

        Raises:
            ApiError: the daemon says no.
            StreamBroken: the answer stopped in the middle.
        """
        connection = self._connect(None)
        try:
            with _Exchange(self.endpoint, None):
                headers = self._headers({"Accept": "text/event-stream"})
                connection.request("GET", _target(path, query), headers=headers)
                response = connection.getresponse()
                answer = response.read() if response.status >= 400 else b""
            if response.status >= 400:
                self._envelope(response.status, answer)
            data = b""
            for line in self._lines(response):
                if line.startswith(b"data:"):
                    data = line[5:]
                elif not line and data:  # an event that was not ended is none
                    yield self._decode(data)
                    data = b""
        finally:
            connection.close()

    def _send_stream(
        self,
        connection: HTTPConnection,
        method: str,
        target: str,
        *,
        body: object,
        write: Callable[[ChunkedBody], None] | None,
    ) -> HTTPResponse:
        headers = self._headers({"Accept": "application/x-ndjson"})
        if write is None:
            if body is not None:
                headers["Content-Type"] = "application/json"
            connection.request(
                method, target, body=None if body is None else json.dumps(body).encode(), headers=headers
            )
            return connection.getresponse()
        connection.putrequest(method, target, skip_accept_encoding=True)
        for name, value in {**headers, "Content-Type": "application/x-tar", "Transfer-Encoding": "chunked"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        chunks = ChunkedBody(connection)
        try:
            write(chunks)
            chunks.finish()
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has answered without reading all of it; the answer says why
        return connection.getresponse()

    def _lines(self, response: HTTPResponse) -> Iterator[bytes]:
        rest = b""
        while data := self._read_some(response):
            *lines, rest = (rest + data).split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                raise failures.not_agentainerd(self.endpoint)
            yield from lines
        if rest:
            yield rest

    def _pieces(self, response: HTTPResponse) -> Iterator[bytes]:
        """Return the body as it comes. Raises StreamBroken: it stopped in the middle."""
        missing = int(response.headers.get("Content-Length") or 0)
        while piece := self._read_some(response):
            missing -= len(piece)
            yield piece
        if missing > 0:
            raise StreamBroken(f"the connection to agentainerd ({self.endpoint.url}) broke")

    def _read_some(self, response: HTTPResponse) -> bytes:
        """Return what has come, b"" at the end. `readline` would take a broken connection for the end (its `peek` does)."""
        try:
            return response.read1(_CHUNK_BYTES)
        except (HTTPException, OSError) as error:
            raise StreamBroken(f"the connection to agentainerd ({self.endpoint.url}) broke") from error

    def _connect(self, timeout_s: float | None) -> HTTPConnection:
        endpoint = self.endpoint
        connection = HTTPConnection(endpoint.host or "localhost", endpoint.port or 80)
        try:
            if endpoint.socket_path:
                connection.sock = socket.socket(socket.AF_UNIX)
                connection.sock.settimeout(CONNECT_TIMEOUT_S)
                connection.sock.connect(endpoint.socket_path)
            else:
                connection.timeout = CONNECT_TIMEOUT_S
                connection.connect()
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # waits have no other limit
                connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
        except OSError as error:
            connection.close()
            raise failures.unreachable(endpoint, error) from error
        connection.sock.settimeout(timeout_s)
        return connection

    def _headers(self, more: Mapping[str, str]) -> dict[str, str]:
        headers = {"Accept": "application/json", "Connection": "close", "User-Agent": "agentainerctl", **more}
        if self.endpoint.token and not self.endpoint.socket_path:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        return headers

    def _envelope(self, status: int, answer: bytes) -> dict[str, Any]:
        envelope = self._decode(answer)
        if status < 400 and envelope.get("success") is not False:
            return envelope
        error = ApiError(status, envelope)
        raise failures.token_refused(self.endpoint, error) if status == 401 else error

    def _decode(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise failures.not_agentainerd(self.endpoint)
        return value


class _Exchange:
    """Turns what the network does to a request that was sent into our errors."""

    def __init__(self, endpoint: Endpoint, timeout_s: float | None) -> None:
        self._endpoint = endpoint
        self._timeout_s = timeout_s or 0.0

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, TimeoutError):
            raise failures.no_answer(self._endpoint, self._timeout_s) from error
        if isinstance(error, (OSError, IncompleteRead)):  # RemoteDisconnected is an OSError, and an HTTPException too
            raise failures.connection_lost(self._endpoint, error) from error
        if isinstance(error, HTTPException):
            raise failures.not_agentainerd(self._endpoint) from error


def _target(path: str, query: Query | None) -> str:
    pairs: list[tuple[str, str]] = []
    for name, value in (query or {}).items():
        if value is not None:
            pairs += [(name, _text(one)) for one in (value if isinstance(value, list) else [value])]
    return f"{path}?{urlencode(pairs)}" if pairs else path


def _text(value: object) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _wait(connection: HTTPConnection, timeout_s: float | None, tick: Callable[[], None]) -> None:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    while not select.select([connection.sock], [], [], TICK_INTERVAL_S)[0]:
        tick()
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError
