"""The parser of streamed answers: the same pieces whatever the bytes are cut into, and what servers do differently."""

import json

import pytest
from agentainer_runtime.provider import Call, End, Reasoning, Text, Usage
from agentainer_runtime.stream_parser import MAX_ANSWER_BYTES, AnswerTooLong, BrokenAnswer, ErrorInStream, StreamParser
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes import model_frames
from tests.fakes.model_turns import Faults, ToolCall, Turn

DONE = "[DONE]"


def sse(*chunks, newline="\n"):
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False) for chunk in chunks]
    return "".join(f"data: {line}{newline}{newline}" for line in lines).encode()


def delta(*, finish=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def part(arguments=None, *, index=None, call_id=None, name=None):
    made = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return {key: value for key, value in made.items() if value is not None}


def parse(*pieces):
    parser = StreamParser()
    found = [each for piece in pieces for each in parser.feed(piece)]
    return found + list(parser.end())


def joined(found):
    """Return (text, reasoning, calls, end)."""
    text = "".join(piece.text for piece in found if isinstance(piece, Text))
    thought = "".join(piece.text for piece in found if isinstance(piece, Reasoning))
    return text, thought, [piece for piece in found if isinstance(piece, Call)], found[-1]


def calls_of(*parts, finish="tool_calls"):
    found = parse(sse(*(delta(tool_calls=[each]) for each in parts), delta(finish=finish), DONE))
    return [(call.name, call.arguments) for call in joined(found)[2]]


ANSWER = sse(
    delta(role="assistant", content=""),
    ": OPENROUTER PROCESSING".replace(": ", ": "),
    newline="\r\n",
).replace(b"data: :", b":") + sse(
    delta(reasoning_content="hm, ümlaut"),
    delta(content="Grüße "),
    delta(content="🎉 an \u2028 alle"),
    delta(tool_calls=[part("", index=0, call_id="a", name="read_file")]),
    delta(tool_calls=[part('{"path": "ü', index=0)]),
    delta(tool_calls=[part('.py"}', index=0)]),
    delta(tool_calls=[part('{"x": 1}', index=1, call_id="b", name="other")]),
    delta(finish="tool_calls"),
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 3}, "cost": 0.25}},
    DONE,
)  # fmt: skip
WHOLE = ("Grüße 🎉 an \u2028 alle", "hm, ümlaut", [Call("a", "read_file", '{"path": "ü.py"}'), Call("b", "other", '{"x": 1}')],
         End("tool_calls", Usage(7, 5, 3, 0, 0.25, "provider")))  # fmt: skip


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_it_is_the_same_cut_at_every_byte(newline):
    data = b"\xef\xbb\xbf" + ANSWER.replace(b"\r\n", b"\n").replace(b"\n", newline)

    assert joined(parse(data)) == WHOLE
    assert joined(parse(*(data[place : place + 1] for place in range(len(data))))) == WHOLE
    for place in range(len(data)):
        assert joined(parse(data[:place], data[place:])) == WHOLE


@given(st.lists(st.integers(0, len(ANSWER)), max_size=12))
def test_it_is_the_same_cut_anywhere(places):
    cuts = [0, *sorted(places), len(ANSWER)]

    assert joined(parse(*(ANSWER[begin:end] for begin, end in zip(cuts, cuts[1:], strict=False)))) == WHOLE


