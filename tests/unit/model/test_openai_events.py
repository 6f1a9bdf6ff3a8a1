"""Chat completions as events: what providers really stream, cut anywhere, is always a run that AG-UI's models take."""

import json

import ag_ui.core
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from agentainerd.model.event_sequences import SequenceChecker
from agentainerd.model.openai_events import ChatCompletionEvents
from agentainerd.model.sse import Parser

EVENT = TypeAdapter(ag_ui.core.Event)
DONE = b"data: [DONE]\n\n"


def chunk(delta=None, finish_reason=None, **more):
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish_reason}]
    return {"id": "x", "object": "chat.completion.chunk", "choices": choices, **more}


def call(function, **more):
    return chunk({"tool_calls": [{"type": "function", "function": function, **more}]})


def stream(*chunks, end=DONE):
    return b"".join(b"data: %s\n\n" % json.dumps(one, ensure_ascii=False).encode() for one in chunks) + end


def events_of(pieces):
    parser, adapter = Parser(1_000_000), ChatCompletionEvents("t", "r")
    events = adapter.start()
    for piece in pieces:
        for message in parser.feed(piece):
            events += adapter.feed(message.data)
    return events + adapter.end()


def judged(events):
    """Hold the events against the protocol's models and our own checker, and return them."""
    checker = SequenceChecker("r")
    wrong = [problem for event in events for problem in checker.feed(event)] + checker.end()
    assert wrong == []
    for event in events:
        EVENT.validate_python(event)
    return events


def run(*chunks, end=DONE):
    return judged(events_of([stream(*chunks, end=end)]))


def text_of(events, kind="TEXT_MESSAGE_CONTENT"):
    return "".join(event["delta"] for event in events if event["type"] == kind)


def calls_of(events):
    """Return {id: (name, arguments)} in order."""
    names = {event["toolCallId"]: event["toolCallName"] for event in events if event["type"] == "TOOL_CALL_START"}
    return {
        name: (title, "".join(e["delta"] for e in events if e["type"] == "TOOL_CALL_ARGS" and e["toolCallId"] == name))
        for name, title in names.items()
    }


def types_of(events):
    return [str(event["type"]) for event in events]


def test_text_is_one_message_and_usage_is_in_the_end():
    usage = {
        "prompt_tokens": 9, "completion_tokens": 5, "cost": 0.25,
        "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2},
    }  # fmt: skip
    events = run(
        chunk({"role": "assistant", "content": ""}), chunk({"content": "Grüß"}), chunk({"content": " Gott"}),
        chunk(finish_reason="stop"), {"choices": [], "usage": usage},
    )  # fmt: skip

    assert types_of(events) == [
        "RUN_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED",
    ]  # fmt: skip
    assert text_of(events) == "Grüß Gott"
    assert events[-1]["result"] == {
        "steps": 1,
        "finish_reason": "stop",
        "usage": {
            "input_tokens": 9, "output_tokens": 5, "cached_tokens": 4, "reasoning_tokens": 2,
            "cost_usd": 0.25, "cost_source": "provider",
        },
    }  # fmt: skip


