"""AG-UI 1.0, the events that a run is a log of: their names, and what each must carry. event_sequences.py has their order.

Fields are those of the wire (camelCase); null is as good as absent where a field may be absent. Nothing here does I/O.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

Event = dict[str, Any]


class EventType(StrEnum):
    """The types of AG-UI 1.0. Older producers also send THINKING_*, which 1.0 replaced by REASONING_*."""

    RUN_STARTED = "RUN_STARTED"
    RUN_FINISHED = "RUN_FINISHED"
    RUN_ERROR = "RUN_ERROR"
    STEP_STARTED = "STEP_STARTED"
    STEP_FINISHED = "STEP_FINISHED"
    TEXT_MESSAGE_START = "TEXT_MESSAGE_START"
    TEXT_MESSAGE_CONTENT = "TEXT_MESSAGE_CONTENT"
    TEXT_MESSAGE_END = "TEXT_MESSAGE_END"
    TEXT_MESSAGE_CHUNK = "TEXT_MESSAGE_CHUNK"
    TOOL_CALL_START = "TOOL_CALL_START"
    TOOL_CALL_ARGS = "TOOL_CALL_ARGS"
    TOOL_CALL_END = "TOOL_CALL_END"
    TOOL_CALL_CHUNK = "TOOL_CALL_CHUNK"
    TOOL_CALL_RESULT = "TOOL_CALL_RESULT"
    REASONING_START = "REASONING_START"
    REASONING_MESSAGE_START = "REASONING_MESSAGE_START"
    REASONING_MESSAGE_CONTENT = "REASONING_MESSAGE_CONTENT"
    REASONING_MESSAGE_END = "REASONING_MESSAGE_END"
    REASONING_MESSAGE_CHUNK = "REASONING_MESSAGE_CHUNK"
    REASONING_END = "REASONING_END"
    REASONING_ENCRYPTED_VALUE = "REASONING_ENCRYPTED_VALUE"
    STATE_SNAPSHOT = "STATE_SNAPSHOT"
    STATE_DELTA = "STATE_DELTA"
    MESSAGES_SNAPSHOT = "MESSAGES_SNAPSHOT"
    ACTIVITY_SNAPSHOT = "ACTIVITY_SNAPSHOT"
    ACTIVITY_DELTA = "ACTIVITY_DELTA"
    SUBAGENT_STARTED = "SUBAGENT_STARTED"
    SUBAGENT_FINISHED = "SUBAGENT_FINISHED"
    SUBAGENT_ERROR = "SUBAGENT_ERROR"
    RAW = "RAW"
    CUSTOM = "CUSTOM"


TERMINAL = frozenset({EventType.RUN_FINISHED, EventType.RUN_ERROR})
FILE_CHANGED = (
    "file.changed"  # the name of a CUSTOM event; its value: {path, operation: created|modified|deleted, diff?}
)

_ANY: tuple[type, ...] = (object,)
_TEXT: tuple[type, ...] = (str,)
_LIST: tuple[type, ...] = (list,)
_OBJECT: tuple[type, ...] = (dict,)

# What an event of each type must carry, as pydantic's models of AG-UI 1.0 ask for it (a test compares them).
REQUIRED: Mapping[EventType, Mapping[str, tuple[type, ...]]] = {
    EventType.RUN_STARTED: {"threadId": _TEXT, "runId": _TEXT},
    EventType.RUN_FINISHED: {"threadId": _TEXT, "runId": _TEXT},
    EventType.RUN_ERROR: {"message": _TEXT},
    EventType.STEP_STARTED: {"stepName": _TEXT},
    EventType.STEP_FINISHED: {"stepName": _TEXT},
    EventType.TEXT_MESSAGE_START: {"messageId": _TEXT},
    EventType.TEXT_MESSAGE_CONTENT: {"messageId": _TEXT, "delta": _TEXT},
    EventType.TEXT_MESSAGE_END: {"messageId": _TEXT},
    EventType.TEXT_MESSAGE_CHUNK: {},
    EventType.TOOL_CALL_START: {"toolCallId": _TEXT, "toolCallName": _TEXT},
    EventType.TOOL_CALL_ARGS: {"toolCallId": _TEXT, "delta": _TEXT},
    EventType.TOOL_CALL_END: {"toolCallId": _TEXT},
    EventType.TOOL_CALL_CHUNK: {},
    EventType.TOOL_CALL_RESULT: {"messageId": _TEXT, "toolCallId": _TEXT, "content": (str, list)},
    EventType.REASONING_START: {"messageId": _TEXT},
    EventType.REASONING_MESSAGE_START: {"messageId": _TEXT},
    EventType.REASONING_MESSAGE_CONTENT: {"messageId": _TEXT, "delta": _TEXT},
    EventType.REASONING_MESSAGE_END: {"messageId": _TEXT},
    EventType.REASONING_MESSAGE_CHUNK: {},
    EventType.REASONING_END: {"messageId": _TEXT},
    EventType.REASONING_ENCRYPTED_VALUE: {"subtype": _TEXT, "entityId": _TEXT, "encryptedValue": _TEXT},
    EventType.STATE_SNAPSHOT: {"snapshot": _ANY},
    EventType.STATE_DELTA: {"delta": _LIST},
    EventType.MESSAGES_SNAPSHOT: {"messages": _LIST},
    EventType.ACTIVITY_SNAPSHOT: {"messageId": _TEXT, "activityType": _TEXT, "content": _OBJECT},
    EventType.ACTIVITY_DELTA: {"messageId": _TEXT, "activityType": _TEXT, "patch": _LIST},
    EventType.SUBAGENT_STARTED: {"subagentRunId": _TEXT, "name": _TEXT},
    EventType.SUBAGENT_FINISHED: {"subagentRunId": _TEXT},
    EventType.SUBAGENT_ERROR: {"subagentRunId": _TEXT, "message": _TEXT},
    EventType.RAW: {"event": _ANY},
    EventType.CUSTOM: {"name": _TEXT, "value": _ANY},
}
# Fields that may be absent, wherever they are.
OPTIONAL: Mapping[str, tuple[type, ...]] = {
    "timestamp": (int,),
    "metadata": _OBJECT,
    "usage": _LIST,
    "outcome": _OBJECT,
    "code": _TEXT,
    "messageId": _TEXT,
    "toolCallId": _TEXT,
    "toolCallName": _TEXT,
    "parentMessageId": _TEXT,
    "role": _TEXT,
}


def is_cancelled(event: Mapping[str, Any]) -> bool:
    """Return whether it is a RUN_FINISHED that says that the run was cancelled, which is no success (AG-UI 1.0, `outcome`)."""
    outcome = event.get("outcome") if event.get("type") == EventType.RUN_FINISHED else None
    return isinstance(outcome, Mapping) and outcome.get("type") == "cancelled"
