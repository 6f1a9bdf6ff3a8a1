"""Runs on their way to a container and its events on their way back: one link a run, for each tier.

A link yields AG-UI events as JSON, with the numbers that the container gave them (0: it numbers none).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import msgspec

from agentainerd import defaults
from agentainerd.model.agui import EventType
from agentainerd.model.bridges import Bridge
from agentainerd.model.interrupts import Answer
from agentainerd.model.jobs import KIND, OUTPUT_DIR
from agentainerd.model.narration import Narration, encode, failed, finished, started
from agentainerd.model.openai_events import ChatCompletionEvents
from agentainerd.model.runs import Limits, Run, RunCode
from agentainerd.model.sessions import Message
from agentainerd.model.sse import Message as SseMessage
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import AgentCall, CallBroken

SSE = "text/event-stream"
JSON = "application/json"
MAX_URL_CHARS = 2000  # of an attachment's address that is named in text; a data URL is not worth more
TOLD_BYTES = 500  # of what an agent answered instead
MAX_ANSWER_BYTES = defaults.MAX_RUN_BYTES
_TYPES = frozenset(EventType)

WaitS = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Sent:
    """One event as the agent sent it: its number there, and its JSON."""

    number: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Task:
    """What an agent gets: the run, the messages of its session with the input as the last one, and the session's state.

    Where the run goes on after it was paused, what was said and done in it follows the input. `answers`: to what the agent asked
    for; of a run that begins, to what an earlier one of the session did. `limits`: what is left of the run's.
    """

    run: Run
    messages: Sequence[Message]
    state: Mapping[str, Any]
    answers: Sequence[Answer] = ()
    limits: Limits = Limits()

    @property
    def thread_id(self) -> str:
        """What the agent calls the conversation: a run that stands alone is one of its own."""
        return self.run.session_id or self.run.id

    @property
    def attempt(self) -> int:
        """How often it was sent to an agent when it has been sent by this."""
        return self.run.attempt + (not self.run.is_given)


class RunRefused(Exception):
    """The agent did not take the run; `reason` says what it answered."""

    def __init__(self, reason: str, *, status: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Link(Protocol):
    """One run at one container. All methods but `abort` are for one greenlet."""

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """Send the run, and return its events; `wait_s` says how long the next may take.

        Raises:
            CallBroken: the connection ended. RunRefused.
        """

    def abort(self) -> None:
        """Break it off, from any greenlet."""

    def close(self) -> None:
        """Let go of the connection."""


class _HttpLink:
    """What all of them have in common: one call, which is the run's."""

    def __init__(self, target: Target, task: Task) -> None:
        self._call = AgentCall(target)
        self._task = task

    def abort(self) -> None:
        """See Link."""
        self._call.abort()

    def close(self) -> None:
        """See Link."""
        self._call.close()


class InvocationLink(_HttpLink):
    """`POST /invocations`: AG-UI where the answer is that, else whatever comes, as text. `after`: join again after that event."""

    def __init__(self, target: Target, task: Task, *, after: int = 0) -> None:
        super().__init__(target, task)
        self._after = after

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """See Link."""
        call = self._call
        if self._after:
            path = f"/runs/{self._task.run.part_id}/events?after={self._after}"
            call.send("GET", path, None, {"Accept": SSE}, timeout_s=wait_s())
        else:
            body = msgspec.json.encode(_input(self._task))
            headers = {"Content-Type": JSON, "Accept": f"{SSE}, {JSON}", **_names(self._task)}
            call.send("POST", "/invocations", body, headers, timeout_s=wait_s())
        _require_ok(call)
        if call.content_type == SSE:
            yield from _as_sent(call, wait_s, self._task)
        else:
            yield from _whole(call, wait_s, self._task)


