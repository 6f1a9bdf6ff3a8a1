"""What a run waits for an answer to, and the answers: AG-UI 1.0's Interrupt and ResumeEntry, as the wire has them. Pure.

An agent that needs a person's word ends with RUN_FINISHED whose outcome is `{"type": "interrupt", "interrupts": [...]}`; what
goes on from there has one answer for each of them in its `resume`.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from agentainerd.errors import InvalidParameter
from agentainerd.model.agui import EventType

Interrupt = dict[str, Any]
"""As the agent sent it: `id` and `reason`, maybe `message`, `toolCallId`, `responseSchema`, `expiresAt`, `metadata`."""

YES = frozenset(["yes", "y", "ok", "okay", "approve", "approved", "allow", "allowed", "accept", "true"])
NO = frozenset(
    ["no", "n", "deny", "denied", "reject", "rejected", "refuse", "disallow", "decline", "declined", "false"]
)
_CONFIRMS = ("tool_call", "confirmation")  # reasons that ask for yes or no, where no schema says more
_NUMBERS = ("integer", "number")


class AnswerStatus(StrEnum):
    """CANCELLED: nobody answers it; it is no, without anything more."""

    RESOLVED = "resolved"
    CANCELLED = "cancelled"


class Answer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """The answer to one interrupt. `payload`: what the agent asked for, any JSON. `metadata`: about it, for the agent."""

    interrupt_id: str
    status: AnswerStatus = AnswerStatus.RESOLVED
    payload: Any = None
    metadata: dict[str, Any] | None = None

    def entry(self) -> dict[str, Any]:
        """Return it as ResumeEntry: what has no value is left out."""
        optional = {"payload": self.payload, "metadata": self.metadata}
        named = {"interruptId": self.interrupt_id, "status": self.status.value}
        return named | {name: value for name, value in optional.items() if value is not None}


class GivenAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """An answer as a client gives it: with a payload, or with a `text` that one is made from (`payload_of`)."""

    interrupt_id: str
    status: AnswerStatus = AnswerStatus.RESOLVED
    payload: Any = None
    text: str = ""
    metadata: dict[str, Any] | None = None


class GivenAnswers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client answers: `resume` has one entry for each interrupt; `text` is the answer to each, in words."""

    resume: list[GivenAnswer] = []
    text: str = ""


def is_interrupted(event: Mapping[str, Any]) -> bool:
    """Return whether it is a RUN_FINISHED by which an agent asks for something, and does not end for good."""
    outcome = event.get("outcome") if event.get("type") == EventType.RUN_FINISHED else None
    return isinstance(outcome, Mapping) and outcome.get("type") == "interrupt"


def interrupts_of(event: Mapping[str, Any]) -> list[Interrupt]:
    """Return what the agent asks for.

    Raises:
        ValueError: it is not said, or not so that it could be answered.
    """
    told = event["outcome"].get("interrupts")
    found = told if isinstance(told, list) else []
    listed = [one for one in found if isinstance(one, dict) and isinstance(one.get("id"), str)]
    if not listed or len({one["id"] for one in listed}) < len(found):
        raise ValueError("the agent stopped to ask for something, and does not say what (outcome.interrupts)")
    return listed


def expires_at(interrupts: Sequence[Interrupt]) -> float:
    """Return when the first of them can't be answered any more (epoch seconds); infinite where none says so."""
    return min((_moment(one.get("expiresAt")) for one in interrupts), default=math.inf)


def question_of(interrupts: Sequence[Interrupt]) -> str:
    """Return in words what is asked."""
    return "\n".join(str(one.get("message") or one.get("reason") or "it asks for an answer") for one in interrupts)


def answers_to(interrupts: Sequence[Interrupt], given: GivenAnswers) -> list[Answer]:
    """Return one answer for each interrupt, in their order.

    Raises:
        InvalidParameter: there is none for one, two for one, one for what was not asked, or a text is not what is asked for.
    """
    if given.text and not given.resume:
        return [_answer(one, GivenAnswer(interrupt_id=one["id"], text=given.text)) for one in interrupts]
    if given.text:
        raise InvalidParameter("text", "is there beside resume, which has the answers")
    by_id = {one.interrupt_id: one for one in given.resume}
    asked = [one["id"] for one in interrupts]
    if len(by_id) < len(given.resume):
        raise InvalidParameter("resume", "has two answers to one question")
    if strange := [name for name in by_id if name not in asked]:
        raise InvalidParameter("resume", f"answers {strange[0]!r:.80}, which was not asked; asked was {_listed(asked)}")
    if missing := [name for name in asked if name not in by_id]:
        raise InvalidParameter("resume", f"has no answer to {_listed(missing)}", hint="each question needs one")
    return [_answer(one, by_id[one["id"]]) for one in interrupts]


