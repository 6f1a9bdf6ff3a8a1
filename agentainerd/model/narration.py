"""AG-UI events for containers that do not speak AG-UI: a link says what the agent did, and gets the events that tell it. Pure."""

from collections.abc import Mapping

import msgspec

from agentainerd.model.agui import EventType

Payloads = list[bytes]


def encode(kind: EventType, **fields: object) -> bytes:
    """Return one event as JSON."""
    return msgspec.json.encode({"type": kind, **fields})


def started(run_id: str, thread_id: str) -> bytes:
    """Return the first event of a run."""
    return encode(EventType.RUN_STARTED, threadId=thread_id, runId=run_id)


def finished(run_id: str, thread_id: str, result: Mapping[str, object] | None = None) -> bytes:
    """Return the last event of a run that completed."""
    return encode(EventType.RUN_FINISHED, threadId=thread_id, runId=run_id, **({"result": result} if result else {}))


def failed(message: str, code: str) -> bytes:
    """Return the last event of a run that did not."""
    return encode(EventType.RUN_ERROR, message=message, code=code)


class Narration:
    """Opens and closes text messages around what is said; names them after the run. `is_open`: it goes on where one that had one
    message open was cut off.
    """

    def __init__(self, run_id: str, *, is_open: bool = False) -> None:
        self._run_id = run_id
        self._count = int(is_open)
        self._message_id = f"{run_id}-1" if is_open else ""

    def text(self, delta: str) -> Payloads:
        """The agent says something."""
        found: Payloads = []
        if not delta:
            return found
        if not self._message_id:
            self._count += 1
            self._message_id = f"{self._run_id}-{self._count}"
            found.append(encode(EventType.TEXT_MESSAGE_START, messageId=self._message_id, role="assistant"))
        return [*found, encode(EventType.TEXT_MESSAGE_CONTENT, messageId=self._message_id, delta=delta)]

    def pause(self) -> Payloads:
        """What it said is whole."""
        name, self._message_id = self._message_id, ""
        return [encode(EventType.TEXT_MESSAGE_END, messageId=name)] if name else []

    def call(self, call_id: str, tool: str, arguments: str) -> Payloads:
        """It calls a tool; `arguments` is JSON as text."""
        return [
            *self.pause(),
            encode(EventType.TOOL_CALL_START, toolCallId=call_id, toolCallName=tool),
            *([encode(EventType.TOOL_CALL_ARGS, toolCallId=call_id, delta=arguments)] if arguments else []),
            encode(EventType.TOOL_CALL_END, toolCallId=call_id),
        ]

    def result(self, call_id: str, content: str) -> Payloads:
        """A tool answered."""
        name = f"{self._run_id}-{call_id}"
        return [encode(EventType.TOOL_CALL_RESULT, messageId=name, toolCallId=call_id, content=content, role="tool")]
