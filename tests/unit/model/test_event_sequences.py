"""AG-UI: our table of fields beside the models of the ag-ui-protocol package, and what a sequence of events can get wrong."""

import ag_ui.core
import pytest
from pydantic import TypeAdapter, ValidationError

from agentainerd.model.agui import REQUIRED, EventType
from agentainerd.model.event_sequences import Rule, SequenceChecker

EVENT = TypeAdapter(ag_ui.core.Event)
STARTED = {"type": "RUN_STARTED", "threadId": "t", "runId": "r"}
FINISHED = {"type": "RUN_FINISHED", "threadId": "t", "runId": "r"}
ERROR = {"type": "RUN_ERROR", "message": "it broke"}
TEXT = [
    {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "hi"},
    {"type": "TEXT_MESSAGE_END", "messageId": "m"},
]
THOUGHT = [
    {"type": "REASONING_START", "messageId": "n"},
    {"type": "REASONING_MESSAGE_START", "messageId": "n", "role": "reasoning"},
    {"type": "REASONING_MESSAGE_CONTENT", "messageId": "n", "delta": "hm"},
    {"type": "REASONING_MESSAGE_END", "messageId": "n"},
    {"type": "REASONING_END", "messageId": "n"},
]
CALL = [
    {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "ls"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": "{}"},
    {"type": "TOOL_CALL_END", "toolCallId": "c"},
]
RESULT = {"type": "TOOL_CALL_RESULT", "messageId": "m2", "toolCallId": "c", "content": "a file"}
STEP = [{"type": "STEP_STARTED", "stepName": "1"}, {"type": "STEP_FINISHED", "stepName": "1"}]
WHOLE = [
    STARTED, STEP[0], *THOUGHT, *TEXT, *CALL, STEP[1], RESULT,
    {"type": "CUSTOM", "name": "file.changed", "value": {"path": "a", "operation": "created"}},
    {"type": "NEVER_HEARD_OF", "x": 1}, FINISHED,
]  # fmt: skip


def problems(events, run_id="r"):
    checker = SequenceChecker(run_id)
    found = [problem for event in events for problem in checker.feed(event)] + checker.end()
    return [(problem.rule, problem.message) for problem in found]


def a_value(types):
    return "x" if str in types else [] if list in types else {}


# What a plain table cannot say of one field: pydantic's own rules for it.
EXACT = {"subtype": "message"}


@pytest.mark.parametrize("kind", EventType)
def test_what_our_table_asks_for_is_what_the_models_of_the_protocol_ask_for(kind):
    event = {"type": str(kind), **{name: EXACT.get(name, a_value(types)) for name, types in REQUIRED[kind].items()}}

    EVENT.validate_python(event)
    for name, types in REQUIRED[kind].items():
        wrong = [{key: value for key, value in event.items() if key != name}]
        wrong += [] if types == (object,) else [{**event, name: 17}]
        for broken in wrong:
            with pytest.raises(ValidationError):
                EVENT.validate_python(broken)
            assert [rule for rule, _ in problems([STARTED, broken]) if rule is Rule.FIELDS] == [Rule.FIELDS]


def test_a_whole_run_is_right_and_so_is_one_that_fails_anywhere():
    assert problems(WHOLE) == []
    for place in range(1, len(WHOLE)):
        assert problems([*WHOLE[:place], ERROR]) == [], place
    assert problems([ERROR]) == []
    for event in WHOLE:
        if event["type"] in EventType.__members__:
            EVENT.validate_python(event)


def test_a_stream_cut_off_anywhere_lacks_its_end():
    for place in range(1, len(WHOLE)):
        assert [rule for rule, _ in problems(WHOLE[:place])] == [Rule.LAST], place
    assert problems([]) == [(Rule.FIRST, "the stream ended without any event")]


def test_an_event_that_is_left_out_is_missed():
    optional = {"TEXT_MESSAGE_CONTENT", "REASONING_MESSAGE_CONTENT", "TOOL_CALL_ARGS", "CUSTOM", "NEVER_HEARD_OF"}
    for place, event in enumerate(WHOLE):
        found = problems([*WHOLE[:place], *WHOLE[place + 1 :]])
        assert bool(found) is (event["type"] not in optional), event


@pytest.mark.parametrize(
    ("events", "rule", "words"),
    [
        ([TEXT[0], ERROR], Rule.FIRST, "event 1 is TEXT_MESSAGE_START; RUN_STARTED must be the first one"),
        ([STARTED, STARTED, FINISHED], Rule.FIRST, "event 2 is another RUN_STARTED; a stream is one run"),
        ([STARTED, FINISHED, ERROR], Rule.LAST, "event 3 is a RUN_ERROR after RUN_FINISHED, which must be the last one"),
        ([STARTED, FINISHED, TEXT[0]], Rule.LAST, "event 3 is a TEXT_MESSAGE_START after RUN_FINISHED"),
        ([STARTED, TEXT[0]], Rule.LAST, "ended without RUN_FINISHED or RUN_ERROR; the last of 2 events was TEXT_MESSAGE_START"),
        ([{**STARTED, "runId": "q"}, FINISHED], Rule.RUN_ID, "event 1 (RUN_STARTED) has the runId 'q', not r"),
        ([STARTED, {**FINISHED, "runId": "q"}], Rule.RUN_ID, "event 2 (RUN_FINISHED) has the runId 'q', not r"),
        ([STARTED, "hello", FINISHED], Rule.FIELDS, "event 2 is not an object with a type"),
        ([STARTED, {"no": "type"}, FINISHED], Rule.FIELDS, "event 2 is not an object with a type"),
        ([STARTED, {"type": "TEXT_MESSAGE_START"}, FINISHED], Rule.FIELDS, "event 2 (TEXT_MESSAGE_START) has no messageId"),
        ([STARTED, {**FINISHED, "usage": {}}], Rule.FIELDS, "event 2 (RUN_FINISHED) has a usage that is not a list"),
        ([{**STARTED, "timestamp": True}, FINISHED], Rule.FIELDS, "has a timestamp that is not a whole number"),
        ([STARTED, TEXT[0], TEXT[0], ERROR], Rule.PAIRS, "begins text message 'm', which has begun already"),
        ([STARTED, TEXT[1], FINISHED], Rule.PAIRS, "is of text message 'm', which no TEXT_MESSAGE_START has begun"),
        ([STARTED, *TEXT, TEXT[1], FINISHED], Rule.PAIRS, "which no TEXT_MESSAGE_START has begun"),
        ([STARTED, TEXT[0], FINISHED], Rule.PAIRS, "(RUN_FINISHED) came before TEXT_MESSAGE_END of text message 'm'"),
        ([STARTED, *CALL, FINISHED], Rule.PAIRS, "came before the TOOL_CALL_RESULT of tool call 'c'"),
        ([STARTED, *CALL[:2], RESULT, ERROR], Rule.PAIRS, "is of tool call 'c', which has not ended (TOOL_CALL_END)"),
        ([STARTED, RESULT, FINISHED], Rule.PAIRS, "is of tool call 'c', which no TOOL_CALL_START has begun"),
        ([STARTED, *CALL, RESULT, RESULT, FINISHED], Rule.PAIRS, "is the second one of tool call 'c'"),
        ([STARTED, {"type": "TOOL_CALL_CHUNK", "delta": "{"}, ERROR], Rule.PAIRS, "is the first one and has no toolCallId"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_words(events, rule, words):
    found = problems(events)

    assert [kind for kind, _ in found] == [rule]
    assert words in found[0][1]


def test_chunks_need_no_start_and_no_end():
    chunks = [
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": "hi"},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "ls", "delta": "{"},
        {"type": "TOOL_CALL_CHUNK", "delta": "}"},
    ]

    assert problems([STARTED, *chunks, RESULT, FINISHED]) == []


@pytest.mark.parametrize(
    "outcome",
    [
        {"type": "success", "pendingToolCallIds": ["c"]},
        {"type": "interrupt", "interrupts": [{"id": "i", "reason": "confirm", "toolCallId": "c"}]},
    ],
)
def test_a_call_that_the_end_names_as_pending_needs_no_result(outcome):
    finished = {**FINISHED, "outcome": outcome}
    EVENT.validate_python(finished)

    assert problems([STARTED, *CALL, finished]) == []
    assert problems([STARTED, *CALL, {**FINISHED, "outcome": {"type": "success", "pendingToolCallIds": 3}}]) != []
