"""One run's AG-UI events, in the forms that agents send them in, and in no sensible form at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentainerd.model.occurrences import (
    Ended,
    FileChange,
    OccurrenceReader,
    Started,
    Step,
    Text,
    Thought,
    ToolCall,
    ToolResult,
)

CALL = ToolCall("c1", "read_file", {"path": "a"})
TYPES = (
    "RUN_STARTED", "RUN_FINISHED", "RUN_ERROR", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END",
    "TEXT_MESSAGE_CHUNK", "REASONING_MESSAGE_CONTENT", "REASONING_MESSAGE_END", "REASONING_ENCRYPTED_VALUE", "TOOL_CALL_START",
    "TOOL_CALL_ARGS", "TOOL_CALL_END", "TOOL_CALL_CHUNK", "TOOL_CALL_RESULT", "STEP_STARTED", "STEP_FINISHED", "CUSTOM", "RAW",
    "STATE_DELTA", "NEVER_HEARD_OF",
)  # fmt: skip
FIELDS = (
    "messageId",
    "role",
    "delta",
    "toolCallId",
    "toolCallName",
    "content",
    "stepName",
    "code",
    "message",
    "name",
    "value",
)
values = (
    st.sampled_from(["", "a", "b", "assistant", "file.changed", '{"x": 1}'])
    | st.integers()
    | st.none()
    | st.just({"path": "p"})
)
events = st.builds(
    lambda kind, fields: {"type": kind, **fields}, st.sampled_from(TYPES), st.dictionaries(st.sampled_from(FIELDS), values)
)  # fmt: skip


def event(kind, **fields):
    return {"type": kind, **fields}


def read(*given_events):
    reader = OccurrenceReader()
    return [occurrence for one in given_events for occurrence in reader.read(one)]


def say(*deltas, message="m1", role="assistant"):
    pieces = [event("TEXT_MESSAGE_CONTENT", messageId=message, delta=delta) for delta in deltas]
    start = event("TEXT_MESSAGE_START", messageId=message, role=role)
    return [start, *pieces, event("TEXT_MESSAGE_END", messageId=message)]


def call(*arguments, ident="c1", name="read_file"):
    pieces = [event("TOOL_CALL_ARGS", toolCallId=ident, delta=piece) for piece in arguments]
    return [
        event("TOOL_CALL_START", toolCallId=ident, toolCallName=name),
        *pieces,
        event("TOOL_CALL_END", toolCallId=ident),
    ]


def test_text_is_told_piece_by_piece():
    assert read(*say("Hel", "lo", "", " you")) == [Text("Hel"), Text("lo"), Text(" you")]


def test_text_in_chunks_is_the_same():
    first = event("TEXT_MESSAGE_CHUNK", messageId="m1", role="assistant", delta="Hel")

    assert read(first, event("TEXT_MESSAGE_CHUNK", delta="lo")) == [Text("Hel"), Text("lo")]


@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_what_others_say_is_not_told(role):
    assert read(*say("psst", role=role), event("TEXT_MESSAGE_CHUNK", messageId="m2", role=role, delta="x")) == []


@pytest.mark.parametrize("name", ["REASONING_MESSAGE", "THINKING_TEXT_MESSAGE"])
def test_a_thought_is_told_when_it_is_whole(name):
    pieces = [event(f"{name}_CONTENT", delta=text) for text in ("first ", "this")]

    assert read(event(f"{name}_START"), *pieces, event(f"{name}_END")) == [Thought("first this")]


def test_a_thought_without_an_end_ends_where_something_else_begins():
    chunks = [event("REASONING_MESSAGE_CHUNK", messageId="r", delta=text) for text in ("hm", "m")]

    assert read(*chunks, event("STATE_DELTA", delta=[]), *say("Yes")) == [Thought("hmm"), Text("Yes")]


def test_a_blank_thought_is_none_unless_it_is_a_secret():
    blank = [event("REASONING_MESSAGE_CONTENT", delta=" "), event("REASONING_MESSAGE_END")]
    secret = [event("REASONING_ENCRYPTED_VALUE", encryptedValue="xyz"), event("REASONING_END")]

    assert read(*blank, *secret) == [Thought("", "xyz")]


def test_a_tool_call_is_told_when_its_arguments_are_there_and_again_with_its_result():
    result = event("TOOL_CALL_RESULT", toolCallId="c1", content="text of it")

    assert read(*call('{"pa', 'th": "a"}'), result) == [CALL, ToolResult(CALL, "text of it")]


def test_a_tool_call_in_chunks_is_the_same():
    first = event("TOOL_CALL_CHUNK", toolCallId="c1", toolCallName="read_file", delta='{"path": ')
    second, other = (
        event("TOOL_CALL_CHUNK", delta='"a"}'),
        event("TOOL_CALL_CHUNK", toolCallId="c2", toolCallName="git_log"),
    )

    assert read(first, second, other, *say("x")) == [CALL, ToolCall("c2", "git_log", {}), Text("x")]


def test_calls_beside_one_another_are_kept_apart():
    one, two = call('{"path": "a"}'), call('{"path": "b"}', ident="c2", name="list")
    mixed = [one[0], two[0], two[1], one[1], two[2], one[2]]
    results = [event("TOOL_CALL_RESULT", toolCallId=ident, content=ident) for ident in ("c1", "c2")]
    other = ToolCall("c2", "list", {"path": "b"})

    assert read(*mixed, *results) == [other, CALL, ToolResult(CALL, "c1"), ToolResult(other, "c2")]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [("", {}), ('{"a": 1}', {"a": 1}), ("[1]", {"raw": "[1]"}), ('{"a": ', {"raw": '{"a": '}), ("[" * 5000, {"raw": "[" * 5000})],
)  # fmt: skip
def test_arguments_are_an_object_whatever_the_model_made_of_them(text, arguments):
    assert read(*call(text)) == [ToolCall("c1", "read_file", arguments)]


@pytest.mark.parametrize(
    ("content", "result"),
    [("42", "42"), ('{"a": 1}', {"a": 1}), ("[1, 2]", [1, 2]), ("{broken", "{broken"), ({"a": 1}, {"a": 1})],
)
def test_a_result_is_a_value_where_it_is_one(content, result):
    found = read(*call(), event("TOOL_CALL_RESULT", toolCallId="c1", content=content))

    assert found[-1].result == result


def test_a_result_of_a_call_that_nobody_made_is_not_told():
    assert read(event("TOOL_CALL_RESULT", toolCallId="c9", content="x")) == []


def test_steps_are_numbered_in_the_order_of_their_beginnings():
    start, end = event("STEP_STARTED", stepName="a"), event("STEP_FINISHED", stepName="a")
    inner, inner_end = event("STEP_STARTED", stepName="b"), event("STEP_FINISHED", stepName="b")

    assert read(start, inner, inner_end, end, start, end, end) == [
        Step("a", 0, True), Step("b", 1, True), Step("b", 1, False), Step("a", 0, False), Step("a", 2, True), Step("a", 2, False),
    ]  # fmt: skip


def test_a_changed_file_is_told_and_other_custom_events_are_not():
    changed = event("CUSTOM", name="file.changed", value={"path": "a.py", "operation": "created", "diff": "+x"})

    assert read(changed, event("CUSTOM", name="other", value={"path": "b"})) == [FileChange("a.py", "created", "+x")]


def test_the_end_closes_what_is_open():
    unfinished = [event("RUN_STARTED"), event("REASONING_MESSAGE_CONTENT", delta="hm"), *call("{}"), event("TOOL_CALL_START", toolCallId="c2", toolCallName="b")]  # fmt: skip
    first, second = ToolCall("c1", "read_file", {}), ToolCall("c2", "b", {})
    end = event("RUN_ERROR", message="too long", code="timeout")

    assert read(*unfinished, end) == [
        Started(), Thought("hm"), first, second, ToolResult(first, None), ToolResult(second, None),
        Ended("timeout", "too long"),
    ]  # fmt: skip


@given(st.lists(events, max_size=30))
def test_any_events_are_read_in_order_and_nothing_comes_after_the_end(given_events):
    reader = OccurrenceReader()
    told = [occurrence for one in given_events for occurrence in reader.read(one)]

    ends = [index for index, one in enumerate(told) if isinstance(one, Ended)]
    assert ends in ([], [len(told) - 1])
    assert bool(ends) == reader.is_ended == any(one["type"] in ("RUN_FINISHED", "RUN_ERROR") for one in given_events)
    results = [one.call for one in told if isinstance(one, ToolResult)]
    assert all(one in told for one in results)


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), max_size=20))
def test_text_is_what_was_sent(deltas):
    assert "".join(one.delta for one in read(*say(*deltas))) == "".join(deltas)
