"""Answers of agents in HTTP/1.1, read as strictly as requests: a hostile agent must not reach the next client."""

import httptools

from agentainerd import defaults
from agentainerd.proxy.fields import ANSWER_NAMES, CODING, CONNECTION, COOKIE, LENGTH, PASS
from agentainerd.proxy.http1 import Fault
from agentainerd.proxy.wire import PIECE


class Answer:
    """The answers of one connection to an agent, one after the other; also the parser's protocol.

    `reset` makes it ready for the next one. `head_done`: what follows here is known. `lines` are the end-to-end fields.
    `length` -1: none; then it is chunked, or ends with the connection. `pieces`: of the body, not yet taken. `done`: the
    answer is whole. `overrun`: there were bytes behind its end. `interim`: heads of 1xx answers, as they are to be
    passed on. `switched`: the agent changed the protocol, and `rest` is the beginning of what it says in it.
    """

    __slots__ = (
        "_head_bytes", "_interims", "_may_switch", "_over", "_parser", "_raw_left", "_whole", "chunked", "cookies", "done",
        "head_done", "headers", "interim", "keep_alive", "length", "lines", "no_body", "overrun", "phrase", "pieces", "rest",
        "status", "switched",
    )  # fmt: skip
    chunked: bool
    cookies: list[bytes]
    done: bool
    head_done: bool
    headers: list[tuple[bytes, bytes]]
    interim: list[bytes]
    keep_alive: bool
    length: int
    lines: list[bytes]
    no_body: bool
    overrun: bool
    phrase: bytes
    pieces: list[bytes]
    rest: bytes
    status: int
    switched: bool

    def __init__(self) -> None:
        self._parser: httptools.HttpResponseParser | None = None
        self._whole = False
        self.pieces = []
        self.interim = []

    def reset(self, *, head_only: bool = False, may_switch: bool = False) -> None:
        """Get ready for the next answer. A parser that saw the last one to its end reads on, else there is a new one."""
        if not self._whole or self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._whole = self._over = False
        self._may_switch = may_switch
        self._raw_left = self._head_bytes = self._interims = 0
        self.head_done = self.done = self.overrun = self.switched = self.chunked = False
        self.no_body = head_only
        self.status = 0
        self.length = -1
        self.phrase = self.rest = b""
        self.headers = []
        if self.pieces:
            self.pieces.clear()
        if self.interim:
            self.interim.clear()

    def close(self) -> None:
        """Let go of the parser, which holds this object: there will be no further answer."""
        self._parser = None

    @property
    def ends_with_connection(self) -> bool:
        """Only the end of the connection says where the body ends."""
        return self.length < 0 and not self.chunked and not self.no_body

    @property
    def can_be_followed(self) -> bool:
        """It ended cleanly, and the connection is good for another one."""
        return self.done and self.keep_alive and not self.overrun and not self.ends_with_connection

    def feed(self, data: bytes) -> None:
        """Take bytes.

        Raises:
            Fault: they are not an HTTP/1 answer, or not one that can be passed on.
        """
        if self._raw_left:
            self._take_raw(data)
            return
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self.switched = self.status == 101 and self._may_switch
        except httptools.HttpParserError as error:
            if not self._over:
                text = error.args[0] if error.args else error
                raise Fault(502, f"the agent's answer is not HTTP: {text}") from error
            self.overrun = True
        if not self.head_done:
            if not self.status:
                self._check_size(data)
                return
            self._read_fields()
            self.head_done = True
            if self.no_body:
                self._over = self.done = True
            elif self.length > PIECE and not self.done:
                self._raw_left = self.length - sum(map(len, self.pieces))

    def take(self) -> bytes:
        """Return the body's bytes that have come since."""
        pieces = self.pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        return data

    def _take_raw(self, data: bytes) -> None:
        """Take a piece of a long body of known length past the parser: there is nothing in it to parse."""
        if len(data) > self._raw_left:
            data, self.overrun = data[: self._raw_left], True
        self._raw_left -= len(data)
        self.pieces.append(data)
        if not self._raw_left:
            self._over = self.done = True

    def _check_size(self, data: bytes) -> None:
        self._head_bytes += len(data)
        self._interims += len(self.interim)
        if (
            self._interims > defaults.MAX_INTERIM_RESPONSES
            or len(self.headers) > defaults.MAX_HEADERS
            or self._head_bytes > defaults.MAX_HEAD_BYTES
        ):
            raise Fault(502, "the head of the agent's answer is too large")

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A second message in one answer is what nobody asked for."""
        if self._over:
            self.overrun = True

    def on_status(self, phrase: bytes) -> None:
        """Collect the reason phrase."""
        if not self._over:
            self.phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; trailers are not kept."""
        if not self.status:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole, unless it is of an interim answer."""
        if not self._over:
            self.status = self._parser.get_status_code()  # type: ignore[union-attr]

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body until it is taken."""
        if self.no_body:
            self.overrun = True
        elif not self._over:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one makes room for the next."""
        if self._over:
            return
        if 100 <= self.status < 200 and self.status != 101:
            lines = [b"HTTP/1.1 %d %b\r\n" % (self.status, self.phrase)]
            lines += [b"%b: %b\r\n" % field for field in self.headers if ANSWER_NAMES[field[0]] == PASS]
            self.interim.append(b"".join(lines) + b"\r\n")
            self.status, self.phrase, self.headers = 0, b"", []
            return
        self._over = self._whole = self.done = True

    def _read_fields(self) -> None:
        """Check and sort the fields of the head.

        Raises:
            Fault: its framing can't be passed on.
        """
        headers = self.headers
        if len(headers) > defaults.MAX_HEADERS:
            raise Fault(502, f"the agent's answer has more than {defaults.MAX_HEADERS} fields")
        self.keep_alive = self._parser.get_http_version() == "1.1"  # type: ignore[union-attr]
        self.cookies = []
        lines: list[bytes] = []
        self.lines = lines
        names = ANSWER_NAMES
        for name, value in headers:
            kind = names[name]
            if kind == PASS:
                lines += (name, b": ", value, b"\r\n")
            else:
                self._read_special(kind, value)
        if self.status == 101 and not self.switched:
            raise Fault(502, "the agent switched protocols, and nobody asked it to")
        if self.status in (204, 304):
            self.no_body = True

    def _read_special(self, kind: int, value: bytes) -> None:
        if kind == LENGTH:
            self.length = int(value)
        elif kind == CONNECTION:
            self._read_connection(value)
        elif kind == CODING:
            if value.strip().lower() != b"chunked":
                raise Fault(502, "the agent's answer has a Transfer-Encoding other than chunked")
            self.chunked = True
        elif kind == COOKIE:
            self.cookies.append(value)

    def _read_connection(self, value: bytes) -> None:
        lower = value.lower()
        if b"close" in lower:
            self.keep_alive = False
        elif b"keep-alive" in lower:
            self.keep_alive = True
