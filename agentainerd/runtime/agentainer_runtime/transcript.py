"""Makes the events of a run from what happens in it, and knows what is open, so that whatever ends it leaves nothing open."""

import json
import uuid
from collections.abc import Callable
from typing import Any

from agentainer_runtime import agui
from agentainer_runtime.agui import Event, event
from agentainer_runtime.approvals import Pending
from agentainer_runtime.provider import Call, Usage
from agentainer_runtime.tool import FileEdit

_MAX_DELTA_CHARS = 100_000  # an event has at most 1 MiB, and JSON makes six bytes of some characters
_MAX_DIFF_CHARS = 200_000


class Transcript:
    """Writes the events of one run through `emit`.

    Attributes:
        steps: how many were begun. usage: of the whole run. model: what was asked.
    """

    def __init__(self, emit: Callable[[Event], object], thread_id: str, run_id: str, model: str) -> None:
        self._emit = emit
        self._ids = {"threadId": thread_id, "runId": run_id}
        self._message_id = ""
        self._reasoning_id = ""
        self._step = ""
        self._calls: dict[str, Call] = {}
        self._said: list[str] = []
        self.model = model
        self.steps = 0
        self.usage = Usage()

    @property
    def open_calls(self) -> list[Call]:
        """The calls of tools that have no result yet, in order."""
        return list(self._calls.values())

    @property
    def text(self) -> str:
        """What the model has said in the answer that is being given."""
        return "".join(self._said)

    def started(self) -> None:
        """The run has begun."""
        self._emit(event(agui.RUN_STARTED, **self._ids, protocolVersion="1.0", metadata={"model": self.model}))

    def step(self, name: str = "") -> None:
        """The model is asked, or what is called `name` begins; ends the step before."""
        self._end_step()
        self.steps += 1
        self._step = name or f"step {self.steps}"
        self._said.clear()
        self._emit(event(agui.STEP_STARTED, stepName=self._step))

    def say(self, text: str) -> None:
        """The model said a piece of its answer."""
        if not text:
            return
        self._end_reasoning()
        if not self._message_id:
            self._message_id = _new_id("msg")
            self._emit(event(agui.TEXT_MESSAGE_START, messageId=self._message_id, role="assistant"))
        self._said.append(text)
        for piece in _pieces(text):
            self._emit(event(agui.TEXT_MESSAGE_CONTENT, messageId=self._message_id, delta=piece))

    def think(self, text: str) -> None:
        """The model thought a piece."""
        if not text:
            return
        self._end_text()
        if not self._reasoning_id:
            self._reasoning_id = _new_id("rsn")
            self._emit(event(agui.REASONING_START, messageId=self._reasoning_id))
            self._emit(event(agui.REASONING_MESSAGE_START, messageId=self._reasoning_id, role="reasoning"))
        for piece in _pieces(text):
            self._emit(event(agui.REASONING_MESSAGE_CONTENT, messageId=self._reasoning_id, delta=piece))

    def again(self, reason: str, attempt: int) -> None:
        """The answer broke off and is asked for once more: the text so far does not count."""
        discarded = self._message_id
        self.end_answer()
        value = {"reason": reason, "attempt": attempt, "discardedMessageId": discarded or None}
        self._emit(agui.custom("model.retry", value))

    def end_answer(self) -> str:
        """The model has said all of its answer: return it, once."""
        self._end_reasoning()
        self._end_text()
        said = self.text
        self._said.clear()
        return said

    def call(self, call: Call) -> None:
        """The model asks for a tool."""
        self.end_answer()
        self._calls[call.id] = call
        self._emit(event(agui.TOOL_CALL_START, toolCallId=call.id, toolCallName=call.name))
        for piece in _pieces(call.arguments):
            self._emit(event(agui.TOOL_CALL_ARGS, toolCallId=call.id, delta=piece))
        self._emit(event(agui.TOOL_CALL_END, toolCallId=call.id))

    def reopen(self, call: Call) -> None:
        """A call that a run before this one asked for is gone on with."""
        self._calls[call.id] = call

    def result(self, call_id: str, content: str) -> None:
        """A tool answered."""
        self._calls.pop(call_id, None)
        self._emit(
            event(agui.TOOL_CALL_RESULT, messageId=_new_id("res"), toolCallId=call_id, content=content, role="tool")
        )

    def edited(self, edit: FileEdit) -> None:
        """A tool changed a file."""
        diff = edit.diff
        if len(diff) > _MAX_DIFF_CHARS:
            diff = f"[{len(diff)} characters; the first {_MAX_DIFF_CHARS}:]\n{diff[:_MAX_DIFF_CHARS]}"
        self._emit(agui.custom("file.changed", {"path": edit.path, "operation": edit.operation, "diff": diff}))

    def note(self, name: str, value: Any) -> None:
        """Something that AG-UI has no event for."""
        self._emit(agui.custom(name, value))

    def finished(self) -> None:
        """The run came to its end."""
        self._close("the run has ended")
        result = {"usage": usage_fields(self.usage), "steps": self.steps, "model": self.model}
        self._emit(event(agui.RUN_FINISHED, **self._ids, result=result, usage=[self._agui_usage()]))

    def paused(self, pending: Pending) -> None:
        """The run ends with a question; the call that it is about stays open."""
        self._calls.pop(pending.call_id, None)
        self._close("the run waits for the user")
        outcome = {"type": "interrupt", "interrupts": [pending.interrupt()]}
        result = {"usage": usage_fields(self.usage), "steps": self.steps, "model": self.model}
        self._emit(event(agui.RUN_FINISHED, **self._ids, outcome=outcome, result=result, usage=[self._agui_usage()]))

    def failed(self, message: str, code: str) -> None:
        """The run ended before its end."""
        self._close(message)
        raw = {"usage": usage_fields(self.usage), "steps": self.steps, "model": self.model}
        self._emit(event(agui.RUN_ERROR, message=message, code=code, rawEvent=raw, usage=[self._agui_usage()]))

    def _close(self, reason: str) -> None:
        self.end_answer()
        for call in self.open_calls:
            self.result(call.id, json.dumps({"error": reason}))
        self._end_step()

    def _end_text(self) -> None:
        if self._message_id:
            self._emit(event(agui.TEXT_MESSAGE_END, messageId=self._message_id))
            self._message_id = ""

    def _end_reasoning(self) -> None:
        if self._reasoning_id:
            self._emit(event(agui.REASONING_MESSAGE_END, messageId=self._reasoning_id))
            self._emit(event(agui.REASONING_END, messageId=self._reasoning_id))
            self._reasoning_id = ""

    def _end_step(self) -> None:
        if self._step:
            self._emit(event(agui.STEP_FINISHED, stepName=self._step))
            self._step = ""

    def _agui_usage(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "model": self.model,
            "inputTokens": usage.input_tokens,
            "outputTokens": usage.output_tokens,
            "cachedInputTokens": usage.cached_tokens,
            "reasoningTokens": usage.reasoning_tokens,
        }


def usage_fields(usage: Usage) -> dict[str, Any]:
    """Return the usage as the contract of runs has it."""
    return {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "cost_usd": usage.cost_usd,
        "cost_source": usage.cost_source,
    }


def _pieces(text: str) -> list[str]:
    """Return a text as deltas that an event has room for; one of "" for none."""
    return [text[at : at + _MAX_DELTA_CHARS] for at in range(0, len(text), _MAX_DELTA_CHARS)] or [""]


def _new_id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"
