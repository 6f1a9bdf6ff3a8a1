"""Server-sent events as they are read: an incremental parser (HTML standard, 9.2.6), whatever the pieces are cut into."""

from dataclasses import dataclass


class TooLong(ValueError):
    """A line or the data of one event is longer than the parser was told to take."""


@dataclass(frozen=True, slots=True)
class Message:
    """One event. `data` has its lines joined by a line feed; `event` and `id` are "" where they were not there."""

    data: bytes
    event: str = ""
    id: str = ""


class Parser:
    """Feed it pieces, get messages. `max_bytes` bounds what one event may hold. Lines end with LF, CR LF or CR."""

    __slots__ = ("_after_cr", "_at_start", "_data", "_event", "_id", "_line", "_size", "max_bytes")

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._line = bytearray()
        self._after_cr = False
        self._at_start = True
        self._data: list[bytes] = []
        self._size = 0
        self._event = ""
        self._id = ""

    def feed(self, piece: bytes) -> list[Message]:
        """Return the messages that `piece` completes.

        Raises:
            TooLong: nothing more can be read from this stream.
        """
        found: list[Message] = []
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if piece.endswith(b"\r"):
            self._after_cr = True
        lines = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines[:-1]:
            self._line += line
            whole, self._line = bytes(self._line), bytearray()
            if message := self._take(whole):
                found.append(message)
        self._line += lines[-1]
        if len(self._line) > self.max_bytes:
            raise TooLong(f"a line is longer than {self.max_bytes} bytes")
        return found

    def _take(self, line: bytes) -> Message | None:
        if self._at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._at_start = False
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            if self._size > self.max_bytes:
                raise TooLong(f"an event is longer than {self.max_bytes} bytes")
            self._data.append(value)
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id" and b"\0" not in value:
            self._id = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> Message | None:
        data, event = self._data, self._event
        self._data, self._size, self._event = [], 0, ""
        if not data:
            return None
        return Message(b"\n".join(data), event, self._id)
