"""AG-UI's interrupts and answers to them: read as pydantic's models of AG-UI have them, and made from words."""

import math

import pytest
from ag_ui.core import Interrupt, ResumeEntry, RunFinishedEvent

from agentainerd.errors import InvalidParameter
from agentainerd.model.interrupts import (
    Answer,
    AnswerStatus,
    GivenAnswer,
    GivenAnswers,
    abandoned,
    answers_to,
    expires_at,
    interrupts_of,
    is_interrupted,
    payload_of,
    question_of,
    spoken_to,
)

APPROVAL = {"type": "object", "properties": {"approved": {"type": "boolean"}, "reason": {"type": "string"}}}


def event(*interrupts, outcome="interrupt"):
    return {
        "type": "RUN_FINISHED",
        "threadId": "t",
        "runId": "r",
        "outcome": {"type": outcome, "interrupts": list(interrupts)},
    }


def asked(schema=None, reason="tool_call", **fields):
    return {"id": "i", "reason": reason, **({"responseSchema": schema} if schema else {}), **fields}


def test_what_is_asked_is_what_the_models_of_ag_ui_read():
    told = event(asked(APPROVAL, message="May I?", expiresAt="2026-11-21T15:00:00Z"), asked() | {"id": "j"})

    read = RunFinishedEvent.model_validate(told).outcome.interrupts

    assert is_interrupted(told)
    assert [Interrupt.model_validate(one) for one in interrupts_of(told)] == read
    assert question_of(interrupts_of(told)) == "May I?\ntool_call"


@pytest.mark.parametrize(
    "told",
    [
        {"type": "RUN_FINISHED"},
        {"type": "RUN_FINISHED", "outcome": {"type": "success"}},
        {"type": "RUN_FINISHED", "outcome": "interrupt"},
        {"type": "RUN_ERROR", "outcome": {"type": "interrupt", "interrupts": [asked()]}},
    ],
)
def test_other_ends_ask_for_nothing(told):
    assert not is_interrupted(told)


@pytest.mark.parametrize("interrupts", [None, [], {}, "x", [1], [{"id": 1}], [asked(), asked()], [asked(), {}]])
def test_what_nobody_could_answer_is_wrong(interrupts):
    with pytest.raises(ValueError, match="does not say what"):
        interrupts_of({"type": "RUN_FINISHED", "outcome": {"type": "interrupt", "interrupts": interrupts}})


@pytest.mark.parametrize(
    ("interrupt", "text", "payload"),
    [
        (asked(APPROVAL), "yes", {"approved": True}),
        (asked(APPROVAL), "No, use mv", {"approved": False, "reason": "use mv"}),
        (asked({"type": "object", "properties": {"approved": {}}}), "ok do it", {"approved": True}),
        (asked({"type": "boolean"}), "n", False),
        (asked({"type": "integer"}), "12", 12),
        (asked({"type": "number"}), "1.5", 1.5),
        (asked({"enum": ["a", 2, True]}), "2", 2),
        (asked({"type": "string"}), "yes", "yes"),
        (asked({"type": "object", "properties": {"name": {"type": "string"}}}), "Ann", {"name": "Ann"}),
        (asked({"type": "object", "properties": {"n": {"type": "integer"}}}), "3", {"n": 3}),
        (asked({"type": "object"}), '{"a": 1}', {"a": 1}),
        (asked({"type": "array"}), "[1]", [1]),
        (asked(), "yes", {"approved": True}),
        (asked(reason="confirmation"), "no", False),
        (asked(reason="input_required"), "whatever you say", "whatever you say"),
        (asked("no schema"), "no", {"approved": False}),
    ],
)
def test_words_become_what_is_asked_for(interrupt, text, payload):
    assert payload_of(interrupt, text) == payload


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (APPROVAL, "perhaps"), ({"type": "boolean"}, " "), ({"type": "integer"}, "1.5"), ({"type": "number"}, "nan"),
        ({"type": "number"}, "many"), ({"enum": ["a"]}, "b"), ({"type": "object"}, "[]"), ({"type": "array"}, "{"),
    ],
)  # fmt: skip
def test_words_that_are_not_what_is_asked_for_are_refused(schema, text):
    with pytest.raises(InvalidParameter):
        payload_of(asked(schema), text)


def test_an_answer_is_what_the_models_of_ag_ui_read():
    given = GivenAnswer(interrupt_id="i", payload={"a": None}, metadata={"by": "me"})
    found = [*answers_to([asked()], GivenAnswers(resume=[given])), *abandoned(["j"])]

    entries = [ResumeEntry.model_validate(one.entry()) for one in found]

    assert [(one.interrupt_id, one.status, one.payload) for one in entries] == [
        ("i", "resolved", {"a": None}),
        ("j", "cancelled", None),
    ]


def test_an_answer_needs_a_payload_or_words_or_is_none():
    for wrong in (GivenAnswer(interrupt_id="i"), GivenAnswer(interrupt_id="i", payload=1, text="yes")):
        with pytest.raises(InvalidParameter):
            answers_to([asked()], GivenAnswers(resume=[wrong]))

    cancelled = GivenAnswers(resume=[GivenAnswer(interrupt_id="i", status=AnswerStatus.CANCELLED)])
    assert answers_to([asked()], cancelled) == [Answer(interrupt_id="i", status=AnswerStatus.CANCELLED)]


def test_what_is_said_in_a_conversation_is_no_unless_it_is_yes():
    assert spoken_to([asked(APPROVAL)], "why that?")[0].payload == {"approved": False, "reason": "why that?"}
    assert spoken_to([asked(APPROVAL)], "Yes!")[0].payload == {"approved": True}


def test_the_first_to_expire_counts():
    times = [asked(expiresAt=text) for text in ("2026-11-21T15:00:00+01:00", "soon", 5, "2026-11-21T15:00:00")]

    assert expires_at(times) == 1795269600.0
    assert expires_at([asked()]) == math.inf
