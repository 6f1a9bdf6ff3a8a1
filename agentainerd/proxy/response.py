"""Answers of agents in HTTP/1.1, read as strictly as requests: a hostile agent must not reach the next client."""

import httptools

from agentainerd import defaults
from agentainerd.proxy.fields import ANSWER_NAMES, CODING, CONNECTION, COOKIE, LENGTH, PASS
from agentainerd.proxy.http1 import Fault


class Answer:
    """One answer of an agent as it arrives; also the parser's protocol.

    `lines` are the end-to-end fields. `length` -1: none; then it is chunked, or ends with the connection. `overrun`: there
    were bytes behind its end. `interim`: heads of 1xx answers, as they are to be passed on.
    """

    __slots__ = (
        "_complete", "_may_switch", "_parser", "chunked", "cookies", "done", "headers", "interim", "keep_alive", "length",
        "lines", "no_body", "overrun", "phrase", "pieces", "rest", "status", "switched",
    )  # fmt: skip
    chunked: bool
    cookies: list[bytes]
    keep_alive: bool
    length: int
    lines: list[bytes]

    def __init__(self, *, head_only: bool = False, may_switch: bool = False) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.interim: list[bytes] = []
        self.phrase = b""
        self.status = 0
        self._complete = self.done = self.overrun = self.switched = False
        self.no_body = head_only
        self._may_switch = may_switch
        self.rest = b""

    def feed(self, data: bytes) -> None:
        """Take bytes.

        Raises:
            Fault: they are not an HTTP/1 answer, or not one that can be passed on.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.rest = data[upgrade.args[0] :]
            self.switched = self.status == 101 and self._may_switch
        except httptools.HttpParserError as error:
            if not self._complete:
                text = error.args[0] if error.args else error
                raise Fault(502, f"the agent's answer is not HTTP: {text}") from error
            self.overrun = True
        if self.status and not self._complete and self.no_body:
            self._complete = self.done = True
        if len(self.headers) > defaults.MAX_HEADERS:
            raise Fault(502, f"the agent's answer has more than {defaults.MAX_HEADERS} fields")

    def release(self) -> None:
        """Let go of the parser: it holds this object, and a cycle a request is a tenth of the CPU for the collector."""
        self._parser = None  # type: ignore[assignment]

    # Called by the parser.

    def on_message_begin(self) -> None:
        """A second message in one answer is what nobody asked for."""
        if self._complete:
            self.overrun = True

    def on_status(self, phrase: bytes) -> None:
        """Collect the reason phrase."""
        if not self._complete:
            self.phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field; trailers are not kept."""
        if not self.status:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole, unless it is of an interim answer."""
        if not self._complete:
            self.status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body until it is taken."""
        if self.no_body:
            self.overrun = True
        elif not self._complete:
            self.pieces.append(piece)

    def on_message_complete(self) -> None:
        """The answer is whole; an interim one makes room for the next."""
        if self._complete:
            return
        if 100 <= self.status < 200 and self.status != 101:
            lines = [b"HTTP/1.1 %d %b\r\n" % (self.status, self.phrase)]
            lines += [b"%b: %b\r\n" % field for field in self.headers if ANSWER_NAMES[field[0]] == PASS]
            self.interim.append(b"".join(lines) + b"\r\n")
            self.status, self.phrase, self.headers = 0, b"", []
            return
        self._complete = self.done = True

    def read_fields(self) -> None:
        """Check and sort the fields of the head, once it is whole.

        Raises:
            Fault: its framing can't be passed on.
        """
        self.length = -1
        self.chunked = False
        self.keep_alive = self._parser.get_http_version() == "1.1"
        self.cookies = []
        lines: list[bytes] = []
        self.lines = lines
        names = ANSWER_NAMES
        for name, value in self.headers:
            kind = names[name]
            if kind == PASS:
                lines += (name, b": ", value, b"\r\n")
            elif kind == LENGTH:
                self.length = int(value)
            elif kind == CONNECTION:
                self._read_connection(value)
            elif kind == CODING:
                if value.strip().lower() != b"chunked":
                    raise Fault(502, "the agent's answer has a Transfer-Encoding other than chunked")
                self.chunked = True
            elif kind == COOKIE:
                self.cookies.append(value)
        if self.status == 101 and not self.switched:
            raise Fault(502, "the agent switched protocols, and nobody asked it to")
        if self.status in (204, 304):
            self.no_body = True

    def _read_connection(self, value: bytes) -> None:
        lower = value.lower()
        if b"close" in lower:
            self.keep_alive = False
        elif b"keep-alive" in lower:
            self.keep_alive = True