def test_usage_without_a_cost_and_of_wrong_shapes():
    events = run(
        chunk(
            {"content": "x"},
            "stop",
            usage={"prompt_tokens": "many", "completion_tokens": True, "prompt_tokens_details": 3},
        )
    )

    usage = events[-1]["result"]["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["cost_usd"], usage["cost_source"]) == (0, 0, None, "")
    assert "usage" not in run(chunk({"content": "x"}, "stop"))[-1]["result"]


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thoughts_end_where_the_text_begins(name):
    events = run(chunk({name: "hm"}), chunk({name: "m"}), chunk({"content": "yes"}), chunk({name: "and"}, "stop"))

    assert (text_of(events, "REASONING_MESSAGE_CONTENT"), text_of(events)) == ("hmmand", "yes")
    assert types_of(events).index("REASONING_END") < types_of(events).index("TEXT_MESSAGE_START")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(
            [
                call({"name": "ls", "arguments": ""}, id="a", index=0), call({"arguments": '{"p":'}, index=0),
                call({"name": "cat", "arguments": ""}, id="b", index=1), call({"arguments": "1}"}, index=0),
                call({"arguments": '{"q":2}'}, index=1),
            ],
            id="as OpenAI does, interleaved",
        ),
        pytest.param(
            [call({"name": "ls", "arguments": '{"p":1}'}, id="a"), call({"name": "cat", "arguments": '{"q":2}'}, id="b")],
            id="no index",
        ),
        pytest.param(
            [
                call({"name": "ls", "arguments": '{"p":1}'}, id="a", index=0),
                call({"name": "cat", "arguments": '{"q":2}'}, id="b", index=0),
            ],
            id="index always 0",
        ),
        pytest.param(
            [
                call({"name": "ls", "arguments": '{"p"'}, id="a", index=0), call({"arguments": ":1}"}, id="a", index=7),
                call({"name": "cat", "arguments": '{"q":'}, id="b", index=1), call({"arguments": "2}"}, index=9),
            ],
            id="wrong index: the id decides, then the current one",
        ),
        pytest.param(
            [
                call({"arguments": '{"p":'}, id="a", index=0), call({"name": "ls", "arguments": "1}"}, index=0),
                call({"arguments": None}, id="b", index=1), call({"name": "cat", "arguments": '{"q":2}'}, id="b", index=1),
            ],
            id="the name comes late, arguments null",
        ),
        pytest.param(
            [
                chunk({"tool_calls": [
                    {"id": "a", "function": {"name": "ls", "arguments": {"p": 1}}},
                    {"id": "b", "function": {"name": "cat", "arguments": {"q": 2}}},
                ]}),
            ],
            id="arguments are objects, two in one chunk",
        ),
        pytest.param(
            [
                call({"name": "ls", "arguments": '{"p":'}, id="a"), call({"arguments": "1}"}),
                call({"name": "cat", "arguments": ""}, id="b"), call({"arguments": '{"q":2}'}),
            ],
            id="no id and no index: the current one",
        ),
    ],
)  # fmt: skip
def test_two_tool_calls_are_told_apart(pieces):
    events = run(*pieces, chunk(finish_reason="stop"))

    found = calls_of(events)
    assert {name: (title, json.loads(arguments)) for name, (title, arguments) in found.items()} == {
        "a": ("ls", {"p": 1}),
        "b": ("cat", {"q": 2}),
    }
    assert events[-1]["outcome"] == {"type": "success", "pendingToolCallIds": ["a", "b"]}


def test_calls_without_any_id_are_told_apart_by_what_they_are():
    events = run(
        call({"name": "ls", "arguments": '{"p":1}'}, id=""), call({"name": "ls", "arguments": '{"p":2}'}),
        call({"name": "cat", "arguments": '{"q"'}), call({"name": "cat", "arguments": ":{}"}), call({"name": "cat", "arguments": "}"}),
        call({"name": "rm", "arguments": "{}"}, index=0), call({"name": "mv", "arguments": "{}"}, index=0),
    )  # fmt: skip

    assert list(calls_of(events).values()) == [
        ("ls", '{"p":1}'), ("ls", '{"p":2}'), ("cat", '{"q":{}}'), ("rm", "{}"), ("mv", "{}"),
    ]  # fmt: skip


def test_a_call_without_a_name_and_one_in_the_old_form():
    events = run(call({"arguments": "{}"}, id="a"), chunk({"function_call": {"name": "old", "arguments": "{}"}}))

    assert sorted(calls_of(events).values()) == [("old", "{}"), ("unknown", "{}")]


def test_text_ends_before_a_call_and_text_after_it_is_another_message():
    events = run(
        chunk({"content": "one"}), call({"name": "ls", "arguments": "{}"}, id="a"), chunk({"content": "two"}, "stop")
    )

    starts = [event["messageId"] for event in events if event["type"] == "TEXT_MESSAGE_START"]
    assert len(set(starts)) == 2
    assert types_of(events).index("TEXT_MESSAGE_END") < types_of(events).index("TOOL_CALL_START")


@pytest.mark.parametrize(
    ("error", "message"),
    [({"message": "overloaded", "code": 502}, "overloaded"), ("plain", "plain"), ({"code": 7}, '{"code": 7}')],
)
def test_an_error_in_the_middle_ends_the_run_and_nothing_comes_after(error, message):
    events = run(chunk({"content": "par"}), {"error": error}, chunk({"content": "never"}, "stop"))

    assert types_of(events)[-2:] == ["TEXT_MESSAGE_END", "RUN_ERROR"]
    assert (events[-1]["message"], events[-1]["code"], text_of(events)) == (message, "model_error", "par")


@pytest.mark.parametrize("error", [None, "", False])
def test_an_error_that_is_none_is_none(error):
    assert types_of(run(chunk({"content": "x"}, "stop", error=error)))[-1] == "RUN_FINISHED"


def test_a_stream_that_breaks_off_is_an_error_and_one_that_only_lacks_one_of_its_two_ends_is_not():
    assert run(chunk({"content": "par"}), end=b"")[-1]["type"] == "RUN_ERROR"
    assert run(end=b"")[-1]["type"] == "RUN_ERROR"
    assert run(chunk({"content": "x"}, "stop"), end=b"")[-1]["type"] == "RUN_FINISHED"
    assert run(chunk({"content": "x"}))[-1]["type"] == "RUN_FINISHED"
    assert run(chunk({"content": "x"}, "error"))[-1]["type"] == "RUN_ERROR"


