"""A run told as the document of the autonomous agent has it: server-sent events of data only, told apart by `type`.

`text`, `tool-call`, `tool-result` and `file-edit` as they happen, then `done` with the state of the conversation, or `error`.
Thoughts and steps have no frame. No ids and no heartbeat, as clients of this format split the stream at line ends. No I/O.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from agentainerd.model.interrupts import question_of
from agentainerd.model.occurrences import (
    Ended,
    FileChange,
    Occurrence,
    OccurrenceReader,
    Paused,
    Text,
    ToolCall,
    ToolResult,
)
from agentainerd.model.run_results import RunResult


def error_frame(message: str) -> bytes:
    """Return the frame that ends a stream which can't be gone on with."""
    return b"data: " + msgspec.json.encode({"type": "error", "error": message}) + b"\n\n"


class BridgeProjection:
    """The events of one run, from its first to its last, in this dialect.

    `asked`: what the user said. `history`: what was said before, `{"role", "content"}` each, for the state at the end.
    """

    def __init__(self, asked: str, history: Sequence[Mapping[str, str]] = ()) -> None:
        self._reader = OccurrenceReader()
        self._result = RunResult()
        self._history = [*history, {"role": "user", "content": asked}]
        self._calls: list[dict[str, object]] = []
        self._edits: list[dict[str, object]] = []
        self._waits: Paused | None = None

    def feed(self, event: Mapping[str, object], at: float) -> list[bytes]:
        """Return what one AG-UI event of the run is in this dialect, as frames; `at`: when it came, epoch seconds."""
        moment = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
        self._waits = None
        self._result.take(event)
        return [
            b"data: " + msgspec.json.encode(data) + b"\n\n"
            for occurrence in self._reader.read(event)
            for data in self._say(occurrence, moment)
        ]

    def rest(self) -> list[bytes]:
        """Return the end of a stream that ends because the run waits for an answer: what is asked, as if the agent had said it,
        and `done`. What is said to it next is the answer. [] where it does not wait.
        """
        if self._waits is None:
            return []
        asked = question_of(self._waits.interrupts)
        said = f"{self._result.output}\n{asked}".strip()
        frames = ({"type": "text", "content": asked}, {"type": "done", "state": self._state(said)})
        return [b"data: " + msgspec.json.encode(frame) + b"\n\n" for frame in frames]

    def _say(self, occurrence: Occurrence, moment: str) -> Iterator[dict[str, object]]:
        match occurrence:
            case Paused():
                self._waits = occurrence
            case Text(delta):
                yield {"type": "text", "content": delta}
            case ToolCall(call_id, name, arguments):
                self._calls.append({"id": call_id, "name": name, "arguments": arguments, "timestamp": moment})
                yield {"type": "tool-call", "toolName": name, "toolCallId": call_id, "args": arguments}
            case ToolResult(call, result) if result is not None:
                yield {"type": "tool-result", "toolName": call.name, "toolCallId": call.id, "result": result}
            case FileChange(path, operation, diff):
                edit: dict[str, object] = {"path": path, "operation": operation, "timestamp": moment}
                self._edits.append({**edit, "diff": diff} if diff else edit)
                yield {"type": "file-edit", "fileEdit": self._edits[-1]}
            case Ended(code, message) if code:
                yield {"type": "error", "error": message or code}
            case Ended():
                yield {"type": "done", "state": self._state(self._result.output)}
            case _:
                return

    def _state(self, said: str) -> dict[str, object]:
        """What `GET /agent/status` of that document answers when a run is over, or waits for an answer."""
        return {
            "initialized": True,
            "conversationHistory": [*self._history, {"role": "assistant", "content": said}],
            "toolCallsCount": len(self._calls),
            "isExecuting": False,
            "toolCalls": self._calls,
            "filesEdited": self._edits,
        }
