"""A run told as the AgentOS document has it: server-sent events with the envelope {type, timestamp, data, agent_id, ...}.

`run_start` comes first, then `token`, `reasoning`, `tool_call`, `step_start` and `step_end` as they happen, and `complete` or
`error` last; a run that was cancelled ends with both. Tokens are the pieces that the agent sent, spaces and all: put together
they are the output. Frames have no id and there is no heartbeat: clients of this format read neither. No I/O, no clock.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from agentainerd.model.interrupts import question_of
from agentainerd.model.media import Media
from agentainerd.model.occurrences import (
    Ended,
    FileChange,
    Occurrence,
    OccurrenceReader,
    Paused,
    Started,
    Step,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)
from agentainerd.model.run_results import RunResult
from agentainerd.model.runs import RunCode, Usage

TYPES = ("run_start", "reasoning", "tool_call", "token", "step_start", "step_end", "error", "complete")
CANCELLED = "RUN_CANCELLED"
INPUT_REQUIRED = "input_required"
ERROR_CODES: dict[str, str] = {
    RunCode.CANCELLED: CANCELLED,
    RunCode.TIMEOUT: "CONTEXT_CANCELED",
    RunCode.MODEL_ERROR: "API_ERROR",
}
"""Codes of a run as this dialect has them; what is in neither table is an AGENT_ERROR, with the run's own in `details`."""
KNOWN_CODES = frozenset((
    "AGENT_ERROR", "CONTEXT_CANCELED", "API_ERROR", "MODEL_TIMEOUT", "TOOL_ERROR", "INVALID_INPUT", "INVALID_CONFIG",
    "RATE_LIMIT", "INPUT_CHECK", "OUTPUT_CHECK", "PROMPT_INJECTION", "PII_DETECTED", "CONTENT_MODERATION", CANCELLED, "UNKNOWN",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class RunStory:
    """What the events of a run do not tell: which run of whom they are of, and what was asked.

    `context_id`: what the client calls the run, "" where it does not. `model`: the one that was asked for, "" for the agent's.
    """

    run_id: str
    agent_id: str
    session_id: str = ""
    input: str = ""
    media: Sequence[Media] = ()
    context_id: str = ""
    model: str = ""


class AgnoEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event of this dialect, as it is sent."""

    type: str
    timestamp: str
    data: dict[str, object]
    session_id: str = ""
    agent_id: str = ""
    run_context_id: str = ""

    def encode(self) -> bytes:
        """Return it as a server-sent event."""
        return b"event: " + self.type.encode() + b"\ndata: " + msgspec.json.encode(self) + b"\n\n"


class AgnoProjection:
    """The events of one run, from its first to its last, in this dialect.

    `begin` may be called before there is any event; where it was not, the first event begins.
    """

    def __init__(self, story: RunStory) -> None:
        self._story = story
        self._reader = OccurrenceReader()
        self._result = RunResult()
        self._has_begun = False
        self._started_at = 0.0
        self._token_count = 0
        self._paragraph = ""
        self._opening: str | None = ""
        self._thoughts = 0
        self._last_thought = ""
        self._waits: tuple[Paused, float] | None = None  # since when

    def begin(self, at: float) -> list[AgnoEvent]:
        """Return `run_start`, the first time; `at`: epoch seconds."""
        if self._has_begun:
            return []
        self._has_begun, self._started_at = True, at
        story = self._story
        data = _filled({"session_id": story.session_id, "media": [msgspec.to_builtins(one) for one in story.media]})
        return [self._event("run_start", at, {"input": story.input, **data})]

    def feed(self, event: Mapping[str, object], at: float) -> list[AgnoEvent]:
        """Return what one AG-UI event of the run is in this dialect; `at`: when it came, epoch seconds."""
        told = self.begin(at)
        self._waits = None
        self._result.take(event)
        for occurrence in self._reader.read(event):
            told.extend(self._event(kind, at, data) for kind, data in self._say(occurrence, at))
        return told

    def break_off(self, message: str, at: float) -> list[AgnoEvent]:
        """Return the end of a stream whose run can't be read any further, though it may go on."""
        return [self._event("error", at, {"error": message, "code": "UNKNOWN"})]

    def rest(self) -> list[AgnoEvent]:
        """Return the end of a stream that ends because the run waits for an answer, which this dialect has no event for: an
        `error` that says what is asked. [] where it does not wait.
        """
        if self._waits is None:
            return []
        paused, at = self._waits
        details = {"code": INPUT_REQUIRED, "run_id": self._story.run_id, "interrupts": list(paused.interrupts)}
        message = f"the run waits for an answer: {question_of(paused.interrupts)}"
        return [self._event("error", at, {"error": message, "code": "AGENT_ERROR", "details": details})]

    def _say(self, occurrence: Occurrence, at: float) -> Iterable[tuple[str, dict[str, object]]]:
        match occurrence:
            case Paused():
                self._waits = occurrence, at
            case Started():
                self._started_at = at
            case Text(delta):
                yield from self._speak(delta)
            case Thought(content, redacted):
                self._last_thought = content
                data = _filled({"redacted_content": redacted, "model": self._story.model})
                yield "reasoning", {"content": content, "message_index": self._thoughts, **data}
                self._thoughts += 1
            case ToolResult(call, result):
                data = {} if result is None else {"result": result}
                yield "tool_call", {"tool_name": call.name, "arguments": call.arguments, **data}
            case Step(name, index, is_start):
                yield "step_start" if is_start else "step_end", {"step_name": name, "step_index": index}
            case Ended():
                yield from self._end(occurrence, at)
            case ToolCall():  # told with its result
                self._end_paragraph()
            case FileChange():
                return  # there is no such event here

    def _speak(self, delta: str) -> Iterator[tuple[str, dict[str, object]]]:
        """Tell a piece of text so that all tokens together are the output: paragraphs that tools stand between begin on a line
        of their own, and one of spaces is none. `_opening`: the spaces that it began with; None: it has begun.
        """
        if self._opening is not None:
            self._opening += delta
            if not self._opening.strip():
                return
            delta, self._opening = self._paragraph + self._opening, None
        yield "token", {"token": delta, "index": self._token_count}
        self._token_count += 1

    def _end_paragraph(self) -> None:
        if self._opening is None:
            self._opening, self._paragraph = "", "\n"

    def _end(self, ended: Ended, at: float) -> Iterator[tuple[str, dict[str, object]]]:
        code = error_code(ended.code)
        if ended.code:
            details = {} if code == ended.code else {"details": {"code": ended.code}}
            yield "error", {"error": ended.message or f"the run ended: {ended.code}", "code": code, **details}
        if ended.code and code != CANCELLED:
            return
        data: dict[str, object] = {
            "output": self._result.output,
            "duration": max(0.0, round(at - self._started_at, 6)),
            "status": "cancelled" if ended.code else "completed",
            "run_id": self._story.run_id,
            "cancellation_reason": ended.message,
        }
        if self._last_thought:
            tokens = self._result.usage.reasoning_tokens
            summary = {"content": self._last_thought, "token_count": tokens, "model": self._story.model}
            data["reasoning"] = _filled(summary)
        yield "complete", _filled(data | usage_fields(self._result.usage), keep=("output", "duration"))

    def _event(self, kind: str, at: float, data: dict[str, object]) -> AgnoEvent:
        story = self._story
        return AgnoEvent(kind, _rfc3339(at), data, story.session_id, story.agent_id, story.context_id or story.run_id)


def parse_types(text: str) -> frozenset[str]:
    """Return the names in a `types` parameter, "a, b"; none: every type is wanted. Unknown ones are wanted, and match nothing."""
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def encode(events: Iterable[AgnoEvent], wanted: frozenset[str]) -> bytes:
    """Return those of the wanted types as frames; every type is wanted where none is named."""
    return b"".join(event.encode() for event in events if not wanted or event.type in wanted)


def error_code(code: str) -> str:
    """Return the code that this dialect has for a run that ended with `code`."""
    if code in KNOWN_CODES:
        return code
    return ERROR_CODES.get(code, "AGENT_ERROR")


def usage_fields(usage: Usage) -> dict[str, object]:
    """Return `token_count` and `usage` of what was counted; nothing where nothing was."""
    total = usage.input_tokens + usage.output_tokens
    if not total:
        return {}
    tokens = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": total,
    }
    return {"token_count": total, "usage": tokens | _filled({"reasoning_tokens": usage.reasoning_tokens})}


def _filled(fields: Mapping[str, object], keep: Iterable[str] = ()) -> dict[str, object]:
    """Leave out what is empty, as this dialect does."""
    return {name: value for name, value in fields.items() if value or name in keep}


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"
