"""How a run ends: its last event, the agent's or one of ours, and what that makes of it."""

from dataclasses import dataclass
from typing import Any

from agentainerd.model.agui import EventType, is_cancelled
from agentainerd.model.narration import failed
from agentainerd.model.runs import RunCode, RunError, RunStatus

MAX_MESSAGE_CHARS = 2000
LOST = ("its container ended while it worked", RunCode.CONTAINER_LOST)
OUT_OF_MEMORY = ("its container had more memory than its limit allows", RunCode.OOM)
_NO_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


class Stopped(Exception):
    """The run is to end for a reason of ours: it was cancelled, or reached a limit."""


class Gone(Exception):
    """The container that has the run is gone for good, or for too long; `last` is how the run ends by that."""

    def __init__(self, why: tuple[str, RunCode]) -> None:
        super().__init__(why[0])
        self.last = ours(*why)


@dataclass(frozen=True, slots=True)
class Stop:
    """Why a run is to end, where it is us who want that."""

    code: RunCode
    message: str


@dataclass(frozen=True, slots=True)
class Last:
    """The event that a run, or a part of it, ends with; `is_ours`: the daemon says it, not the agent."""

    payload: bytes
    is_ours: bool


def ours(message: str, code: RunCode) -> Last:
    """Return the end of a run that did not complete, in our words."""
    return Last(failed(message, code), is_ours=True)


def on_one_line(payload: bytes) -> bytes:
    """Return JSON without line ends, which are white space there: it goes into one line of a stream."""
    return payload.translate(_NO_LINE_ENDS)


def outcome(event: dict[str, Any], stop: Stop | None, spent: str) -> tuple[RunStatus, RunError | None]:
    """Return what a run is by its last event. `stop`: why we had it end, None where we did not. `spent`: says that it cost what
    it may, "" where it did not.
    """
    if event.get("type") == EventType.RUN_FINISHED and not is_cancelled(event):
        return RunStatus.COMPLETED, None
    if is_cancelled(event):
        event = {"code": RunCode.CANCELLED, "message": "the agent says that it was cancelled"}
    code, message = str(event.get("code") or RunCode.ERROR), str(event.get("message") or "the agent failed")
    if stop is not None:
        code, message = stop.code, stop.message
    elif spent and code in (RunCode.ERROR, RunCode.MODEL_ERROR):
        code, message = RunCode.COST_LIMIT, spent  # it was refused a call, and knows no better word for that
    status = RunStatus.CANCELLED if code == RunCode.CANCELLED else RunStatus.FAILED
    return status, RunError(code, message[:MAX_MESSAGE_CHARS])
