"""The bytes of a streamed chat completion, however they are cut, as the pieces of an answer.

Servers that speak "OpenAI's API" agree on less than its documentation says. What is taken here: comments, CR and LF, several
`data:` lines, UTF-8 and surrogate pairs cut anywhere, a byte order mark; calls of tools whose index is missing, always 0, or
wrong, whose id or name comes late, whose arguments are null, text or an object; usage in a chunk without choices; an end
without `finish_reason`, or without [DONE]. An end without both is a broken answer, as is an `error` in the stream.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from agentainer_runtime.provider import Call, End, Piece, Reasoning, Text, Usage

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""More than any model answers; one that goes on and on is cut off here."""


class BrokenAnswer(Exception):
    """The answer ended before its end, or is none; it is worth asking again."""


class ErrorInStream(Exception):
    """The server said in the stream that it failed; `error` is its error body."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("message") or error))
        self.error = error


class AnswerTooLong(Exception):
    """It has more than MAX_ANSWER_BYTES."""


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)  # of the arguments


class StreamParser:
    """Feed it bytes, take pieces; `end` gives what is known only then. One instance for one answer."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._data: list[bytes] = []
        self._is_after_cr = False
        self._is_at_start = True
        self._size = 0
        self._is_done = False
        self._finish = ""
        self._usage: Usage | None = None
        self._calls: list[_Call] = []
        self._by_index: dict[int, _Call] = {}
        self._half = ""  # the first half of a surrogate pair

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Give the pieces that these bytes complete.

        Raises:
            BrokenAnswer, ErrorInStream, AnswerTooLong: nothing more can be read.
        """
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            raise AnswerTooLong(f"the answer has more than {MAX_ANSWER_BYTES} bytes")
        if self._is_after_cr and data:
            self._is_after_cr = False
            data = data.removeprefix(b"\n")
        if data.endswith(b"\r"):
            self._is_after_cr = True
        *whole, rest = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            self._line += line
            taken, self._line = bytes(self._line), bytearray()
            yield from self._take_line(taken)
        self._line += rest

    def take(self, chunk: object) -> Iterator[Piece]:
        """Give the pieces of one chunk, as JSON; also of an answer that was not streamed at all.

        Raises:
            BrokenAnswer, ErrorInStream: nothing more can be read.
        """
        if not isinstance(chunk, dict):
            raise BrokenAnswer("a chunk of the answer is not an object")
        if chunk.get("error"):
            error = chunk["error"]
            raise ErrorInStream(error if isinstance(error, dict) else {"message": str(error)})
        if isinstance(chunk.get("usage"), dict):
            self._usage = usage_of(chunk["usage"])
        for choice in chunk.get("choices") or ():
            if isinstance(choice, dict) and not choice.get("index"):
                yield from self._take_choice(choice)

    def end(self) -> Iterator[Piece]:
        """Give the calls, and the End, once the bytes are at their end.

        Raises:
            BrokenAnswer: they ended in the middle of the answer.
            ErrorInStream: as `feed`.
        """
        if self._line or self._data:
            yield from self.feed(b"\n\n")  # a last event without its blank line
        if not self._finish and not self._is_done:
            raise BrokenAnswer("the answer broke off")
        if self._half:
            yield Text("\ufffd")
        for call in self._calls:
            if call.name or call.pieces:
                yield Call(call.id or f"call_{uuid.uuid4().hex[:24]}", call.name, "".join(call.pieces))
        finish = self._finish or "stop"
        yield End("tool_calls" if self._calls and finish == "stop" else finish, self._usage)

    def _take_line(self, line: bytes) -> Iterator[Piece]:
        if self._is_at_start:
            line = line.removeprefix(b"\xef\xbb\xbf")
            self._is_at_start = False
        if line.startswith(b"data:"):
            self._data.append(line[5:].removeprefix(b" "))
        elif not line and self._data:
            data, self._data = b"\n".join(self._data), []
            yield from self._take_event(data)

    def _take_event(self, data: bytes) -> Iterator[Piece]:
        if data.strip() == b"[DONE]":
            self._is_done = True
            return
        if not data.strip():
            return
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BrokenAnswer(f"a chunk of the answer is not JSON: {error}") from error
        yield from self.take(chunk)

    def _take_choice(self, choice: dict[str, Any]) -> Iterator[Piece]:
        delta = choice.get("delta") or choice.get("message") or {}
        for name in ("reasoning_content", "reasoning"):
            if isinstance(delta.get(name), str) and delta[name]:
                yield Reasoning(_whole(delta[name]))
                break
        yield from self._take_content(delta.get("content"))
        for part in delta.get("tool_calls") or ():
            if isinstance(part, dict):
                self._take_call(part)
        if choice.get("finish_reason"):
            self._finish = str(choice["finish_reason"])

    def _take_content(self, content: object) -> Iterator[Piece]:
        if isinstance(content, str) and content:
            text = self._half + content
            self._half = text[-1] if "\ud800" <= text[-1] <= "\udbff" else ""
            if text := text.removesuffix(self._half) if self._half else text:
                yield Text(_whole(text))
        elif isinstance(content, list):
            for part in content:
                if isinstance(part, dict):
                    yield from self._take_content(part.get("text"))

    def _take_call(self, part: dict[str, Any]) -> None:
        function = part.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = function.get("name") or "", function.get("arguments")
        call = self._call_for(part, name)
        call.id = call.id or str(part.get("id") or "")
        if name and name != call.name:
            call.name += name
        if isinstance(arguments, str) and arguments:
            call.pieces.append(arguments)
        elif isinstance(arguments, dict):
            call.pieces = [json.dumps(arguments)]

    def _call_for(self, part: dict[str, Any], name: str) -> _Call:
        """Return the call that a part belongs to: by its id, else by its index, else the current one; or a new one."""
        call_id, index = str(part.get("id") or ""), part.get("index")
        known = next((call for call in self._calls if call_id and call.id == call_id), None)
        if known:
            return known
        there = self._by_index.get(index) if isinstance(index, int) else None
        current = there or (self._calls[-1] if self._calls else None)
        if current and call_id and not current.id and there:
            return current  # its id comes late
        if current and not call_id and not (name and current.name and current.pieces):
            is_known = there is not None or index is None or not name
            if is_known:
                return current
        call = _Call()
        self._calls.append(call)
        if isinstance(index, int):
            self._by_index[index] = call
        return call


def usage_of(usage: dict[str, Any]) -> Usage:
    """Return what a provider says that an answer took."""
    read, written = (usage.get(f"{name}_tokens_details") for name in ("prompt", "completion"))
    cost = usage.get("cost")
    has_cost = isinstance(cost, int | float) and not isinstance(cost, bool)
    return Usage(
        _count(usage, "prompt_tokens"),
        _count(usage, "completion_tokens"),
        _count(read, "cached_tokens"),
        _count(written, "reasoning_tokens"),
        float(cost) if has_cost and cost is not None else None,
        "provider" if has_cost else "",
    )


def _count(fields: object, name: str) -> int:
    value = fields.get(name) if isinstance(fields, dict) else None
    return value if isinstance(value, int) and value > 0 else 0


def _whole(text: str) -> str:
    """Join surrogate pairs that JSON brought in two halves; a half without the other becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
