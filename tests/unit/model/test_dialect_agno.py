"""The server-sent events of the AgentOS document, made of AG-UI events."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentainerd.model.dialect_agno import TYPES, AgnoProjection, RunStory, error_code, parse_types
from agentainerd.model.media import Media
from tests.unit.model.test_occurrences import call, event, events, say

STORY = RunStory("run-1", "agent-1", "session-1", "hello", (Media(type="image", url="https://example.com/a.png"),))
AT = 1_700_000_000.0
STARTED = event("RUN_STARTED", threadId="session-1", runId="run-1")


def tell(*given_events, story=STORY, begin=False):
    """Feed events a second apart."""
    projection = AgnoProjection(story)
    told = projection.begin(AT) if begin else []
    return told + [one for index, each in enumerate(given_events) for one in projection.feed(each, AT + index)]


def brief(told):
    return [(one.type, one.data) for one in told]


def parse(frame):
    first, second, *rest = frame.decode().split("\n")
    assert rest == ["", ""]
    return first.removeprefix("event: "), json.loads(second.removeprefix("data: "))


def test_a_whole_run():
    used = {"usage": {"input_tokens": 12, "output_tokens": 34, "reasoning_tokens": 4}}
    thought = [event("REASONING_MESSAGE_CONTENT", delta="hm"), event("REASONING_MESSAGE_END")]
    result = event("TOOL_CALL_RESULT", toolCallId="c1", content="3")
    told = tell(
        STARTED, event("STEP_STARTED", stepName="step 1"), *thought, *call('{"a": 1}'), result,
        event("STEP_FINISHED", stepName="step 1"), *say("It is", " 3."), event("RUN_FINISHED", result=used),
    )  # fmt: skip

    assert brief(told) == [
        ("run_start", {"input": "hello", "session_id": "session-1", "media": [{"type": "image", "url": "https://example.com/a.png"}]}),
        ("step_start", {"step_name": "step 1", "step_index": 0}),
        ("reasoning", {"content": "hm", "message_index": 0}),
        ("tool_call", {"tool_name": "read_file", "arguments": {"a": 1}, "result": "3"}),
        ("step_end", {"step_name": "step 1", "step_index": 0}),
        ("token", {"token": "It is", "index": 0}),
        ("token", {"token": " 3.", "index": 1}),
        ("complete", {
            "output": "It is 3.", "duration": 13.0, "status": "completed", "run_id": "run-1", "reasoning": {"content": "hm", "token_count": 4},
            "token_count": 46,
            "usage": {"prompt_tokens": 12, "completion_tokens": 34, "total_tokens": 46, "reasoning_tokens": 4},
        }),
    ]  # fmt: skip


def test_a_model_that_was_asked_for_is_named_where_it_thought():
    story = RunStory("run-1", "agent-1", input="hello", model="provider/large")
    thought = [event("REASONING_MESSAGE_CONTENT", delta="hm"), event("REASONING_MESSAGE_END")]
    told = tell(STARTED, *thought, event("RUN_FINISHED"), story=story)

    assert told[1].data == {"content": "hm", "message_index": 0, "model": "provider/large"}
    assert told[-1].data["reasoning"] == {"content": "hm", "model": "provider/large"}


def test_every_event_is_in_the_envelope():
    for one in tell(STARTED, *say("x"), event("RUN_FINISHED")):
        kind, body = parse(one.encode())

        assert kind == body["type"]
        assert (body["session_id"], body["agent_id"], body["run_context_id"]) == ("session-1", "agent-1", "run-1")
        assert body["timestamp"].startswith("2023-11-14T22:13:2")
        assert body["timestamp"].endswith("Z")


def test_a_run_without_a_session_names_none():
    [start, _] = tell(event("RUN_FINISHED"), story=RunStory("run-1", "agent-1", input="hello"))

    assert "session_id" not in json.loads(start.encode().split(b"data: ")[1])
    assert start.data == {"input": "hello"}


def test_it_begins_once_and_before_there_is_an_event():
    assert [one.type for one in tell(STARTED, *say("x"), begin=True)] == ["run_start", "token"]


def test_an_error_is_the_end():
    told = tell(STARTED, *say("half"), event("RUN_ERROR", message="no model", code="model_error"))

    assert brief(told)[1:] == [
        ("token", {"token": "half", "index": 0}),
        ("error", {"error": "no model", "code": "API_ERROR", "details": {"code": "model_error"}}),
    ]


def test_a_run_that_never_started_has_a_beginning_and_an_end():
    told = tell(event("RUN_ERROR", code="container_lost"))

    assert [one.type for one in told] == ["run_start", "error"]
    assert told[1].data == {
        "error": "the run ended: container_lost", "code": "AGENT_ERROR", "details": {"code": "container_lost"},
    }  # fmt: skip


def test_a_cancelled_run_is_an_error_and_is_complete():
    told = tell(STARTED, *say("half"), event("RUN_ERROR", message="cancelled by unix:0", code="cancelled"))

    assert brief(told)[2:] == [
        ("error", {"error": "cancelled by unix:0", "code": "RUN_CANCELLED", "details": {"code": "cancelled"}}),
        ("complete", {
            "output": "half", "duration": 4.0, "status": "cancelled", "run_id": "run-1",
            "cancellation_reason": "cancelled by unix:0",
        }),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "ours"),
    [("timeout", "CONTEXT_CANCELED"), ("RATE_LIMIT", "RATE_LIMIT"), ("stuck", "AGENT_ERROR"), ("", "AGENT_ERROR")],
)
def test_codes_are_those_of_the_dialect(code, ours):
    assert error_code(code) == ours


def test_a_call_that_got_no_result_is_told_without_one():
    told = tell(STARTED, *call("{}"), event("RUN_ERROR", message="x", code="timeout"))

    assert ("tool_call", {"tool_name": "read_file", "arguments": {}}) in brief(told)


@pytest.mark.parametrize(
    ("text", "names"),
    [("", set()), ("token", {"token"}), (" token , complete ,,", {"token", "complete"}), ("nonsense", {"nonsense"})],
)
def test_types_are_names_between_commas(text, names):
    assert parse_types(text) == names


@given(st.lists(events, max_size=30), st.sampled_from(["RUN_FINISHED", "RUN_ERROR"]))
def test_any_run_has_one_beginning_and_one_end_and_its_tokens_are_numbered(given_events, end):
    told = tell(*given_events, event(end))
    types = [one.type for one in told]

    assert types.count("run_start") == 1
    assert types[0] == "run_start"
    assert types[-1] in ("complete", "error")
    assert types.count("complete") <= 1
    assert types.count("error") <= 1
    assert set(types) <= set(TYPES)
    assert [one.data["index"] for one in told if one.type == "token"] == list(range(types.count("token")))
    for one in told:
        assert parse(one.encode())[0] == one.type
    if types[-1] == "complete":
        assert "".join(one.data["token"] for one in told if one.type == "token") == told[-1].data["output"]


def test_what_is_said_after_a_tool_begins_on_a_line_of_its_own():
    told = tell(
        STARTED,
        *say("Writing", "."),
        *call("{}"),
        *say(" ", "\n", "Done."),
        *call("{}", ident="c2"),
        *say("  "),
        event("RUN_FINISHED"),
    )

    assert [one.data["token"] for one in told if one.type == "token"] == ["Writing", ".", "\n \nDone."]
    assert told[-1].data["output"] == "Writing.\n \nDone."


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), max_size=20))
def test_tokens_put_together_are_the_output(deltas):
    told = tell(STARTED, *say(*deltas), event("RUN_FINISHED"))
    tokens = "".join(one.data["token"] for one in told if one.type == "token")

    whole = "".join(deltas)
    assert told[-1].data["output"] == tokens == (whole if whole.strip() else "")
