"""Chunks of OpenAI's chat completions -> events of AG-UI, one at a time, for agents that speak nothing else.

Providers differ in what they stream, and every rule here is one of theirs: the index of a tool call may be missing (Gemini),
0 for all (Ollama) or wrong (DeepSeek), so a known id decides first, and a new id on a taken index is a new call; the name may
come late; arguments may be null, pieces, or an object; usage comes with `choices: []`; an error may come in the middle of a
200; `finish_reason` may be missing. A stream that ends without `[DONE]` and without a finish_reason has broken off, and is
an error. Nothing here does I/O; frames are taken apart by sse.py.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from agentainerd.model.agui import Event, EventType

DONE = b"[DONE]"
CODE = "model_error"


@dataclass(slots=True)
class _Call:
    """A tool call that is being streamed. It begins when its name is known; arguments wait for that."""

    id: str
    name: str = ""
    waiting: str = ""
    last: str = ""  # the last character of the arguments that is no space
    has_begun: bool = False


class ChatCompletionEvents:
    """Makes the events of one run from the answer of one chat completion, streamed or whole.

    `start()`, then `feed()` for the data of each SSE frame (or `whole()` for an answer that was not streamed), then
    `end()` when the answer is over. After a terminal event nothing more comes: everything returns [].
    """

    def __init__(self, thread_id: str, run_id: str) -> None:
        self._thread_id = thread_id
        self._run_id = run_id
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._text_id = ""
        self._thought_id = ""
        self._ids = 0
        self._usage: Event | None = None
        self._finish_reason = ""
        self._is_done = False
        self._has_ended = False

    @property
    def has_ended(self) -> bool:
        """Whether the terminal event was given: the rest of the answer need not be read."""
        return self._has_ended

    def start(self) -> list[Event]:
        """Return the run's first event."""
        return [{"type": EventType.RUN_STARTED, "threadId": self._thread_id, "runId": self._run_id}]

    def feed(self, data: bytes) -> list[Event]:
        """Take the data of one SSE frame: a chunk as JSON, or `[DONE]`; return its events."""
        if self._has_ended or self._is_done:
            return []
        if data.strip() == DONE:
            self._is_done = True
            return []
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            return self.fail(f"the agent streamed what is no JSON: {data[:80]!r}")
        return self._take(chunk)

    def whole(self, body: bytes) -> list[Event]:
        """Take an answer that was not streamed (`chat.completion`), and return all its events with the terminal one."""
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            return self.fail(f"the agent answered what is no JSON: {body[:80]!r}")
        events = self._take(answer)
        if not self._has_ended and not (isinstance(answer, dict) and answer.get("choices")):
            events += self.fail("the agent's answer has no choices")
        self._is_done = True
        return events + self.end()

    def end(self) -> list[Event]:
        """Return the last events, now that the answer is over: RUN_FINISHED, or RUN_ERROR where it broke off."""
        if self._has_ended:
            return []
        if not (self._is_done or self._finish_reason):
            return self.fail("the agent's answer broke off: no finish_reason and no [DONE] came")
        events = self._close()
        self._has_ended = True
        pending = [call.id for call in self._calls]
        finished: Event = {"type": EventType.RUN_FINISHED, "threadId": self._thread_id, "runId": self._run_id}
        if pending:
            finished["outcome"] = {"type": "success", "pendingToolCallIds": pending}
        return [*events, finished | {"result": self._result()}]

    def fail(self, message: str, code: str = CODE) -> list[Event]:
        """End the run with RUN_ERROR: what is open is closed before it. Also for what the transport ran into."""
        if self._has_ended:
            return []
        events = self._close()
        self._has_ended = True
        error: Event = {"type": EventType.RUN_ERROR, "message": message, "code": code, "rawEvent": self._result()}
        return [*events, error]

    def _take(self, chunk: object) -> list[Event]:
        if not isinstance(chunk, dict):
            return self.fail(f"the agent sent a chunk that is not an object: {chunk!r:.80}")
        if error := chunk.get("error"):
            return self.fail(_message_of(error))
        if isinstance(usage := chunk.get("usage"), dict):
            self._usage = _usage_of(usage)
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return []
        delta = choice.get("delta") or choice.get("message")
        events = list(self._delta(delta)) if isinstance(delta, dict) else []
        if isinstance(reason := choice.get("finish_reason"), str) and reason:
            self._finish_reason = reason
            if reason == "error":
                return events + self.fail("the agent's model ended with an error")
        return events

    def _delta(self, delta: Event) -> Iterator[Event]:
        if thought := _text_of(delta.get("reasoning_content") or delta.get("reasoning")):
            yield from self._think(thought)
        if text := _text_of(delta.get("content")) or _text_of(delta.get("refusal")):
            yield from self._write(text)
        pieces = delta.get("tool_calls")
        pieces = list(pieces) if isinstance(pieces, list) else []
        if isinstance(old := delta.get("function_call"), dict):
            pieces.append({"index": 0, "function": old})
        for piece in pieces:
            if isinstance(piece, dict):
                yield from self._call(piece)

    def _think(self, text: str) -> Iterator[Event]:
        if not self._thought_id:
            yield from self._end_text()
            self._thought_id = self._new_id("thought")
            yield {"type": EventType.REASONING_START, "messageId": self._thought_id}
            yield {"type": EventType.REASONING_MESSAGE_START, "messageId": self._thought_id, "role": "reasoning"}
        yield {"type": EventType.REASONING_MESSAGE_CONTENT, "messageId": self._thought_id, "delta": text}

    def _write(self, text: str) -> Iterator[Event]:
        if not self._text_id:
            yield from self._end_thought()
            self._text_id = self._new_id("message")
            yield {"type": EventType.TEXT_MESSAGE_START, "messageId": self._text_id, "role": "assistant"}
        yield {"type": EventType.TEXT_MESSAGE_CONTENT, "messageId": self._text_id, "delta": text}

    def _call(self, piece: Event) -> Iterator[Event]:
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        name = name if isinstance(name := function.get("name"), str) else ""
        arguments = _arguments_of(function.get("arguments"))
        call = self._route(piece, name, arguments)
        call.name = call.name or name
        call.waiting += arguments
        call.last = arguments.rstrip()[-1:] or call.last
        if not call.name:
            return
        if not call.has_begun:
            yield from self._begin(call)
        if call.waiting:
            yield {"type": EventType.TOOL_CALL_ARGS, "toolCallId": call.id, "delta": call.waiting}
            call.waiting = ""

    def _begin(self, call: _Call) -> Iterator[Event]:
        yield from self._end_thought()
        yield from self._end_text()
        call.has_begun = True
        yield {"type": EventType.TOOL_CALL_START, "toolCallId": call.id, "toolCallName": call.name}

    def _route(self, piece: Event, name: str, arguments: str) -> _Call:
        """Return the call that a piece belongs to: by id, else by index, else the current one; or a new one."""
        index = index if isinstance(index := piece.get("index"), int) else None
        if isinstance(call_id := piece.get("id"), str) and call_id:
            return self._by_id.get(call_id) or self._new_call(call_id, index)
        current = self._calls[-1] if self._calls else None
        if index is not None:
            current = self._by_index.get(index) or (None if name else current)
        if current is None or (name and _is_another(current, name, arguments)):
            return self._new_call("", index)
        return current

    def _new_call(self, call_id: str, index: int | None) -> _Call:
        call = _Call(call_id or self._new_id("call"))
        self._calls.append(call)
        self._by_id[call.id] = call
        if index is not None:
            self._by_index[index] = call
        return call

    def _new_id(self, noun: str) -> str:
        self._ids += 1
        return f"{self._run_id}-{noun}-{self._ids}"

    def _end_text(self) -> Iterator[Event]:
        if self._text_id:
            yield {"type": EventType.TEXT_MESSAGE_END, "messageId": self._text_id}
            self._text_id = ""

    def _end_thought(self) -> Iterator[Event]:
        if self._thought_id:
            yield {"type": EventType.REASONING_MESSAGE_END, "messageId": self._thought_id}
            yield {"type": EventType.REASONING_END, "messageId": self._thought_id}
            self._thought_id = ""

    def _close(self) -> list[Event]:
        events = [*self._end_thought(), *self._end_text()]
        for call in self._calls:
            if not call.has_begun:
                call.name = "unknown"
                events += self._begin(call)
                if call.waiting:
                    events.append({"type": EventType.TOOL_CALL_ARGS, "toolCallId": call.id, "delta": call.waiting})
            events.append({"type": EventType.TOOL_CALL_END, "toolCallId": call.id})
        return events

    def _result(self) -> Event:
        """Return what the end of the run carries: `{steps, usage?, finish_reason?}`."""
        result: Event = {"steps": 1}
        if self._usage is not None:
            result["usage"] = self._usage
        if self._finish_reason:
            result["finish_reason"] = self._finish_reason
        return result


