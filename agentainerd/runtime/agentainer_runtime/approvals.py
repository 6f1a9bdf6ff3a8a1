"""What a person has to allow before it is done: a call of a tool that waits, what is asked (an interrupt of AG-UI), the answer.

The run ends with the question. The answer comes with the thread's next run: as `resume`, or, from clients that know of no such
thing, as what the user says next, where a plain yes allows it. The call itself, and what is allowed, are in the conversation's
file.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_SHOWN_CHARS = 4000  # of an action, in the question
NOBODY = "Nobody answered whether this may be done, so it was not. Do not ask again by itself."
SCHEMA = {
    "type": "object",
    "properties": {
        "approved": {"type": "boolean", "description": "whether it may be done, now and again in this conversation"},
        "reason": {"type": "string", "description": "why not, or what to do instead: the agent is told"},
    },
    "required": ["approved"],
}
_YES = frozenset(["yes", "y", "ok", "okay", "approve", "approved", "allow", "allowed"])


class InvalidAnswer(Exception):
    """An answer that is none to what was asked."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A call of a tool that waits. `id`: of the interrupt; `action`: what is to be allowed; `question`: how a person is asked."""

    id: str
    call_id: str
    tool: str
    arguments: str
    action: str
    question: str

    def interrupt(self) -> dict[str, Any]:
        """Return it as AG-UI asks."""
        shown = self.question
        if len(shown) > MAX_SHOWN_CHARS:
            shown = f"{shown[:MAX_SHOWN_CHARS]}\n... ({len(shown)} characters)"
        return {
            "id": self.id,
            "reason": "tool_call",
            "message": shown,
            "toolCallId": self.call_id,
            "responseSchema": SCHEMA,
        }


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it may be done; `reason`: what else was said, for the model. `is_said`: as a message of the conversation."""

    allows: bool
    reason: str = ""
    is_said: bool = False


def decide(pending: Pending, resume: Iterable[Mapping[str, Any]], messages: Iterable[Mapping[str, Any]]) -> Decision:
    """Return what was decided about a call, by the entries of `resume`, else by the user's last message.

    Raises:
        InvalidAnswer: the entry for it has no answer.
    """
    entry = next((each for each in resume if each["interruptId"] == pending.id), None)
    if entry is None:
        said = next((_text(each) for each in reversed(list(messages)) if each.get("role") == "user"), "")
        is_yes = said.strip().strip(".!").lower() in _YES
        return Decision(is_yes, "" if is_yes else "The user said something else instead.", is_said=True)
    if entry["status"] == "cancelled":
        return Decision(False, NOBODY, is_said=True)
    payload = entry.get("payload")
    answer: Mapping[str, Any] = payload if isinstance(payload, Mapping) else {"approved": payload}
    is_allowed = answer.get("approved")
    if not isinstance(is_allowed, bool):
        raise InvalidAnswer(f"the answer to {pending.id} has no `approved` that is true or false")
    return Decision(is_allowed, str(answer.get("reason") or ""))


def refusal(decision: Decision) -> dict[str, Any]:
    """Return what the model is told of a call that was not allowed."""
    return {"error": f"The user did not allow it. {decision.reason}".strip()}


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return " ".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping))
    return str(content or "")
