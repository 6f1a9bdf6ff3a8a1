"""The Agent Client Protocol (agentclientprotocol.com, version 1), as far as a client without files and terminals speaks it.

JSON-RPC 2.0, one message a line, on an agent's standard input and output. What is read here becomes AG-UI events. Pure.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from agentainerd.model.agui import EventType
from agentainerd.model.narration import Narration, Payloads, encode
from agentainerd.model.sessions import Message

VERSION = 1
METHOD_NOT_FOUND = -32601
ALLOWED = ("allow_once", "allow_always")
"""Kinds of permissions, in the order in which they are given: the container is the boundary."""
_DONE = ("completed", "failed")


def request(number: int, method: str, **params: object) -> bytes:
    """Return a request as a line."""
    return _line({"id": number, "method": method, "params": params})


def notification(method: str, **params: object) -> bytes:
    """Return a notification as a line."""
    return _line({"method": method, "params": params})


def initialize(number: int, version: str) -> bytes:
    """Return the first request; `version` is ours."""
    return request(
        number,
        "initialize",
        protocolVersion=VERSION,
        clientCapabilities={"fs": {"readTextFile": False, "writeTextFile": False}, "terminal": False},
        clientInfo={"name": "agentainerd", "version": version},
    )


def prompt(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return what a session's messages are as a prompt: the last one, and before it, as text, what was said by then."""
    *before, last = messages
    told = "\n\n".join(f"{message.role}: {message.content}" for message in before if message.content)
    history = [{"type": "text", "text": f"The conversation so far:\n\n{told}"}] if told else []
    return [*history, {"type": "text", "text": last.content}]


def reply(message: Mapping[str, Any]) -> bytes:
    """Return the answer to a request of the agent: permission is given, everything else is not there."""
    number = message.get("id")
    params = message.get("params")
    options = params.get("options") if isinstance(params, Mapping) else None
    if message.get("method") == "session/request_permission" and isinstance(options, list):
        kinds = {option.get("kind"): option.get("optionId") for option in options if isinstance(option, Mapping)}
        chosen = next((kinds[kind] for kind in ALLOWED if kind in kinds), None)
        outcome = {"outcome": "selected", "optionId": chosen} if chosen else {"outcome": "cancelled"}
        return _line({"id": number, "result": {"outcome": outcome}})
    return _line({"id": number, "error": {"code": METHOD_NOT_FOUND, "message": f"no {message.get('method')} here"}})


class AcpEvents:
    """Makes events of the updates of one prompt."""

    def __init__(self, run_id: str) -> None:
        self._narration = Narration(run_id)
        self._run_id = run_id
        self._open: set[str] = set()
        self._thought = ""

    def take(self, update: Mapping[str, Any]) -> Payloads:
        """Return the events of one `session/update`; what is unknown is passed on as CUSTOM."""
        kind = update.get("sessionUpdate")
        if kind == "agent_message_chunk":
            return [*self._end_thought(), *self._narration.text(_text(update.get("content")))]
        if kind == "agent_thought_chunk":
            return self._think(_text(update.get("content")))
        if kind == "tool_call":
            return [*self._end_thought(), *self._begin_call(update), *self._end_call(update)]
        if kind == "tool_call_update":
            return self._end_call(update)
        return [encode(EventType.CUSTOM, name=f"acp.{kind}", value=update)]

    def end(self) -> Payloads:
        """Return what closes what is open."""
        return [*self._end_thought(), *self._narration.pause()]

    def _think(self, delta: str) -> Payloads:
        found = []
        if not self._thought:
            self._thought = f"{self._run_id}-thought-{len(self._open)}"
            found = [
                *self._narration.pause(),
                encode(EventType.REASONING_START, messageId=self._thought),
                encode(EventType.REASONING_MESSAGE_START, messageId=self._thought, role="reasoning"),
            ]
        return [*found, encode(EventType.REASONING_MESSAGE_CONTENT, messageId=self._thought, delta=delta)]

    def _end_thought(self) -> Payloads:
        name, self._thought = self._thought, ""
        if not name:
            return []
        return [
            encode(EventType.REASONING_MESSAGE_END, messageId=name),
            encode(EventType.REASONING_END, messageId=name),
        ]

    def _begin_call(self, update: Mapping[str, Any]) -> Payloads:
        name = str(update.get("toolCallId"))
        self._open.add(name)
        arguments = update.get("rawInput")
        text = msgspec.json.encode(arguments).decode() if arguments is not None else ""
        return self._narration.call(name, str(update.get("title") or update.get("kind") or "tool"), text)

    def _end_call(self, update: Mapping[str, Any]) -> Payloads:
        name = str(update.get("toolCallId"))
        if update.get("status") not in _DONE or name not in self._open:
            return []
        self._open.discard(name)
        content = update.get("content")
        edits = [part for part in content if isinstance(part, Mapping)] if isinstance(content, list) else []
        said = "\n".join(filter(None, (_text(part.get("content")) for part in edits)))
        if not said and update.get("rawOutput") is not None:
            said = msgspec.json.encode(update["rawOutput"]).decode()
        changes = [
            encode(
                EventType.CUSTOM,
                name="file.changed",
                value={"path": str(part.get("path")), "operation": "modified" if part.get("oldText") else "created"},
            )
            for part in edits
            if part.get("type") == "diff" and update.get("status") == "completed"
        ]
        return [*self._narration.result(name, said or str(update.get("status"))), *changes]


def _text(content: object) -> str:
    return str(content.get("text") or "") if isinstance(content, Mapping) and content.get("type") == "text" else ""


def _line(message: Mapping[str, object]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", **message}) + b"\n"
