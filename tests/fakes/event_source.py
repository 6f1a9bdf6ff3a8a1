"""A browser's EventSource, as the HTML standard has it (section 9.2): strict about answers, and back after a connection that ended.

It shares no code with the product, and is itself held against the standard's examples (tests/unit/fakes/test_event_source.py) and, where
there is one, against Node's.
"""

import codecs
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """What a listener gets."""

    type: str
    data: str
    last_event_id: str


class Failed(Exception):
    """The connection failed for good: an EventSource does not come back after that."""


@dataclass
class Stream:
    """Section 9.2.6: bytes in, events out. `retry_ms`: what the stream said of coming back; None: nothing."""

    last_event_id: str = ""
    retry_ms: int | None = None
    _decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )
    _text: str = ""
    _is_at_start: bool = True
    _data: str = ""
    _type: str = ""
    _id: str | None = None

    def feed(self, data: bytes) -> Iterator[MessageEvent]:
        self._text += self._decoder.decode(data)
        if self._is_at_start and self._text:
            self._text = self._text.removeprefix("\ufeff")
            self._is_at_start = False
        while found := re.search(r"\r\n|\n|\r(?!$)", self._text):  # a CR at the end may be half of a line end
            line, self._text = self._text[: found.start()], self._text[found.end() :]
            if line:
                self._take(line)
            elif event := self._dispatch():
                yield event

    def _take(self, line: str) -> None:
        name, colon, value = line.partition(":")
        if not name:
            return  # a comment
        value = value.removeprefix(" ") if colon else ""
        if name == "event":
            self._type = value
        elif name == "data":
            self._data += value + "\n"
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and re.fullmatch("[0-9]+", value):
            self.retry_ms = int(value)

    def _dispatch(self) -> MessageEvent | None:
        if self._id is not None:
            self.last_event_id = self._id
        data, kind, self._data, self._type = self._data, self._type, "", ""
        return MessageEvent(kind or "message", data.removesuffix("\n"), self.last_event_id) if data else None


class EventSource:
    """One that is open. `connections`: how often it connected; `asked_with`: the Last-Event-ID of each time, None for none."""

    def __init__(self, url: str, *, headers: dict[str, str] | None = None, reconnection_ms: int = 20) -> None:
        self._url = urlsplit(url)
        self._headers = headers or {}
        self._reconnection_ms = reconnection_ms
        self._last_event_id = ""
        self.asked_with: list[str | None] = []

    @property
    def connections(self) -> int:
        return len(self.asked_with)

    def events(self, limit_s: float = 20.0) -> Iterator[MessageEvent]:
        """Give what listeners would get, until the caller has enough (an EventSource never ends by itself)."""
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            with suppress(OSError, http.client.HTTPException):
                yield from self._connect(end - time.monotonic())
            time.sleep(self._reconnection_ms / 1000)
        raise TimeoutError(f"no more events from {self._url.path} after {limit_s} s")

    def until(self, last: str, limit_s: float = 20.0) -> list[MessageEvent]:
        """Return all events up to the first of the type `last`."""
        found = []
        with closing(self.events(limit_s)) as events:  # type: ignore[type-var] # a generator has close()
            for event in events:
                found.append(event)
                if event.type == last:
                    break
        return found

    def _connect(self, limit_s: float) -> Iterator[MessageEvent]:
        stream = Stream(last_event_id=self._last_event_id)
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **self._headers}
        if self._last_event_id:
            headers["Last-Event-ID"] = self._last_event_id
        self.asked_with.append(headers.get("Last-Event-ID"))
        connection = http.client.HTTPConnection(self._url.hostname or "", self._url.port, timeout=max(limit_s, 0.1))
        with closing(connection):
            connection.request("GET", f"{self._url.path}?{self._url.query}".removesuffix("?"), headers=headers)
            response = connection.getresponse()
            kind = (response.getheader("Content-Type") or "").partition(";")[0].strip().lower()
            if response.status != 200 or kind != "text/event-stream":
                raise Failed(f"{response.status} {kind}")
            while piece := response.read1(65536):
                for event in stream.feed(piece):
                    self._last_event_id = stream.last_event_id
                    yield event
                if stream.retry_ms is not None:
                    self._reconnection_ms = stream.retry_ms


class CuttingRelay:
    """Passes connections on to `port` of this machine, and breaks each off after so many bytes of its answer; later ones it leaves
    alone. Used in a `with`.
    """

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._to = port
        self._cuts = list(cuts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "CuttingRelay":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            left = self._cuts.pop(0) if self._cuts else 2**30
            with client, closing(socket.create_connection(("127.0.0.1", self._to))) as server, suppress(OSError):
                server.sendall(client.recv(65536))
                while left and (piece := server.recv(min(left, 65536))):
                    client.sendall(piece)
                    left -= len(piece)
