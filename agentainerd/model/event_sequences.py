"""In which order the events of a run may come: says in words what a stream of AG-UI's events got wrong.

It judges and never changes: an event of an unknown type is right, and is passed on. Nothing here does I/O.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from agentainerd.model.agui import OPTIONAL, REQUIRED, TERMINAL, Event, EventType

_NAMES = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


class Rule(StrEnum):
    """What can be wrong with a stream of events."""

    FIRST = "first"  # RUN_STARTED comes first, and once
    LAST = "last"  # one RUN_FINISHED or RUN_ERROR comes last
    RUN_ID = "run_id"  # RUN_STARTED and RUN_FINISHED name the run that was asked for
    FIELDS = "fields"  # each event carries what its type asks for
    PAIRS = "pairs"  # what is begun is gone on with, and ended, in this order


@dataclass(frozen=True, slots=True)
class Problem:
    """What a stream got wrong: the rule, and what was seen instead, with the number of the event (from 1)."""

    rule: Rule
    message: str


@dataclass(frozen=True, slots=True)
class _Span:
    """Something that one event begins, others go on with, and one ends, all with the same value of `key`."""

    noun: str
    key: str
    start: EventType
    goes_on: EventType | None
    ends: tuple[EventType, ...]


_SPANS = (
    _Span(
        "text message", "messageId",
        EventType.TEXT_MESSAGE_START, EventType.TEXT_MESSAGE_CONTENT, (EventType.TEXT_MESSAGE_END,),
    ),
    _Span("tool call", "toolCallId", EventType.TOOL_CALL_START, EventType.TOOL_CALL_ARGS, (EventType.TOOL_CALL_END,)),
    _Span("reasoning", "messageId", EventType.REASONING_START, None, (EventType.REASONING_END,)),
    _Span(
        "reasoning message", "messageId",
        EventType.REASONING_MESSAGE_START, EventType.REASONING_MESSAGE_CONTENT, (EventType.REASONING_MESSAGE_END,),
    ),
    _Span("step", "stepName", EventType.STEP_STARTED, None, (EventType.STEP_FINISHED,)),
    _Span(
        "subagent", "subagentRunId",
        EventType.SUBAGENT_STARTED, None, (EventType.SUBAGENT_FINISHED, EventType.SUBAGENT_ERROR),
    ),
)  # fmt: skip
_BEGINS = {span.start: span for span in _SPANS}
_GOES_ON = {span.goes_on: span for span in _SPANS if span.goes_on}
_ENDS = {end: span for span in _SPANS for end in span.ends}


class SequenceChecker:
    """Follows one run's events and says what is wrong with them. RUN_ERROR may come first, and may leave things open."""

    def __init__(self, run_id: str = "", waiting: Iterable[str] = ()) -> None:
        """`run_id`: the run that was asked for ("": any). `waiting`: calls that an interrupted run left without a result."""
        self._run_id = run_id
        self._count = 0
        self._last = ""
        self._terminal = ""
        self._open: dict[_Span, dict[str, int]] = {span: {} for span in _SPANS}
        self._calls = dict.fromkeys(waiting, False)
        """Tool calls that have ended, or come in chunks: whether they have a result."""
        self._chunk_call = ""

    def feed(self, event: object) -> list[Problem]:
        """Take the next event as it was parsed from JSON, and return what is wrong with it ([]: nothing)."""
        self._count += 1
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            return [self._problem(Rule.FIELDS, "is not an object with a type")]
        name = event["type"]
        if self._terminal:
            return [self._problem(Rule.LAST, f"is a {name} after {self._terminal}, which must be the last one")]
        problems = self._in_place(name)
        self._last = name
        if name in EventType.__members__:
            kind = EventType(name)
            missing = self._fields(kind, event)
            problems += missing or self._paired(kind, event)
            if kind in TERMINAL:
                self._terminal = name
        return problems

    def end(self) -> list[Problem]:
        """Return what is wrong with the stream having ended here."""
        if self._terminal:
            return []
        if not self._count:
            return [Problem(Rule.FIRST, "the stream ended without any event")]
        last = f"; the last of {self._count} events was {self._last or 'none of AG-UI'}"
        return [Problem(Rule.LAST, f"the stream ended without RUN_FINISHED or RUN_ERROR{last}")]

    def closing(self) -> list[Event]:
        """Return the events that end what is open, the one last that began first."""
        spans = [(count, span, name) for span, names in self._open.items() for name, count in names.items()]
        return [{"type": span.ends[0], span.key: name} for _, span, name in sorted(spans, key=lambda each: -each[0])]

    def _problem(self, rule: Rule, what: str) -> Problem:
        return Problem(rule, f"event {self._count} {what}")

    def _in_place(self, name: str) -> list[Problem]:
        if self._count == 1 and name not in (EventType.RUN_STARTED, EventType.RUN_ERROR):
            return [self._problem(Rule.FIRST, f"is {name}; RUN_STARTED must be the first one")]
        if self._count > 1 and name == EventType.RUN_STARTED:
            return [self._problem(Rule.FIRST, "is another RUN_STARTED; a stream is one run")]
        return []

    def _fields(self, kind: EventType, event: Event) -> list[Problem]:
        required = REQUIRED[kind]
        problems = [
            self._problem(Rule.FIELDS, f"({kind}) has no {name}")
            if name not in event
            else self._problem(Rule.FIELDS, f"({kind}) has a {name} that is not {_NAMES[types[0]]}")
            for name, types in required.items()
            if name not in event or not _is_one_of(event[name], types)
        ]
        return problems + [
            self._problem(Rule.FIELDS, f"({kind}) has a {name} that is not {_NAMES[types[0]]}")
            for name, types in OPTIONAL.items()
            if name not in required and event.get(name) is not None and not _is_one_of(event[name], types)
        ]

    def _paired(self, kind: EventType, event: Event) -> list[Problem]:
        if kind in _BEGINS:
            return self._begin(_BEGINS[kind], event)
        if kind in _GOES_ON:
            return self._must_be_open(_GOES_ON[kind], kind, event)
        if kind in _ENDS:
            return self._finish(_ENDS[kind], kind, event)
        match kind:
            case EventType.TOOL_CALL_CHUNK:
                return self._chunk(event)
            case EventType.TOOL_CALL_RESULT:
                return self._result(event)
            case EventType.RUN_STARTED:
                return self._names_run(kind, event)
            case EventType.RUN_FINISHED:
                return self._names_run(kind, event) + self._left_open(kind) + self._without_result(event)
        return []

    def _names_run(self, kind: EventType, event: Event) -> list[Problem]:
        if self._run_id and event["runId"] != self._run_id:
            return [self._problem(Rule.RUN_ID, f"({kind}) has the runId {event['runId']!r:.60}, not {self._run_id}")]
        return []

    def _begin(self, span: _Span, event: Event) -> list[Problem]:
        name = event[span.key]
        if name in self._open[span]:
            return [
                self._problem(Rule.PAIRS, f"({span.start}) begins {span.noun} {name!r:.60}, which has begun already")
            ]
        self._open[span][name] = self._count
        return []

    def _must_be_open(self, span: _Span, kind: EventType, event: Event) -> list[Problem]:
        name = event[span.key]
        if name in self._open[span]:
            return []
        return [self._problem(Rule.PAIRS, f"({kind}) is of {span.noun} {name!r:.60}, which no {span.start} has begun")]

    def _finish(self, span: _Span, kind: EventType, event: Event) -> list[Problem]:
        problems = self._must_be_open(span, kind, event)
        self._open[span].pop(event[span.key], None)
        if kind is EventType.TOOL_CALL_END and not problems:
            self._calls.setdefault(event["toolCallId"], False)
        return problems

    def _chunk(self, event: Event) -> list[Problem]:
        self._chunk_call = event.get("toolCallId") or self._chunk_call
        if not self._chunk_call:
            return [self._problem(Rule.PAIRS, "(TOOL_CALL_CHUNK) is the first one and has no toolCallId")]
        self._calls.setdefault(self._chunk_call, False)
        return []

    def _result(self, event: Event) -> list[Problem]:
        name = event["toolCallId"]
        if name not in self._calls:
            is_open = any(
                name in calls for span, calls in self._open.items() if span.start is EventType.TOOL_CALL_START
            )
            why = "which has not ended (TOOL_CALL_END)" if is_open else "which no TOOL_CALL_START has begun"
            return [self._problem(Rule.PAIRS, f"(TOOL_CALL_RESULT) is of tool call {name!r:.60}, {why}")]
        if self._calls[name]:
            return [self._problem(Rule.PAIRS, f"(TOOL_CALL_RESULT) is the second one of tool call {name!r:.60}")]
        self._calls[name] = True
        return []

    def _left_open(self, kind: EventType) -> list[Problem]:
        return [
            self._problem(Rule.PAIRS, f"({kind}) came before {' or '.join(span.ends)} of {span.noun} {name!r:.60}")
            for span, names in self._open.items()
            for name in names
        ]

    def _without_result(self, event: Event) -> list[Problem]:
        pending = _pending_calls(event)
        return [
            self._problem(Rule.PAIRS, f"(RUN_FINISHED) came before the TOOL_CALL_RESULT of tool call {name!r:.60}")
            for name, has_result in self._calls.items()
            if not has_result and name not in pending
        ]


def _is_one_of(value: object, types: tuple[type, ...]) -> bool:
    return isinstance(value, types) and not (types == (int,) and isinstance(value, bool))


def _pending_calls(event: Event) -> set[str]:
    """Return the calls that a RUN_FINISHED says are still to be answered: by whoever reads it, or after an interrupt."""
    outcome = event.get("outcome") or {}
    named = outcome.get("pendingToolCallIds") or []
    interrupts = outcome.get("interrupts") or []
    named = [*(named if isinstance(named, list) else ())]
    named += [entry.get("toolCallId") for entry in interrupts if isinstance(entry, dict)]
    return {name for name in named if isinstance(name, str)}
