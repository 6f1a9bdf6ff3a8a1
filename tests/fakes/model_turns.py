"""What a scripted model says, to whom, and what goes wrong while it does."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes.model_checks import Refusal, Said

NEVER = -1


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool; `arguments` as text is sent as it is, valid JSON or not. `id`: made from its place, if not given."""

    name: str
    arguments: Mapping[str, Any] | str = dataclasses.field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True, slots=True)
class When:
    """Regular expressions for what the request really has; "" fits anything.

    `system`: all system messages; `user`: the last message of the user; `tool`: the outputs of tools since the assistant's last
    words; `model`: what was asked for. `tools`: names that must be on offer.
    """

    system: str = ""
    user: str = ""
    tool: str = ""
    model: str = ""
    tools: tuple[str, ...] = ()

    def fits(self, said: Said) -> bool:
        """Whether all of them are found."""
        if self.tool and not said.tool:
            return False
        pairs = ((self.system, said.system), (self.user, said.user), (self.tool, said.tool), (self.model, said.model))
        return all(re.search(wanted, had, re.DOTALL) for wanted, had in pairs) and set(self.tools) <= set(said.tools)


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. Frames are counted from 0; one is one SSE event, the last of them [DONE].

    - `refusals` callers get `status` (with `retry_after_s`, where it is not negative) before the turn is played.
    - `first_token_s`, `pause_s`: before the answer; between frames. `stall_after`, `stall_s`: once, before that frame.
    - `cut_after`: nothing from that frame on; the body ends as if it were whole, with `reset` the connection breaks.
    - `error_after`: after that frame an error in the stream, with status 200, and its end.
    - `piece_bytes`: chunks of so many bytes (1: UTF-8 is cut anywhere). `newline`: what ends lines.
    - `comments`: comments between events. `late_name`: a tool's name after the first of its arguments.
    - `index`: of tool calls, "given", "missing" or "zero" for all. `null_arguments`: first null, then what they are.
    - `is_unstreamed`: the answer is whole, as JSON, whatever was asked for.
    - `is_usage_absent`, `is_finish_absent`, `is_done_absent`: what the end of the stream lacks.
    """

    refusals: int = 0
    status: int = 429
    retry_after_s: float = -1
    first_token_s: float = 0.0
    pause_s: float = 0.0
    stall_after: int = NEVER
    stall_s: float = 0.0
    cut_after: int = NEVER
    reset: bool = False
    error_after: int = NEVER
    piece_bytes: int = 0
    newline: str = "\n"
    comments: bool = False
    late_name: bool = False
    index: str = "given"
    null_arguments: bool = False
    is_unstreamed: bool = False
    is_usage_absent: bool = False
    is_finish_absent: bool = False
    is_done_absent: bool = False

    def refusal(self) -> Refusal:
        """Return what callers are told instead of an answer."""
        fields = {} if self.retry_after_s < 0 else {"Retry-After": f"{self.retry_after_s:g}"}
        kind = {429: "rate_limit_error", 402: "insufficient_quota"}.get(self.status, "server_error")
        return Refusal(self.status, "try again later", kind=kind, code="refused", fields=fields)

    def pieces(self, frame: bytes) -> Iterator[bytes]:
        """Return a frame as it is cut."""
        size = self.piece_bytes or len(frame)
        for start in range(0, len(frame), size):
            yield frame[start : start + size]


@dataclass(frozen=True, slots=True)
class Turn:
    """What the model says once it is asked what `when` describes, `times` times.

    `deltas`: the text in these pieces instead of words. `cost_usd`: what the provider says that it cost. `*_tokens`: instead of
    what was counted. `is_cut_off`: the provider says that the answer became too long (finish_reason "length").
    """

    text: str = ""
    calls: tuple[ToolCall, ...] = ()
    thinking: str = ""
    when: When = When()
    faults: Faults = Faults()
    times: int = 1
    deltas: tuple[str, ...] = ()
    cost_usd: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    is_cut_off: bool = False


def turns_from_json(scenario: list[dict[str, Any]]) -> list[Turn]:
    """Return the turns of a file."""
    return [_turn(entry) for entry in scenario]


def _turn(entry: dict[str, Any]) -> Turn:
    made = dict(entry)
    made["calls"] = tuple(ToolCall(**call) for call in entry.get("calls", ()))
    made["deltas"] = tuple(entry.get("deltas", ()))
    when = dict(entry.get("when", {}))
    made["when"] = When(**{**when, "tools": tuple(when.get("tools", ()))})
    made["faults"] = Faults(**entry.get("faults", {}))
    return Turn(**made)
