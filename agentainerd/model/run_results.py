"""What a run's events come to: the text of the answer, the messages for the conversation, steps, usage and state. Pure."""

from collections.abc import Mapping
from typing import Any

import msgspec

from agentainerd import defaults
from agentainerd.model.agui import TERMINAL, EventType
from agentainerd.model.interrupts import is_interrupted
from agentainerd.model.occurrences import OccurrenceReader, Step, Text, ToolResult
from agentainerd.model.occurrences import ToolCall as Called
from agentainerd.model.runs import Usage
from agentainerd.model.sessions import FunctionCall, Message, ToolCall, new_message_id

MODEL_RETRY = (
    "model.retry"  # what the model said in this step does not count: its answer broke off, and is asked for again
)
JOB_ATTEMPT = "job.attempt"  # all that was said before does not count: the job is done once more
UNANSWERED = {"error": "the run ended before this tool had an answer"}
_LISTED = ("inputTokens", "outputTokens", "cachedInputTokens", "reasoningTokens")
"""AG-UI's names for the counts of `Usage`, in its order; it lists them for each model."""
_COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


class RunResult:
    """Reads events in order. Bounded: what is beyond MAX_RUN_OUTPUT_CHARS in all is cut; the event log has it whole.

    Attributes:
        steps: calls of the model. usage: what the run's last event told, and those that it paused with. state: of the last
            STATE_SNAPSHOT, or None.
    """

    def __init__(self) -> None:
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.steps = 0
        self.usage = Usage()
        self.state: dict[str, Any] | None = None
        self._reader = OccurrenceReader()
        self._spoken: list[str] = []
        self._step_from = 0  # where in it the step that is under way began to speak
        self._texts: list[str] = []
        self._messages: list[Message] = []
        self._chars = 0
        self._before = (Usage(), 0)  # what was used, and the steps, until it paused the last time

    def take(self, event: Mapping[str, Any]) -> None:
        """Read one AG-UI event; what is unknown, or has a field of another kind, says nothing."""
        kind = event.get("type")
        if kind == EventType.STATE_SNAPSHOT and isinstance(event.get("snapshot"), dict):
            self.state = event["snapshot"]
        elif kind == EventType.CUSTOM:
            self._take_back(event.get("name"))
        elif kind in TERMINAL:
            self._add_up(event.get("usage"))
            self._count(event.get("result" if kind == EventType.RUN_FINISHED else "rawEvent"))
            if is_interrupted(event):
                self._before = (self.usage, self.steps)
        for occurrence in self._reader.read(event):
            match occurrence:
                case Text(delta):
                    self._spoken.append(self._cut(delta))
                case Called(call_id, name, arguments):
                    self._speak()
                    text = self._cut(msgspec.json.encode(arguments).decode())
                    self._messages.append(
                        _message("assistant", tool_calls=[ToolCall(call_id, FunctionCall(name, text))])
                    )
                case ToolResult(call, result):
                    content = result if isinstance(result, str) else _json(UNANSWERED if result is None else result)
                    self._messages.append(_message("tool", content=self._cut(content), tool_call_id=call.id))
                case Step(is_start=True):
                    self.steps += 1
                    self._step_from = len(self._spoken)
                case _:
                    pass

    def _take_back(self, name: object) -> None:
        if name == MODEL_RETRY:
            del self._spoken[self._step_from :]
        elif name == JOB_ATTEMPT:
            self._begin_anew()

    @property
    def output(self) -> str:
        """The text of the answer: all that the agent said, in paragraphs that tools stand between."""
        return "\n".join(text for text in (*self._texts, "".join(self._spoken)) if text.strip())

    def messages(self, run_id: str, at: float, *, is_over: bool = True) -> list[Message]:
        """Return what the agent said and did, in order, for the session, when the run is over. A call without a result has one
        that says so: models refuse a conversation with a call that nothing follows. Not so where the run is not over: the
        result may come yet.
        """
        self._speak()
        answered = {message.tool_call_id for message in self._messages if message.role == "tool"}
        found = []
        for message in self._messages:
            found.append(msgspec.structs.replace(message, run_id=run_id, at=at))
            for call in message.tool_calls:
                if is_over and call.id not in answered:
                    missing = _message("tool", content=_json(UNANSWERED), tool_call_id=call.id)
                    found.append(msgspec.structs.replace(missing, run_id=run_id, at=at))
        return found

    def _speak(self) -> None:
        text, self._spoken, self._step_from = "".join(self._spoken), [], 0
        if text.strip():
            self._texts.append(text)
            self._messages.append(_message("assistant", content=text))

    def _cut(self, text: str) -> str:
        text = text[: max(0, defaults.MAX_RUN_OUTPUT_CHARS - self._chars)]
        self._chars += len(text)
        return text

    def _add_up(self, listed: object) -> None:
        """Read AG-UI's own usage: one entry for each model that was called."""
        entries = [entry for entry in listed if isinstance(entry, Mapping)] if isinstance(listed, list) else []
        if entries:
            input_tokens, output_tokens, cached_tokens, reasoning_tokens = (
                sum(one for entry in entries if isinstance(one := entry.get(name), int) and one > 0) for name in _LISTED
            )
            self.usage = self._before[0].plus(Usage(input_tokens, output_tokens, cached_tokens, reasoning_tokens))

    def _count(self, told: object) -> None:
        if not isinstance(told, Mapping):
            return
        if isinstance(usage := told.get("usage"), Mapping):
            counts = {name: usage.get(name) for name in _COUNTS}
            cost, source = usage.get("cost_usd"), usage.get("cost_source")
            is_known = isinstance(cost, (int, float)) and not isinstance(cost, bool) and 0 <= cost < float("inf")
            told_usage = Usage(
                **{name: count for name, count in counts.items() if isinstance(count, int) and count > 0},
                cost_usd=float(cost) if is_known else None,  # type: ignore[arg-type]  # a number, where it is known
                cost_source=source if is_known and isinstance(source, str) else "",
            )
            self.usage = self._before[0].plus(told_usage)
        if isinstance(steps := told.get("steps"), int):
            self.steps = max(self.steps, self._before[1] + steps)


def _message(role: str, **fields: Any) -> Message:
    return Message(id=new_message_id(), role=role, **fields)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
