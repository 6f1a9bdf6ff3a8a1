"""AG-UI events (protocol 1.0) as the dictionaries that go over the wire: one function a shape, and names for their types."""

import time
from typing import Any

RUN_STARTED = "RUN_STARTED"
RUN_FINISHED = "RUN_FINISHED"
RUN_ERROR = "RUN_ERROR"
STEP_STARTED = "STEP_STARTED"
STEP_FINISHED = "STEP_FINISHED"
TEXT_MESSAGE_START = "TEXT_MESSAGE_START"
TEXT_MESSAGE_CONTENT = "TEXT_MESSAGE_CONTENT"
TEXT_MESSAGE_END = "TEXT_MESSAGE_END"
REASONING_START = "REASONING_START"
REASONING_MESSAGE_START = "REASONING_MESSAGE_START"
REASONING_MESSAGE_CONTENT = "REASONING_MESSAGE_CONTENT"
REASONING_MESSAGE_END = "REASONING_MESSAGE_END"
REASONING_END = "REASONING_END"
TOOL_CALL_START = "TOOL_CALL_START"
TOOL_CALL_ARGS = "TOOL_CALL_ARGS"
TOOL_CALL_END = "TOOL_CALL_END"
TOOL_CALL_RESULT = "TOOL_CALL_RESULT"
CUSTOM = "CUSTOM"

TERMINAL = frozenset({RUN_FINISHED, RUN_ERROR})
Event = dict[str, Any]


def event(kind: str, **fields: Any) -> Event:
    """Return an event of this type, stamped with the time in milliseconds; fields that are None are left out."""
    stamped = {"type": kind, "timestamp": int(time.time() * 1000)}
    return {**stamped, **{name: value for name, value in fields.items() if value is not None}}


def custom(name: str, value: Any) -> Event:
    """Return an event that AG-UI has no type for."""
    return event(CUSTOM, name=name, value=value)