@pytest.mark.parametrize(
    "odd",
    [
        {}, {"choices": None}, {"choices": ["x"]}, {"choices": [{"delta": None}]}, {"choices": [{"delta": "x"}]},
        chunk({"content": None, "tool_calls": None}), chunk({"tool_calls": ["x", {"function": "x"}]}), chunk({"content": 7}),
        chunk({"content": [{"type": "image"}, 3]}), {"choices": [], "usage": None},
    ],
)  # fmt: skip
def test_odd_chunks_are_no_reason_to_fail(odd):
    assert types_of(run(odd, chunk({"content": [{"type": "text", "text": "x"}]}, "stop")))[-1] == "RUN_FINISHED"


@pytest.mark.parametrize("data", [b"no json", b"[1]", b'"x"', b"\xff", b"[" * 100_000])
def test_what_is_no_chunk_ends_the_run(data):
    events = judged(events_of([b"data: " + data + b"\n\n", stream(chunk({"content": "x"}, "stop"))]))

    assert types_of(events) == ["RUN_STARTED", "RUN_ERROR"]


def test_comments_and_other_line_ends_are_none_of_its_business():
    piece = stream(chunk({"content": "x"}, "stop")).replace(b"\n", b"\r\n")

    assert text_of(judged(events_of([b": OPENROUTER PROCESSING\r\n\r\n", piece]))) == "x"


@pytest.mark.parametrize(
    ("body", "types"),
    [
        (
            {"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]},
            ["TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END", "RUN_FINISHED"],
        ),
        ({"choices": [{"message": {"content": ""}}]}, ["RUN_FINISHED"]),
        ({"choices": []}, ["RUN_ERROR"]),
        ({"error": {"message": "no"}}, ["RUN_ERROR"]),
        ([], ["RUN_ERROR"]),
    ],
)
def test_an_answer_that_was_not_streamed(body, types):
    adapter = ChatCompletionEvents("t", "r")

    events = judged(adapter.start() + adapter.whole(json.dumps(body).encode()))

    assert (types_of(events)[1:], adapter.has_ended) == (types, True)
    assert adapter.feed(b"{}") == adapter.end() == adapter.fail("late") == []


def test_an_answer_that_is_no_json():
    adapter = ChatCompletionEvents("t", "r")

    assert (
        judged(adapter.start() + adapter.whole(b"<html>"))[-1]["message"]
        == "the agent answered what is no JSON: b'<html>'"
    )


STREAM = stream(
    chunk({"role": "assistant", "reasoning": "thöught"}), chunk({"content": "Grüße 🐍"}), chunk({"content": "!"}),
    call({"name": "ls", "arguments": '{"p":'}, id="a", index=0), call({"arguments": '"ä"}'}, index=0),
    chunk(finish_reason="tool_calls"), {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}},
)  # fmt: skip


def test_a_stream_cut_in_two_at_every_byte_gives_the_same_events():
    whole = judged(events_of([STREAM]))

    for place in range(len(STREAM)):
        assert events_of([STREAM[:place], STREAM[place:]]) == whole, place


def test_a_stream_that_ends_at_any_byte_ends_the_run():
    for place in range(len(STREAM)):
        judged(events_of([STREAM[:place]]))


PIECES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 1, 2, None, "0", True]),
        "id": st.sampled_from(["", "a", "b", None, 3]),
        "function": st.fixed_dictionaries(
            {},
            optional={
                "name": st.sampled_from(["", "ls", "cat", None]),
                "arguments": st.sampled_from([None, "", "{", "}", '{"a":1}', {"a": 1}, []]),
            },
        ),
    },
)
CHUNKS = st.one_of(
    st.builds(lambda pieces: chunk({"tool_calls": pieces}), st.lists(PIECES, max_size=3)),
    st.builds(lambda text, thought: chunk({"content": text, "reasoning": thought}), st.text(max_size=3), st.text(max_size=3)),
    st.builds(lambda reason: chunk(finish_reason=reason), st.sampled_from([None, "stop", "error", 3])),
    st.just({"error": {"message": "no"}}),
    st.recursive(st.none() | st.booleans() | st.text(max_size=3), lambda inner: st.dictionaries(
        st.sampled_from(["choices", "delta", "usage", "tool_calls", "message", "content"]), inner | st.lists(inner, max_size=2)
    ), max_leaves=8),
)  # fmt: skip


@given(st.lists(CHUNKS, max_size=8), st.booleans())
def test_whatever_is_streamed_the_run_is_right_and_ends(chunks, is_done):
    run(*chunks, end=DONE if is_done else b"")
