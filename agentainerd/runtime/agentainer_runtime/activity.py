"""What the agent did lately, for whoever asks how it is doing: calls of tools and edits of files, in memory, bounded."""

import time
from collections import deque
from typing import Any

from agentainer_runtime.agui import CUSTOM, RUN_ERROR, RUN_STARTED, TOOL_CALL_ARGS, TOOL_CALL_START, Event

_KEPT = 200
_MAX_CHARS = 20_000  # of one text; the run's events have it whole


class Activity:
    """Looks on while events are written.

    Attributes:
        thread_id: of the run that began last; "" before the first. last_error: what a run failed of since that began.
        tool_calls_count: since the start.
    """

    def __init__(self) -> None:
        self.thread_id = ""
        self.last_error = ""
        self.tool_calls_count = 0
        self.tool_calls: deque[dict[str, Any]] = deque(maxlen=_KEPT)
        self.edits: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    def note(self, event: Event) -> None:
        """Take an event of any run."""
        kind = event["type"]
        if kind == RUN_STARTED:
            self.thread_id, self.last_error = event["threadId"], ""
        elif kind == RUN_ERROR:
            self.last_error = event["message"]
        elif kind == TOOL_CALL_START:
            self.tool_calls_count += 1
            call = {"id": event["toolCallId"], "name": event["toolCallName"], "arguments": "", "timestamp": _now_ms()}
            self.tool_calls.append(call)
        elif kind == TOOL_CALL_ARGS and self.tool_calls:
            call = self.tool_calls[-1]
            call["arguments"] = (call["arguments"] + event["delta"])[:_MAX_CHARS]
        elif kind == CUSTOM and event["name"] == "file.changed":
            edit = event["value"]
            self.edits.append({**edit, "diff": edit["diff"][:_MAX_CHARS], "timestamp": _now_ms()})


def _now_ms() -> int:
    return int(time.time() * 1000)
