import asyncio
import json

import pytest
from agentainer_runtime.provider import Call, End, ModelFailed, Reasoning, Request, Text
from agentainer_runtime.script import InvalidScript, load


def provider(tmp_path, turns):
    (tmp_path / "turns.json").write_text(turns if isinstance(turns, str) else json.dumps(turns))
    return load("script/turns.json", [tmp_path])


def answer(provider, *messages):
    async def collect():
        return [each async for each in provider.answer(Request("script/x", list(messages)))]

    return asyncio.run(collect())


def text_of(pieces):
    return "".join(piece.text for piece in pieces if isinstance(piece, Text))


def user(text):
    return {"role": "user", "content": text}


def test_turns_are_played_once_and_in_order_to_whom_they_fit(tmp_path):
    script = provider(tmp_path, [
        {"text": "not yet", "when": {"tool": "passed"}},
        {"text": "I run the tests", "calls": [{"name": "run_command", "arguments": {"command": "pytest {{input}}"}}]},
        {"text": "again", "times": 0},
    ])  # fmt: skip
    first = answer(script, user("-q"))
    call = next(piece for piece in first if isinstance(piece, Call))
    said = {"role": "assistant", "content": "I run the tests", "tool_calls": []}
    output = {"role": "tool", "tool_call_id": call.id, "content": "1 passed"}

    assert (text_of(first), json.loads(call.arguments)) == ("I run the tests", {"command": "pytest -q"})
    assert isinstance(first[-1], End)
    assert first[-1].finish == "tool_calls"
    assert text_of(answer(script, user("-q"), said, output)) == "not yet"
    assert text_of(answer(script, user("-q"), said, {**output, "content": "failed"})) == "again"
    assert text_of(answer(script, user("-q"), said, output, said, user("more"))) == "again"


def test_what_was_said_is_filled_in_and_thinking_comes_first(tmp_path):
    script = provider(tmp_path, [{"thinking": "hm  so", "text": "{{input}}: {{tool}}\n", "times": 0}])

    pieces = answer(script, user("say"), {"role": "assistant", "content": ""}, {"role": "tool", "content": "42"})

    assert "".join(piece.text for piece in pieces if isinstance(piece, Reasoning)) == "hm  so"
    assert text_of(pieces) == "say: 42\n"


def test_no_turn_and_a_failing_turn_are_the_model_failing(tmp_path):
    with pytest.raises(ModelFailed, match="no turn for what was said: hello"):
        answer(provider(tmp_path, [{"text": "x", "when": {"user": "bye"}}]), user("hello"))
    with pytest.raises(ModelFailed, match="overloaded"):
        answer(provider(tmp_path, [{"error": "overloaded"}]), user("hello"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "list of turns"),
        ("[]", "list of turns"),
        ("[", "Expecting"),
        ('["x"]', "turn 1"),
        ('[{"txt": "x"}]', "turn 1 is not an object"),
        ('[{"when": {"who": "x"}}]', "turn 1: when takes"),
        ('[{"when": {"user": "("}}]', "turn 1"),
        ('[{"calls": [{}]}]', "turn 1: calls"),
    ],
)
def test_a_file_that_is_no_script_is_said_to_be_none(tmp_path, content, words):
    with pytest.raises(InvalidScript, match=words):
        provider(tmp_path, content)


def test_yaml_is_as_good_and_a_missing_file_names_the_places(tmp_path):
    (tmp_path / "t.yaml").write_text("- text: |\n    hello\n")

    assert text_of(answer(load("script/t.yaml", [tmp_path / "other", tmp_path]), user(""))) == "hello\n"
    with pytest.raises(InvalidScript, match=f"no file none.yaml .* looked in {tmp_path}"):
        load("script/none.yaml", [tmp_path])
    for outside in ("../turns.json", str(tmp_path / "t.yaml"), "link"):
        (tmp_path / "inner").mkdir(exist_ok=True)
        (tmp_path / "inner/link").unlink(missing_ok=True)
        (tmp_path / "inner/link").symlink_to(tmp_path / "t.yaml")
        with pytest.raises(InvalidScript, match="no file"):
            load(f"script/{outside}", [tmp_path / "inner"])
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(InvalidScript, match="not YAML"):
        load("script/bad.yaml", [tmp_path])
