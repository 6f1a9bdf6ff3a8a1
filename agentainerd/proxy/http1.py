"""Requests in HTTP/1.1: what httptools (llhttp, strict) parses, plus the checks that it leaves out. No sockets, no clock.

A reader gets bytes as they come (`feed`) and keeps messages; it never looks back and never raises: what is wrong with
a message is in its `fault`. Heads are rebuilt from the parsed fields, never copied, so nothing ambiguous is passed on.
"""

from collections import deque

import httptools

from agentainerd import defaults
from agentainerd.proxy.fields import (
    ACCEPT,
    AUTHORIZATION,
    CODING,
    CONNECTION,
    DROP,
    EXPECT,
    FORWARDED,
    HOST,
    KEEP_ALIVE,
    KEY,
    LENGTH,
    MAX_CACHED_NAMES,
    PASS,
    PREFER,
    REQUEST_NAMES,
    TRACEPARENT,
    UPGRADE,
    VIA,
)

_CHUNK_FRAME = 24
"""Bytes around a piece of a chunked body that are no extension: its size (zeros before it included) and two CRLF."""


class Fault(Exception):
    """Why a message can't be taken: the status to answer with, and a sentence."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Request:
    """One request as it arrives. The head is whole and checked once `head_done`; the body once `done`.

    `lines` are the end-to-end fields for the agent, as a flat list of pieces. `length` is Content-Length, -1 where there
    is none. `pieces` holds the body that was read and not yet taken.
    """

    __slots__ = (
        "accepts_events", "authorization", "chunked", "done", "expects_continue", "fault", "forwarded", "head_done",
        "headers", "host", "keep_alive", "key", "length", "lines", "method", "minor", "own_vias", "pieces", "prefer",
        "target", "traced", "upgrade",
    )  # fmt: skip
    accepts_events: bool
    authorization: bytes | None
    chunked: bool
    done: bool
    expects_continue: bool
    fault: Fault | None
    forwarded: list[tuple[bytes, bytes]]
    head_done: bool
    headers: list[tuple[bytes, bytes]]
    host: bytes | None
    keep_alive: bool
    key: bytes | None
    length: int
    lines: list[bytes]
    method: bytes
    minor: int
    own_vias: int
    pieces: list[bytes]
    prefer: bytes
    target: bytes
    traced: bool
    upgrade: bytes

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.head_done = self.done = False
        self.fault: Fault | None = None

    @property
    def has_body(self) -> bool:
        """Framing announces a body, which may be empty."""
        return self.chunked or self.length > 0


class RequestReader:
    """The requests of one connection, in order; `requests` holds those whose head is whole."""

    __slots__ = ("_current", "_overhead", "_parser", "_raw", "_slack", "_trailer_bytes", "broken", "rest", "requests")

    def __init__(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._current: Request | None = None
        self._raw = b""
        self._slack = self._overhead = self._trailer_bytes = 0
        self.requests: deque[Request] = deque()
        self.broken: Fault | None = None
        self.rest = b""
        """After an upgrade: the bytes behind its head."""

    @property
    def idle(self) -> bool:
        """Nothing of a further request has arrived."""
        return self._current is None and not self.requests

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection; look at `requests` and `broken` afterwards."""
        begun = self._current
        held = 0
        if begun is None:
            self._raw = data
        elif begun.head_done:
            self._raw = data  # the head of a next request may begin in it
            held = len(begun.pieces)
        else:
            self._raw += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self.requests[-1].keep_alive = False  # what follows is no HTTP, whatever the answer
        except httptools.HttpParserError as error:
            self._break(error)
        current = self._current
        if current is None:
            return
        if not current.head_done:
            if current is not begun:
                self._slack = len(data) if begun is not None or self.requests else 0
            if len(self._raw) - self._slack > defaults.MAX_HEAD_BYTES:
                self._refuse(current, Fault(431 if current.headers else 414, "the head of the request is too large"))
        elif current is begun and current.chunked:
            self._count_overhead(current, len(data), held)

    def _count_overhead(self, current: Request, size: int, held: int) -> None:
        """Bound what comes beside a chunked body and is dropped: extensions, and trailers that are not whole yet."""
        extra = self._overhead + size
        for piece in current.pieces[held:]:
            extra -= len(piece) + _CHUNK_FRAME
        self._overhead = extra if extra > 0 else 0
        if extra > defaults.MAX_CHUNK_EXTENSION_BYTES + defaults.MAX_TRAILER_BYTES:
            self._refuse(current, Fault(431, "chunk extensions and trailers are too large"))

    def _refuse(self, current: Request, fault: Fault) -> None:
        self.broken = self.broken or fault
        current.fault = current.fault or fault

    def _break(self, error: Exception) -> None:
        text = str(error.args[0]) if error.args else str(error)
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            text = "the method is not one of HTTP's"
        self.broken = Fault(400, f"malformed HTTP: {text}")

    # Called by the parser.

    def on_message_begin(self) -> None:
        """Start the next request."""
        self._current = Request()

    def on_url(self, url: bytes) -> None:
        """Collect the target, which may come in pieces."""
        self._current.target += url  # type: ignore[union-attr]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; what comes after the head is a trailer, and is dropped."""
        current = self._current
        assert current is not None
        if not current.head_done:
            current.headers.append((name, value))
            return
        self._trailer_bytes += len(name) + len(value)
        if self._trailer_bytes > defaults.MAX_TRAILER_BYTES:
            self._refuse(current, Fault(431, f"the trailers are longer than {defaults.MAX_TRAILER_BYTES} bytes"))

    def on_headers_complete(self) -> None:
        """Check the head and hand the request over."""
        current = self._current
        assert current is not None
        current.method = self._parser.get_method()
        current.minor = 1 if self._parser.get_http_version() == "1.1" else 0
        current.head_done = True
        try:
            _check_line(current, self._raw)
            _read_fields(current)
            if current.chunked:
                self._overhead = self._trailer_bytes = 0
        except Fault as fault:
            current.fault = fault
        self.requests.append(current)

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body until it is taken."""
        self._current.pieces.append(piece)  # type: ignore[union-attr]

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._current.done = True  # type: ignore[union-attr]
        self._current = None


def _check_line(request: Request, raw: bytes) -> None:
    """Check what llhttp lets pass: it is generous with spaces, and knows RTSP and ICE."""
    target = request.target
    if b"%b %b HTTP/1.%d\r\n" % (request.method, target, request.minor) not in raw:
        raise Fault(400, "malformed request line")
    if len(raw) > defaults.MAX_HEAD_BYTES and _head_size(request) > defaults.MAX_HEAD_BYTES:
        raise Fault(431, f"the head of the request is longer than {defaults.MAX_HEAD_BYTES} bytes")
    if len(target) > defaults.MAX_TARGET_BYTES:
        raise Fault(414, f"the target is longer than {defaults.MAX_TARGET_BYTES} bytes")
    if b"#" in target:
        raise Fault(400, "the target has a fragment")


def _head_size(request: Request) -> int:
    fields = sum(len(name) + len(value) + 4 for name, value in request.headers)
    return len(request.method) + len(request.target) + 12 + fields + 2


def _read_fields(request: Request) -> None:
    headers = request.headers
    if len(headers) > defaults.MAX_HEADERS:
        raise Fault(431, f"more than {defaults.MAX_HEADERS} header fields")
    request.length = -1
    request.chunked = request.expects_continue = request.accepts_events = request.traced = False
    request.keep_alive = request.minor == 1
    request.host = request.authorization = request.key = None
    request.prefer = request.upgrade = b""
    request.forwarded = []
    request.own_vias = 0
    lines: list[bytes] = []
    request.lines = lines
    dropped: tuple[bytes, ...] = ()
    names = REQUEST_NAMES
    for name, value in headers:
        kind = names[name]
        if kind == PASS:
            lines += (name, b": ", value, b"\r\n")
        elif kind == CONNECTION:
            dropped += _read_connection(request, value)
        elif kind != DROP:
            _read_special(request, kind, name, value)
        if len(value) > defaults.MAX_HEADER_LINE_BYTES or len(name) > 256:
            raise Fault(431, f"a header field is longer than {defaults.MAX_HEADER_LINE_BYTES} bytes")
    if request.host is None and request.minor == 1:
        raise Fault(400, "no Host")
    if dropped:
        drop_fields(lines, dropped)


def _read_special(request: Request, kind: int, name: bytes, value: bytes) -> None:  # noqa: C901, PLR0912 - one case a field
    if kind == HOST:
        if request.host is not None:
            raise Fault(400, "more than one Host")
        request.host = value = value.strip()
        if not _is_host(value):
            raise Fault(400, "Host is not a host")
    elif kind == LENGTH:
        request.length = int(value)
        return
    elif kind == CODING:
        if value.strip().lower() != b"chunked" or request.minor == 0:
            raise Fault(400, "Transfer-Encoding must be chunked, and HTTP/1.1")
        request.chunked = True
        return
    elif kind == EXPECT:
        if value.strip().lower() != b"100-continue":
            raise Fault(417, "the only expectation that is met is 100-continue")
        request.expects_continue = request.minor == 1
        return
    elif kind == UPGRADE:
        request.upgrade = value.strip()
        return
    elif kind == AUTHORIZATION:
        if request.authorization is not None:
            raise Fault(400, "more than one Authorization")
        request.authorization = value.strip()
    elif kind == KEY:
        if request.key is not None:
            raise Fault(400, "more than one Idempotency-Key")
        request.key = value.strip()
    elif kind == PREFER:
        request.prefer += b"," + value
    elif kind == ACCEPT:
        request.accepts_events = b"text/event-stream" in value.lower()
    elif kind == VIA:
        request.own_vias += value.count(b"agentainer")
    elif kind == TRACEPARENT:
        request.traced = True
    elif kind in (FORWARDED, KEEP_ALIVE):
        if kind == FORWARDED:
            request.forwarded.append((name.lower(), value))
        return
    request.lines += (name, b": ", value, b"\r\n")


def _read_connection(request: Request, value: bytes) -> tuple[bytes, ...]:
    """Take `Connection`: it may close or keep alive; any other name in it is a field that must not be passed on."""
    lower = value.lower()
    if lower == b"keep-alive":
        request.keep_alive = True
        return ()
    tokens = {token.strip() for token in lower.split(b",")}
    if b"close" in tokens:
        request.keep_alive = False
    elif b"keep-alive" in tokens:
        request.keep_alive = True
    # Fields that the request is forwarded by are not the sender's to remove (CVE-2024-45410).
    return tuple(
        tokens - {b"close", b"keep-alive", b"upgrade", b"host", b"authorization", b"content-length", b"via", b""}
    )


def drop_fields(lines: list[bytes], names: tuple[bytes, ...]) -> None:
    """Take the fields of these names (lower case) out of a flat list of pieces."""
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):
        if lines[at].lower() not in names:
            kept += lines[at : at + 4]
    lines[:] = kept


_HOST_BYTES = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~:[]%!$&'()*+,;=")
_known_hosts: dict[bytes, bool] = {}


def _is_host(value: bytes) -> bool:
    known = _known_hosts.get(value)
    if known is None:
        known = _HOST_BYTES.issuperset(value) and len(value) <= 512
        if len(_known_hosts) < MAX_CACHED_NAMES:
            _known_hosts[value] = known
    return known
