"""What happens in a run, read from its AG-UI events one after the other: what every other dialect is written from.

AG-UI tells of one thing in several events (a message and a tool call begin, go on in pieces, and end), in two forms
(START/CONTENT/END, and CHUNK), and under two names where it changed one (thinking became reasoning in 1.0). Here each is
one occurrence, when it is complete; text only is told piece by piece. Events that are strange are passed over: the log
keeps them as they came. Nothing here does I/O or knows a clock.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from agentainerd.model.agui import FILE_CHANGED
from agentainerd.model.interrupts import Interrupt, interrupts_of, is_interrupted
from agentainerd.model.runs import RunCode

SPOKEN_ROLES = ("assistant", "")


@dataclass(frozen=True, slots=True)
class Started:
    """The agent began."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of what it says."""

    delta: str


@dataclass(frozen=True, slots=True)
class Thought:
    """What it thought before it went on; `redacted`: what the provider shows only encrypted."""

    content: str
    redacted: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """It calls a tool. `arguments`: as an object; what was no JSON object is under "raw"."""

    id: str
    name: str
    arguments: dict[str, object]


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave; `result` is a value where it was a JSON object or list, else text. None: the run ended before."""

    call: ToolCall
    result: object


@dataclass(frozen=True, slots=True)
class Step:
    """A step began, or ended. `index`: from 0 in the order of their beginnings."""

    name: str
    index: int
    is_start: bool


@dataclass(frozen=True, slots=True)
class FileChange:
    """It changed a file of its workspace. `operation`: created, modified or deleted."""

    path: str
    operation: str
    diff: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """The run is over. `code`: "" where it went well, else why not ("cancelled", "timeout", ...), and `message` says more."""

    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Paused:
    """It asks for something, and goes on when that was answered."""

    interrupts: tuple[Interrupt, ...]


Occurrence = Started | Text | Thought | ToolCall | ToolResult | Step | FileChange | Paused | Ended


@dataclass(slots=True)
class _OpenCall:
    name: str
    arguments: list[str] = field(default_factory=list)


class OccurrenceReader:
    """Reads the events of one run, from its first."""

    def __init__(self) -> None:
        self._message = ""
        self._roles: dict[str, str] = {}
        self._thought: list[str] = []
        self._redacted = ""
        self._calls: dict[str, _OpenCall] = {}
        self._chunked_call = ""
        self._waiting: dict[str, ToolCall] = {}
        self._steps: dict[str, list[int]] = {}
        self._step_count = 0
        self._has_started = False
        self.is_ended = False

    def read(self, event: Mapping[str, object]) -> list[Occurrence]:
        """Return what one event tells, in order. After the end nothing is told any more."""
        if self.is_ended:
            return []
        kind = _text(event, "type")
        found = list(self._close_chunks(kind))
        if handler := _HANDLERS.get(kind):
            found.extend(handler(self, event))
        return found

    def _on_run_started(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        if not self._has_started:  # it begins anew where it was paused
            self._has_started = True
            yield Started()

    def _on_run_finished(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        if not is_interrupted(event):
            yield from self._end(Ended())
            return
        yield from self._end_thought()
        try:
            yield Paused(tuple(interrupts_of(event)))
        except ValueError:
            return  # nobody can answer: the run ends with an event of its own

    def _on_run_error(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        yield from self._end(Ended(_text(event, "code") or RunCode.ERROR, _text(event, "message")))

    def _end(self, ended: Ended) -> Iterator[Occurrence]:
        """Close what is open: what was thought and called is told, though nothing came of it."""
        self.is_ended = True
        yield from self._end_thought()
        for call_id in list(self._calls):
            yield from self._end_call(call_id)
        for call in self._waiting.values():
            yield ToolResult(call, None)
        yield ended

    # Text

    def _on_text_message_start(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        self._begin_message(_text(event, "messageId"), _text(event, "role"))
        return ()

    def _on_text_message_content(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        message, delta = _text(event, "messageId"), _text(event, "delta")
        if message != self._message:
            self._begin_message(message, self._roles.get(message, ""))
        if delta and self._roles.get(message, "") in SPOKEN_ROLES:
            yield Text(delta)

    def _on_text_message_chunk(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        message = _text(event, "messageId") or self._message
        if message != self._message:
            self._begin_message(message, _text(event, "role"))
        yield from self._on_text_message_content({**event, "messageId": message})

    def _begin_message(self, message: str, role: str) -> None:
        self._message = message
        self._roles[message] = role

    # Thoughts

    def _on_thought(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        self._thought.append(_text(event, "delta"))
        return ()

    def _on_thought_end(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        return self._end_thought()

    def _on_thought_encrypted(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        self._redacted = _text(event, "encryptedValue")
        return ()

    def _end_thought(self) -> Iterator[Occurrence]:
        content, redacted = "".join(self._thought), self._redacted
        self._thought, self._redacted = [], ""
        if content.strip() or redacted:
            yield Thought(content, redacted)

    # Tools

    def _on_tool_call_start(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        self._calls[_text(event, "toolCallId")] = _OpenCall(_text(event, "toolCallName"))
        return ()

    def _on_tool_call_args(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        call = self._calls.get(_text(event, "toolCallId"))
        if call is not None:
            call.arguments.append(_text(event, "delta"))
        return ()

    def _on_tool_call_end(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        return self._end_call(_text(event, "toolCallId"))

    def _on_tool_call_chunk(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        call_id = _text(event, "toolCallId") or self._chunked_call
        if call_id != self._chunked_call:
            yield from self._end_call(self._chunked_call)
            self._chunked_call = call_id
            self._calls[call_id] = _OpenCall(_text(event, "toolCallName"))
        yield from self._on_tool_call_args({**event, "toolCallId": call_id})

    def _on_tool_call_result(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        call_id = _text(event, "toolCallId")
        yield from self._end_call(call_id)
        call = self._waiting.pop(call_id, None)
        if call is not None:
            yield ToolResult(call, _value(event.get("content")))

    def _end_call(self, call_id: str) -> Iterator[Occurrence]:
        found = self._calls.pop(call_id, None)
        if found is not None:
            call = ToolCall(call_id, found.name, _arguments("".join(found.arguments)))
            self._waiting[call_id] = call
            yield call

    def _close_chunks(self, kind: str) -> Iterator[Occurrence]:
        """What came in chunks has no end of its own: the next thing is its end."""
        if self._chunked_call and kind != "TOOL_CALL_CHUNK":
            call_id, self._chunked_call = self._chunked_call, ""
            yield from self._end_call(call_id)
        if self._thought and kind.startswith(("TEXT_MESSAGE_", "TOOL_CALL_", "STEP_")):
            yield from self._end_thought()

    # Steps and files

    def _on_step_started(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        name, index = _text(event, "stepName"), self._step_count
        self._step_count += 1
        self._steps.setdefault(name, []).append(index)
        yield Step(name, index, is_start=True)

    def _on_step_finished(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        name = _text(event, "stepName")
        if open_steps := self._steps.get(name):
            yield Step(name, open_steps.pop(), is_start=False)

    def _on_custom(self, event: Mapping[str, object]) -> Iterable[Occurrence]:
        value = event.get("value")
        if event.get("name") == FILE_CHANGED and isinstance(value, Mapping) and _text(value, "path"):
            operation = _text(value, "operation") or "modified"
            yield FileChange(_text(value, "path"), operation, _text(value, "diff"))


_HANDLERS: dict[str, Callable[[OccurrenceReader, Mapping[str, object]], Iterable[Occurrence]]] = {
    "RUN_STARTED": OccurrenceReader._on_run_started,
    "RUN_FINISHED": OccurrenceReader._on_run_finished,
    "RUN_ERROR": OccurrenceReader._on_run_error,
    "TEXT_MESSAGE_START": OccurrenceReader._on_text_message_start,
    "TEXT_MESSAGE_CONTENT": OccurrenceReader._on_text_message_content,
    "TEXT_MESSAGE_CHUNK": OccurrenceReader._on_text_message_chunk,
    "REASONING_MESSAGE_CONTENT": OccurrenceReader._on_thought,
    "REASONING_MESSAGE_CHUNK": OccurrenceReader._on_thought,
    "REASONING_MESSAGE_END": OccurrenceReader._on_thought_end,
    "REASONING_END": OccurrenceReader._on_thought_end,
    "REASONING_ENCRYPTED_VALUE": OccurrenceReader._on_thought_encrypted,
    "THINKING_TEXT_MESSAGE_CONTENT": OccurrenceReader._on_thought,
    "THINKING_TEXT_MESSAGE_END": OccurrenceReader._on_thought_end,
    "THINKING_END": OccurrenceReader._on_thought_end,
    "TOOL_CALL_START": OccurrenceReader._on_tool_call_start,
    "TOOL_CALL_ARGS": OccurrenceReader._on_tool_call_args,
    "TOOL_CALL_END": OccurrenceReader._on_tool_call_end,
    "TOOL_CALL_CHUNK": OccurrenceReader._on_tool_call_chunk,
    "TOOL_CALL_RESULT": OccurrenceReader._on_tool_call_result,
    "STEP_STARTED": OccurrenceReader._on_step_started,
    "STEP_FINISHED": OccurrenceReader._on_step_finished,
    "CUSTOM": OccurrenceReader._on_custom,
}


def _text(event: Mapping[str, object], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def _arguments(text: str) -> dict[str, object]:
    if not text.strip():
        return {}
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"raw": text}


def _value(content: object) -> object:
    if not isinstance(content, str):
        return content
    if content.lstrip()[:1] in ("{", "["):
        try:
            return msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError):
            return content
    return content