@given(
    st.text(max_size=60).filter(str.strip), st.integers(1, 9), st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["given", "missing", "zero"]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_what_a_server_says_is_what_is_understood(text, size, newline, index, late_name, null_arguments):
    faults = Faults(
        piece_bytes=size,
        newline=newline,
        comments=True,
        index=index,
        late_name=late_name,
        null_arguments=null_arguments,
    )
    calls = (ToolCall("one", {"a": text}, "id-1"), ToolCall("two", {"b": [1]}, "id-2"))
    answer = model_frames.chat({"model": "m", "messages": []}, Turn(text=text, calls=calls, faults=faults))

    found = joined(parse(*(piece for frame in answer.frames for piece in faults.pieces(frame))))

    assert found[0] == text
    assert [(call.id, call.name, json.loads(call.arguments)) for call in found[2]] == [
        ("id-1", "one", {"a": text}),
        ("id-2", "two", {"b": [1]}),
    ]


def test_parts_find_their_call_whatever_the_index_is_worth():
    one, two = ("one", '{"a":1}'), ("two", '{"b":2}')
    expected = [one, two]

    # Gemini: no index, whole calls
    assert calls_of(part(one[1], call_id="a", name="one"), part(two[1], call_id="b", name="two")) == expected
    # Ollama: always index 0, each with an id of its own; or none
    assert (
        calls_of(part(one[1], index=0, call_id="a", name="one"), part(two[1], index=0, call_id="b", name="two"))
        == expected
    )
    assert calls_of(part(one[1], index=0, name="one"), part(two[1], index=0, name="two")) == expected
    # pieces in turns, told apart by index alone
    assert calls_of(
        part("", index=0, call_id="a", name="one"), part("", index=1, call_id="b", name="two"),
        part('{"a"', index=0), part('{"b"', index=1), part(":1}", index=0), part(":2}", index=1),
    ) == expected  # fmt: skip
    # a wrong index in what goes on, without id and name: the current call
    assert calls_of(part('{"a"', index=0, call_id="a", name="one"), part(":1}", index=3)) == [one]
    # the id in every part, the index wrong
    assert calls_of(
        part('{"a"', index=0, call_id="a", name="one"), part('{"b"', index=1, call_id="b", name="two"),
        part(":1}", index=1, call_id="a"), part(":2}", index=0, call_id="b"),
    ) == expected  # fmt: skip
    # the name, or the id, late; the name again and again
    assert calls_of(part('{"a"', index=0, call_id="a"), part(":1}", index=0, name="one")) == [one]
    assert calls_of(part("", index=0, name="one"), part('{"a":1}', index=0, call_id="a")) == [one]
    assert calls_of(part('{"a"', index=0, call_id="a", name="one"), part(":1}", index=0, name="one", call_id="a")) == [
        one
    ]
    # an object instead of text
    assert calls_of(part({"a": 1}, index=0, call_id="a", name="one")) == [("one", '{"a": 1}')]


def test_calls_without_an_id_get_one():
    found = joined(parse(sse(delta(tool_calls=[part("{}", name="one")]), delta(finish="stop"), DONE)))

    assert found[2][0].id.startswith("call_")
    assert found[3].finish == "tool_calls"


def test_an_end_without_reason_or_without_done_is_an_end_and_without_both_is_none():
    assert parse(sse(delta(content="hi"), DONE))[-1] == End("stop")
    assert parse(sse(delta(content="hi"), delta(finish="length")))[-1] == End("length")
    assert parse(sse(delta(content="hi"), DONE).rstrip())[-1] == End("stop")
    for broken in (sse(delta(content="hi")), b"", sse(delta(content="hi"), DONE)[:-9], b": a comment\n\n"):
        with pytest.raises(BrokenAnswer):
            parse(broken)


def test_an_error_in_the_stream_is_one():
    with pytest.raises(ErrorInStream, match="overloaded"):
        parse(sse(delta(content="hi"), {"error": {"message": "overloaded", "code": 529}}))
    with pytest.raises(ErrorInStream, match="broke"):
        parse(sse({"error": "broke"}))


@pytest.mark.parametrize(
    "data", [b"data: {\n\n", b"data: [1]\n\n", b"data: 7\n\n", b"data: " + b"[" * 100_000 + b"\n\n"]
)
def test_what_is_no_chunk_breaks_the_answer(data):
    with pytest.raises(BrokenAnswer):
        parse(data)


def test_an_answer_without_end_is_cut_off():
    parser = StreamParser()

    with pytest.raises(AnswerTooLong):
        for _ in range(MAX_ANSWER_BYTES // 65536 + 1):
            list(parser.feed(b"x" * 65536))


def test_surrogate_pairs_that_come_in_halves_are_joined():
    stream = b'data: {"choices":[{"delta":{"content":"a\\ud83c"}}]}\n\ndata: {"choices":[{"delta":{"content":"\\udf89"}}]}\n\n'

    assert joined(parse(stream, b"data: [DONE]\n\n"))[0] == "a🎉"
    assert joined(parse(stream[: stream.index(b"\n\n") + 2], b"data: [DONE]\n\n"))[0] == "a\ufffd"


def test_content_in_parts_and_an_answer_that_was_not_streamed_are_read():
    assert joined(parse(sse(delta(content=[{"type": "text", "text": "hi"}]), DONE)))[0] == "hi"

    parser = StreamParser()
    message = {"role": "assistant", "content": "hi", "tool_calls": [part("{}", call_id="a", name="one")]}
    found = [*parser.take({"choices": [{"message": message, "finish_reason": "tool_calls"}]}), *parser.end()]

    assert joined(found)[:3] == ("hi", "", [Call("a", "one", "{}")])