class ChatLink(_HttpLink):
    """`POST /v1/chat/completions`."""

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """See Link."""
        call, task = self._call, self._task
        body = {
            "model": task.run.model or "agent",
            "messages": [*map(chat_message, task.messages[:-1]), _question(task)],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        headers = {"Content-Type": JSON, "Accept": f"{SSE}, {JSON}", **_names(task)}
        call.send("POST", "/v1/chat/completions", msgspec.json.encode(body), headers, timeout_s=wait_s())
        _require_ok(call)
        chat = ChatCompletionEvents(task.thread_id, task.run.id)
        yield from _sent(chat.start())
        if call.content_type != SSE:
            yield from _sent(chat.whole(call.body(MAX_ANSWER_BYTES, wait_s())))
            return
        for message in call.messages(wait_s):
            yield from _sent(chat.feed(message.data))
        yield from _sent(chat.end())


class ExecuteLink(_HttpLink):
    """`POST /agent/execute` of the autonomous-agent document: the session's messages are given as its history."""

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """See Link."""
        task = self._task
        history = [
            {"role": message.role, "content": message.content}
            for message in task.messages[:-1]
            if message.role in ("user", "assistant") and message.content
        ]
        body: dict[str, object] = {"task": spoken_input(task.run), "conversationHistory": history}
        if task.run.model:
            body["model"] = task.run.model
        headers = {"Content-Type": JSON, "Accept": SSE, **_names(task)}
        self._call.send("POST", "/agent/execute", msgspec.json.encode(body), headers, timeout_s=wait_s())
        _require_ok(self._call)
        yield Sent(0, started(task.run.id, task.thread_id))
        narration = Narration(task.run.id)
        for message in self._call.messages(wait_s):
            for payload in _told(narration, message.data, task):
                yield Sent(0, payload)


def link(bridge: Bridge, target: Target, task: Task, *, after: int = 0) -> Link:
    """Return a link of a tier that is HTTP. `after`: of a run that the container has already, the last event that is known."""
    if bridge is Bridge.OPENAI:
        return ChatLink(target, task)
    if bridge is Bridge.BRIDGE:
        return ExecuteLink(target, task)
    return InvocationLink(target, task, after=after)


def ask_to_cancel(target: Target, run_id: str, timeout_s: float) -> bool:
    """Tell a native container to end a run; return whether it will. Raises nothing."""
    call = AgentCall(target)
    try:
        call.send("POST", f"/runs/{run_id}/cancel", b"", {"Content-Length": "0"}, timeout_s=timeout_s)
        return 200 <= call.status < 300
    except CallBroken:
        return False
    finally:
        call.close()


def probe(target: Target, timeout_s: float) -> Bridge | None:
    """Ask a container what it speaks; None: nothing that we know.

    Raises:
        CallBroken: it does not answer at all.
    """
    status, answer = _get(target, "/ping", timeout_s)
    if status == 200 and str(answer.get("status", "")).lower() in ("healthy", "healthybusy"):
        named = str(answer.get("bridge", ""))
        return Bridge(named) if named in tuple(Bridge) else Bridge.AGUI
    status, answer = _get(target, "/v1/models", timeout_s)
    if status == 200 and isinstance(answer.get("data"), list):
        return Bridge.OPENAI
    status, answer = _get(target, "/agent/status", timeout_s)
    return Bridge.BRIDGE if status == 200 and "initialized" in answer else None


def is_busy(target: Target, timeout_s: float) -> bool:
    """Ask a container whether something goes on in it. Raises nothing: one that does not answer is not."""
    try:
        status, answer = _get(target, "/ping", timeout_s)
    except CallBroken:
        return False
    return status == 200 and str(answer.get("status", "")).lower() == "healthybusy"


def chat_message(message: Message) -> dict[str, object]:
    """Return a message as OpenAI's chat completions have it."""
    found: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        found["content"] = message.content or None
        found["tool_calls"] = message.tool_calls
    if message.tool_call_id:
        found["tool_call_id"] = message.tool_call_id
    return found


def _question(task: Task) -> dict[str, object]:
    """Return the input as OpenAI's chat completions have it: images beside the text, which names other attachments."""
    images = [one for one in task.run.media if one.get("type") == "image" and one.get("url")]
    if not images:
        return {"role": "user", "content": spoken_input(task.run)}
    shown: list[dict[str, object]] = [{"type": "image_url", "image_url": {"url": one["url"]}} for one in images]
    return {"role": "user", "content": [{"type": "text", "text": spoken_input(task.run, but=images)}, *shown]}


def spoken_input(run: Run, but: Sequence[dict[str, object]] = ()) -> str:
    """Return the input as text, with a line for each attachment that is not in `but`: for agents that are given text only."""
    named = []
    for one in run.media:
        if one not in but:
            place = str(one.get("url") or one.get("path"))[:MAX_URL_CHARS]
            named.append(f"Attached {one.get('type')}: {one.get('name') or 'without a name'} ({place})")
    return "\n\n".join(filter(None, (run.input, "\n".join(named))))


def agui_message(message: Message) -> dict[str, object]:
    """Return a message as AG-UI has it."""
    found: dict[str, object] = {"id": message.id, "role": message.role, "content": message.content}
    if message.tool_calls:
        found["toolCalls"] = message.tool_calls
    if message.tool_call_id:
        found["toolCallId"] = message.tool_call_id
    return found


def _input(task: Task) -> dict[str, object]:
    """RunAgentInput of AG-UI, and beside it what AgentCore's samples read."""
    run = task.run
    return {
        "threadId": task.thread_id,
        "runId": run.part_id,
        "messages": [agui_message(message) for message in task.messages],
        "state": task.state,
        "tools": [],
        "context": [],
        "forwardedProps": {
            "limits": {name: getattr(task.limits, name) for name in ("steps", "wall_s", "cost_usd")},
            "model": run.model or None,
            "media": run.media,
            "interrupts": True,
            **({"job": {"id": run.id, "attempt": task.attempt, "output_dir": OUTPUT_DIR}} if run.kind == KIND else {}),
        },
        **({"resume": [answer.entry() for answer in task.answers]} if task.answers else {}),
        "prompt": run.input,
        "input": run.input,
    }


def _names(task: Task) -> dict[str, str]:
    return {
        "X-Agentainer-Run-Id": task.run.id,
        "X-Agentainer-Session-Id": task.thread_id,
        "X-Amzn-Bedrock-AgentCore-Runtime-Session-Id": task.thread_id,
    }


def _require_ok(call: AgentCall) -> None:
    if 200 <= call.status < 300:
        return
    try:
        told = call.body(TOLD_BYTES * 100, defaults.CONNECT_TIMEOUT_S)[:TOLD_BYTES].decode("utf-8", "replace").strip()
    except CallBroken:
        told = ""
    raise RunRefused(f"the agent answered {call.status}{f': {told}' if told else ''}", status=call.status)


def _as_sent(call: AgentCall, wait_s: WaitS, task: Task) -> Iterator[Sent]:
    """AG-UI events as they come. A stream of anything else is told as text."""
    messages = call.messages(wait_s)
    first = next(messages, None)
    if first is None:
        return
    event = _decoded(first.data)
    if isinstance(event, dict) and event.get("type") in _TYPES:
        yield Sent(_number(first), first.data)
        yield from (Sent(_number(message), message.data) for message in messages)
        return
    narration = Narration(task.run.id)
    yield Sent(0, started(task.run.id, task.thread_id))
    for message in chain((first,), messages):
        yield from (Sent(0, payload) for payload in narration.text(_text_of(message.data)))
    yield from (Sent(0, payload) for payload in narration.pause())
    yield Sent(0, finished(task.run.id, task.thread_id))


def _number(message: SseMessage) -> int:
    return int(message.id) if message.id.isascii() and message.id.isdigit() else 0


def _whole(call: AgentCall, wait_s: WaitS, task: Task) -> Iterator[Sent]:
    body = call.body(MAX_ANSWER_BYTES, wait_s())
    yield Sent(0, started(task.run.id, task.thread_id))
    narration = Narration(task.run.id)
    for payload in (*narration.text(_text_of(body)), *narration.pause()):
        yield Sent(0, payload)
    yield Sent(0, finished(task.run.id, task.thread_id))


def _text_of(data: bytes) -> str:
    """Return what an answer says: the text under the name that samples of AgentCore use, a JSON string, or all of it."""
    value = _decoded(data)
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        for name in ("result", "response", "output", "content", "text", "data", "message"):
            if isinstance(value.get(name), str):
                return str(value[name])
    return data.decode("utf-8", "replace")


def _told(narration: Narration, data: bytes, task: Task) -> list[bytes]:
    """One frame of the autonomous-agent document as AG-UI events."""
    frame = _decoded(data)
    frame = frame if isinstance(frame, dict) else {}
    call_id, tool = str(frame.get("toolCallId") or ""), str(frame.get("toolName") or "")
    match frame.get("type"):
        case "text":
            return narration.text(str(frame.get("content") or ""))
        case "tool-call":
            return narration.call(call_id, tool, msgspec.json.encode(frame.get("args") or {}).decode())
        case "tool-result":
            return narration.result(call_id, msgspec.json.encode(frame.get("result")).decode())
        case "file-edit":
            return [encode(EventType.CUSTOM, name="file.changed", value=frame.get("fileEdit"))]
        case "done":
            return [*narration.pause(), finished(task.run.id, task.thread_id)]
        case "error":
            return [*narration.pause(), failed(str(frame.get("error") or "the agent failed"), RunCode.ERROR)]
        case _:
            return []


def _sent(events: Sequence[Mapping[str, Any]]) -> Iterator[Sent]:
    return (Sent(0, msgspec.json.encode(event)) for event in events)


def _decoded(data: bytes) -> object:
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _get(target: Target, path: str, timeout_s: float) -> tuple[int, dict[str, Any]]:
    call = AgentCall(target)
    try:
        call.send("GET", path, None, {"Accept": JSON}, timeout_s=timeout_s)
        body = _decoded(call.body(64 * 1024, timeout_s))
        return call.status, body if isinstance(body, dict) else {}
    finally:
        call.close()
