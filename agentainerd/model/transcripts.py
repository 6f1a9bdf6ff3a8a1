"""What a run's events come to: the text of the answer, the messages for the conversation, the usage. Pure."""

from collections.abc import Mapping
from typing import Any

from agentainerd import defaults
from agentainerd.model.runs import RUN_ERROR, RUN_FINISHED, Usage
from agentainerd.model.sessions import FunctionCall, Message, ToolCall, new_message_id

_TEXT = ("TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CHUNK")
_ARGUMENTS = ("TOOL_CALL_ARGS", "TOOL_CALL_CHUNK")


class Transcript:
    """Reads events in order. Bounded: what is longer than a message may be is cut, and the event log has it whole.

    Attributes:
        steps: calls of the model. usage: the last that was told. state: of the last STATE_SNAPSHOT, or None.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.usage = Usage()
        self.state: dict[str, Any] | None = None
        self._messages: list[Message] = []
        self._text: dict[str, list[str]] = {}
        self._order: list[tuple[str, str]] = []
        self._calls: dict[str, tuple[str, list[str]]] = {}
        self._results: dict[str, str] = {}
        self._chars = 0

    def take(self, event: Mapping[str, Any]) -> None:
        """Read one AG-UI event; what is unknown, or has a field of another kind, says nothing."""
        kind = event.get("type")
        if kind in _TEXT:
            self._add_text(_text(event, "messageId"), _text(event, "delta"))
        elif kind == "TOOL_CALL_START":
            self._call(_text(event, "toolCallId"), _text(event, "toolCallName"))
        elif kind in _ARGUMENTS:
            self._call(_text(event, "toolCallId"), _text(event, "toolCallName"), _text(event, "delta"))
        elif kind == "TOOL_CALL_RESULT":
            self._results[_text(event, "toolCallId")] = self._cut(_text(event, "content"))
        elif kind == "STEP_STARTED":
            self.steps += 1
        elif kind == "STATE_SNAPSHOT" and isinstance(event.get("snapshot"), dict):
            self.state = event["snapshot"]
        elif kind == RUN_FINISHED:
            self._usage(event.get("result"))
        elif kind == RUN_ERROR:
            self._usage(event.get("rawEvent"))

    @property
    def output(self) -> str:
        """The text of the answer, of at most MAX_RUN_OUTPUT_CHARS."""
        texts = ["".join(self._text[name]) for kind, name in self._order if kind == "text"]
        return "\n".join(text for text in texts if text)[: defaults.MAX_RUN_OUTPUT_CHARS]

    def messages(self, run_id: str, at: float) -> list[Message]:
        """Return what the agent said and did, in order. A call without a result gets one that says so: a model refuses a
        conversation with a call that nothing follows.
        """
        found: list[Message] = []
        for kind, name in self._order:
            if kind == "text":
                if text := "".join(self._text[name]):
                    found.append(Message(id=new_message_id(), role="assistant", content=text, run_id=run_id, at=at))
                continue
            tool, arguments = self._calls[name]
            call = ToolCall(name, FunctionCall(tool, "".join(arguments)))
            found.append(Message(id=new_message_id(), role="assistant", tool_calls=[call], run_id=run_id, at=at))
            result = self._results.get(name, '{"error": "the run ended before this tool had an answer"}')
            found.append(
                Message(id=new_message_id(), role="tool", content=result, tool_call_id=name, run_id=run_id, at=at)
            )
        return found

    def _add_text(self, name: str, delta: str) -> None:
        if name not in self._text:
            self._text[name] = []
            self._order.append(("text", name))
        self._text[name].append(self._cut(delta))

    def _call(self, name: str, tool: str, delta: str = "") -> None:
        if name not in self._calls:
            self._calls[name] = (tool, [])
            self._order.append(("call", name))
        if delta:
            self._calls[name][1].append(self._cut(delta))

    def _cut(self, text: str) -> str:
        text = text[: max(0, defaults.MAX_RUN_OUTPUT_CHARS - self._chars)]
        self._chars += len(text)
        return text

    def _usage(self, told: object) -> None:
        usage = told.get("usage") if isinstance(told, dict) else None
        if isinstance(usage, dict):
            cost = usage.get("cost_usd")
            known = isinstance(cost, (int, float)) and not isinstance(cost, bool) and cost >= 0
            self.usage = Usage(
                **{name: _count(usage, name) for name in _COUNTS},
                cost_usd=float(cost) if known else None,  # type: ignore[arg-type]  # it is a number where `known`
                cost_source=_text(usage, "cost_source") if known else "",
            )
        steps = told.get("steps") if isinstance(told, dict) else None
        if isinstance(steps, int) and steps > self.steps:
            self.steps = steps


_COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


def _text(event: Mapping[str, Any], name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""


def _count(usage: Mapping[str, Any], name: str) -> int:
    value = usage.get(name)
    return value if isinstance(value, int) and value >= 0 else 0
