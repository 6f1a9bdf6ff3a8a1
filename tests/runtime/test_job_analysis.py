import json

import pytest
from agentainer_runtime.jobs.analysis import MAX_ACTIONS, MAX_BYTES, PYTHON, SHELL, Action, Unusable, parse
from agentainer_runtime.jobs.stand_in import echoed

LIST = {"type": SHELL, "description": "look", "command": "ls -l"}
PRINT = {"type": PYTHON, "description": "say", "code": "print('{}')", "output_file": "a.txt"}
GIVEN = {"actions": [LIST, PRINT], "estimated_time": "5 s", "requirements": ["ls"]}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(GIVEN),
        f"\n  {json.dumps(GIVEN)}  \n",
        f"```json\n{json.dumps(GIVEN, indent=2)}\n```",
        f"```\n{json.dumps(GIVEN)}\n```\n",
        f"Sure {{name}}! Here it is:\n\n```json\n{json.dumps(GIVEN)}\n```\nTell me if {{more}} is needed.",
        f'First {{"a": 1}}, then: {json.dumps(GIVEN)} - that is all.',
    ],
)
def test_an_analysis_is_found_in_what_models_put_around_it(text):
    found = parse(text)

    assert found.actions == (Action(SHELL, "look", "ls -l"), Action(PYTHON, "say", "print('{}')", "a.txt"))
    assert found.public() == GIVEN


def test_what_is_missing_or_of_another_kind_harmlessly_is_taken():
    found = parse(
        json.dumps({"actions": [{**LIST, "description": None, "why": 1}], "estimated_time": 5, "requirements": "git"})
    )

    assert found.public() == {
        "actions": [{"type": SHELL, "description": "", "command": "ls -l"}],
        "estimated_time": "5",
        "requirements": ["git"],
    }
    assert found.actions[0].label == "ls -l"
    assert parse('{"actions": []}', may_be_empty=True).actions == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no JSON object with `actions`"),
        ("I can't do that.", "no JSON object"),
        ("{" * 100_000, "no JSON object"),
        ('{"a": ' * 30_000, "no JSON object"),
        ('{"steps": []}', "no JSON object with `actions`"),
        ('{"actions": []}', "at least one action"),
        ('{"actions": {}}', "not a list"),
        ('{"actions": ["ls"]}', "action 1 has no `type`"),
        ('{"actions": [{"type": "browse"}]}', "shell_command or python_code"),
        ('{"actions": [{"type": "shell_command", "command": " "}]}', "`command` of action 1 is empty"),
        ('{"actions": [{"type": "shell_command", "command": ["ls"]}]}', "`command` of action 1 is not a text"),
        ('{"actions": [{"type": "python_code", "code": "a\\u0000"}]}', "has a NUL"),
        ('{"actions": [{"type": "python_code", "code": "\\ud800"}]}', "`code` of action 1 is not a text"),
        (json.dumps({"actions": [LIST] * (MAX_ACTIONS + 1)}), f"more than {MAX_ACTIONS}"),
        ("ü" * (MAX_BYTES // 2 + 1), f"{MAX_BYTES + 2} bytes, more than {MAX_BYTES}"),
    ],
)
def test_what_can_not_be_carried_out_is_said_to_be_so(text, words):
    with pytest.raises(Unusable, match=words):
        parse(text)


def test_a_label_is_one_harmless_line():
    assert Action(SHELL, "clear\x1b[2J\n the  screen", "x").label == "clear [2J the screen"
    assert Action(SHELL, "", "y" * 200).label == "y" * 77 + "..."


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("echo Hello World", ["echo", "Hello", "World"]),
        ("  echo 'a  b' \"c\"\n", ["echo", "a  b", "c"]),
        ("echo", ["echo"]),
    ],
)
def test_a_prompt_that_is_an_echo_is_its_own_analysis(prompt, words):
    assert echoed(prompt) == words


@pytest.mark.parametrize(
    "prompt",
    [
        "echo $(touch x)", "echo `touch x`", "echo a; touch x", "echo a && touch x", "echo a | sh", "echo a > x", "echo *", "echo $HOME",
        "X=1 echo a", "(echo a)", "echo a &", "echo a\ntouch x", "/bin/echo a", "say hello", "echo it's", "", "echo {a,b}", "touch x",
    ],
)  # fmt: skip
def test_nothing_else_is(prompt):
    assert echoed(prompt) == []
