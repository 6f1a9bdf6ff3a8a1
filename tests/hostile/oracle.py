"""What a byte stream means to a strict reader: h11 frames it, and the data plane may not see more in it than h11 does.

Two things are told to h11 beforehand. Empty lines before a request line are skipped (RFC 9112 2.2; h11 refuses them).
And `Connection: close` does not end the stream: the oracle says what is there at most, not what has to be read.
"""

from dataclasses import dataclass
from enum import Enum

import h11

MAX_HEAD = 200_000  # far above the data plane's own limits


class End(Enum):
    """What is behind the last whole request."""

    NOTHING = "nothing"
    PARTIAL = "the beginning of a request"
    ERROR = "no HTTP"


@dataclass(frozen=True)
class Message:
    """One request as it is framed. Fields are (lower-case name, value) pairs."""

    method: bytes
    target: bytes
    body: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    closes: bool

    @property
    def meaning(self) -> tuple[bytes, bytes, bytes]:
        return self.method, self.target, self.body

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each == name]


@dataclass(frozen=True)
class Framed:
    messages: list[Message]
    end: End
    head_was_whole: bool = False
    """PARTIAL or ERROR: the head of the broken request was read, and its body is what is wrong."""


def frame(data: bytes) -> Framed:
    """Return the requests in `data`, in order, and what is behind them."""
    messages: list[Message] = []
    while True:
        data = data.lstrip(b"\r\n")
        if not data:
            return Framed(messages, End.NOTHING)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        connection.receive_data(data)
        head, body = None, b""
        try:
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                else:
                    return Framed(messages, End.PARTIAL, head is not None)
        except h11.RemoteProtocolError:
            return Framed(messages, End.ERROR, head is not None)
        fields = tuple(head.headers)
        messages.append(Message(head.method, head.target, body, fields, _closes(head)))
        data = connection.trailing_data[0]


def _closes(head: h11.Request) -> bool:
    tokens = {
        token.strip().lower() for name, value in head.headers if name == b"connection" for token in value.split(b",")
    }
    return b"close" in tokens or (head.http_version < b"1.1" and b"keep-alive" not in tokens)