def _is_another(current: _Call, name: str, arguments: str) -> bool:
    """Return whether a piece with a name and without an id begins a call after `current`, which it would else be of.

    Some repeat the name with every piece, so a name alone says nothing; no JSON object goes on with `{` after `}`.
    """
    if current.name and name != current.name:
        return True
    return current.last == "}" and arguments.lstrip().startswith("{")


def _text_of(content: object) -> str:
    """Return the text of a content: text itself, or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in parts if isinstance(text, str))
    return ""


def _arguments_of(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value)


def _message_of(error: object) -> str:
    if isinstance(error, dict) and isinstance(error.get("message"), str) and error["message"]:
        return str(error["message"])
    return error if isinstance(error, str) else json.dumps(error)


def _usage_of(usage: Event) -> Event:
    """Return a run's usage: whole tokens, what was cached and thought within them, and the provider's own cost or null."""
    cost = usage.get("cost")
    is_cost = isinstance(cost, int | float) and not isinstance(cost, bool)
    return {
        "input_tokens": _tokens(usage, "prompt_tokens"),
        "output_tokens": _tokens(usage, "completion_tokens"),
        "cached_tokens": _tokens(usage.get("prompt_tokens_details"), "cached_tokens"),
        "reasoning_tokens": _tokens(usage.get("completion_tokens_details"), "reasoning_tokens"),
        "cost_usd": cost if is_cost else None,
        "cost_source": "provider" if is_cost else "",
    }


def _tokens(counts: Any, name: str) -> int:
    value = counts.get(name) if isinstance(counts, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