def spoken_to(interrupts: Sequence[Interrupt], text: str) -> list[Answer]:
    """Return the answers that something said in a conversation is: what is neither yes nor no, and should be, is no.

    Raises:
        InvalidParameter: it is no answer in any way.
    """
    try:
        return answers_to(interrupts, GivenAnswers(text=text))
    except InvalidParameter:
        return answers_to(interrupts, GivenAnswers(text=f"no {text}"))


def abandoned(interrupt_ids: Sequence[str]) -> list[Answer]:
    """Return the answers to questions that nobody will answer: an agent takes nothing new before it has them."""
    return [Answer(interrupt_id=name, status=AnswerStatus.CANCELLED) for name in interrupt_ids]


def payload_of(interrupt: Interrupt, text: str) -> object:
    """Return what an answer in words is as the payload that an interrupt asks for.

    Its schema decides: yes or no where it takes a boolean, or an object with `approved` (whose `reason` is what follows); a
    number; one of a list; the text itself; else JSON.

    Raises:
        InvalidParameter: it is not that.
    """
    found = interrupt.get("responseSchema")
    schema: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    kind, properties = schema.get("type"), schema.get("properties")
    if isinstance(schema.get("enum"), list):
        return _one_of(schema["enum"], text)
    if isinstance(properties, Mapping) and "approved" in properties:
        return _approval(text, "reason" in properties)
    if kind == "boolean":
        return _is_yes(text)
    if kind in _NUMBERS:
        return _number(text, kind)
    if (
        kind == "object"
        and isinstance(properties, Mapping)
        and len(properties) == 1
        and not text.lstrip().startswith("{")
    ):
        name, inner = next(iter(properties.items()))
        return {name: payload_of({"responseSchema": inner}, text)}
    if kind in ("object", "array"):
        return _json(text, dict if kind == "object" else list)
    if not schema and interrupt.get("reason") in _CONFIRMS:
        is_yes = _is_yes(text)
        return {"approved": is_yes} if interrupt.get("reason") == "tool_call" else is_yes
    return text


def _answer(interrupt: Interrupt, given: GivenAnswer) -> Answer:
    if given.text and given.payload is not None:
        raise InvalidParameter("resume", f"has a text and a payload for {given.interrupt_id!r:.80}")
    is_resolved = given.status is AnswerStatus.RESOLVED
    payload = payload_of(interrupt, given.text) if given.text and is_resolved else given.payload
    if payload is None and is_resolved:
        raise InvalidParameter("resume", f"has neither a payload nor a text for {given.interrupt_id!r:.80}")
    return Answer(interrupt_id=given.interrupt_id, status=given.status, payload=payload, metadata=given.metadata)


def _approval(text: str, takes_reason: bool) -> dict[str, object]:
    is_yes = _is_yes(text)
    reason = text.strip().partition(" ")[2].strip() if takes_reason else ""
    return {"approved": is_yes, **({"reason": reason} if reason else {})}


def _is_yes(text: str) -> bool:
    first = (text.split() or [""])[0].strip(",.;:!").lower()
    if first not in YES | NO:
        raise InvalidParameter("text", f"{text[:64]!r} is neither yes nor no", hint="begin with yes or no")
    return first in YES


def _number(text: str, kind: str) -> float | int:
    try:
        number = int(text) if kind == "integer" else float(text)
    except ValueError:
        raise InvalidParameter("text", f"{text[:64]!r} is not a number") from None
    if not math.isfinite(number):
        raise InvalidParameter("text", f"{text[:64]!r} is not a number")
    return number


def _one_of(values: Sequence[object], text: str) -> object:
    for value in values:
        if (value if isinstance(value, str) else msgspec.json.encode(value).decode()) == text.strip():
            return value
    raise InvalidParameter("text", f"{text[:64]!r} is none of {_listed(values)}")


def _json(text: str, kind: type) -> object:
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        value = None
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise InvalidParameter("text", f"is not {wanted} in JSON, which is asked for")
    return value


def _moment(text: object) -> float:
    try:
        found = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        found = None
    if found is None:
        return math.inf
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _listed(names: Sequence[object]) -> str:
    return ", ".join(f"{name!r:.80}" for name in names[:5]) + (" ..." if len(names) > 5 else "")
