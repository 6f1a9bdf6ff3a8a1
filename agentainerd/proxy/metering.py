"""What a model's answer says about tokens, noticed as it passes. Nothing is parsed here, and next to nothing kept: what says
`"usage": {` is remembered from there on. Within a text of the model these quotes are escaped, so it is never a text.
"""

import re

_USAGE = re.compile(rb'"usage"[ \t]*:[ \t]*\{')
_EMPTY = re.compile(rb'"choices"[ \t]*:[ \t]*\[[ \t]*\]')
_END = re.compile(rb"\r?\n\r?\n|\r\r")
_WORD = b'"usage"'
_DATA = b"data:"
KEPT_BYTES = 64 * 1024
"""Of an answer that is one document, and of a line of a stream, this much from the end on is looked at."""


class Meter:
    """The meter of one answer. `usage`: what was remembered last, from the object's brace on; `events`: of a stream, so far."""

    __slots__ = ("_hides", "_is_stream", "_tail", "events", "usage")

    def __init__(self, *, is_stream: bool, hides_usage: bool) -> None:
        self._is_stream = is_stream
        self._hides = is_stream and hides_usage
        self._tail = b""
        self.usage = b""
        self.events = 0

    def feed(self, piece: bytes) -> bytes:
        """Take a piece of the answer and return what of it is passed on now."""
        if self._hides:
            return self._filter(piece)
        if self._is_stream:
            self._watch(piece)
        else:
            self._tail = (self._tail + piece)[-KEPT_BYTES:]
        return piece

    def end(self) -> bytes:
        """The answer is over: return what was held back of it."""
        rest, self._tail = self._tail, b""
        self._note(rest)
        return rest if self._hides else b""

    def _watch(self, piece: bytes) -> None:
        """Look at whole lines; what comes after the last one waits for the rest of its own."""
        data = self._tail + piece if self._tail else piece
        end = data.rfind(b"\n") + 1
        self._tail = data[end:][-KEPT_BYTES:] if end < len(data) else b""
        self._note(data[:end] if end < len(data) else data)

    def _filter(self, piece: bytes) -> bytes:
        """Pass on whole events, but for the one that only says what was used."""
        data = self._tail + piece if self._tail else piece
        passed: list[bytes] = []
        start = 0
        for found in _END.finditer(data):
            event = data[start : found.end()]
            start = found.end()
            self._note(event)
            if not (_WORD in event and _USAGE.search(event) and _EMPTY.search(event)):
                passed.append(event)
        self._tail = data[start:]
        if len(self._tail) > KEPT_BYTES:  # it is none of those
            self._note(self._tail)
            passed.append(self._tail)
            self._tail = b""
        return b"".join(passed)

    def _note(self, data: bytes) -> None:
        self.events += data.count(_DATA)
        if _WORD not in data:
            return
        for found in _USAGE.finditer(data):
            self.usage = data[found.end() - 1 :][:KEPT_BYTES]
