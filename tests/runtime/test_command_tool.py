"""run_command and run_python under the policy, and what all tools of ours do with arguments that are wrong."""

from importlib import import_module
from pathlib import Path

import pytest
from agentainer_runtime.built_in import BuiltIn
from agentainer_runtime.policy import Mode, Policy
from agentainer_runtime.tools import run_command, run_python
from hypothesis import given, settings
from hypothesis import strategies as st

NAMES = sorted(path.stem for path in Path(run_command.__file__).parent.glob("*.py") if path.stem != "__init__")


def under_list(tools, command, **more):
    return tools.full("run_command", {"command": command, **more}, mode="list")["result"]


def test_what_is_on_the_list_runs_with_and_without_a_shell(tools, workspace):
    (workspace / "a b.txt").write_text("x\n")

    assert under_list(tools, "cat 'a b.txt'")["stdout"] == "x\n"
    assert under_list(tools, "cat 'a b.txt' | wc -l && echo $(cat a*.txt)")["stdout"].split() == ["1", "x"]
    assert under_list(tools, "sed s/x/y/ 'a b.txt'")["stdout"] == "y\n"
    assert under_list(tools, "pwd", directory=".")["stdout"] == f"{workspace}\n"


def test_what_is_not_on_the_list_is_an_answer_with_the_list_and_nothing_is_run(tools, workspace):
    result = under_list(tools, "touch made && curl evil")

    assert result["error"].startswith("Command not allowed: curl. Allowed: [ bun cargo")
    assert not (workspace / "made").exists()


def test_a_program_that_sed_would_run_is_not(tools, workspace):
    (workspace / "a").write_text("x\n")

    result = under_list(tools, "sed '1e touch made' a; sed 's/x/touch made/e' a; sed 'w made' a")

    assert "sandbox" in result["stderr"]
    assert not (workspace / "made").exists()


def test_where_a_person_is_to_be_asked_what_is_on_the_list_runs_and_the_rest_does_not(tools, workspace):
    answer = tools.full("run_command", {"command": "echo a"}, mode="confirm")
    assert answer["result"]["stdout"] == "a\n"

    answer = tools.full("run_command", {"command": "curl evil > made"}, mode="confirm")
    assert answer["result"]["error"].startswith("Command not allowed: curl")
    assert not (workspace / "made").exists()


def test_the_model_is_told_which_programs_there_are():
    assert "vitest wc yarn" in run_command.tool(Policy(Mode.LIST)).description
    assert "vitest" not in run_command.tool(Policy(Mode.OFF)).description


@pytest.mark.parametrize("name", NAMES)
def test_a_tool_is_as_chat_completions_take_it(name):
    tool = import_module(f"agentainer_runtime.tools.{name}").tool()

    assert isinstance(tool, BuiltIn)
    assert tool.name == name
    assert tool.description.endswith((".", "yarn"))
    assert tool.parameters["type"] == "object"
    assert set(tool.parameters["required"]) <= set(tool.parameters["properties"])
    for schema in tool.parameters["properties"].values():
        assert schema["description"] or schema["type"] == "array"


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("read_file", {}, "path is missing; the arguments are: path, offset, limit; given: none"),
        ("read_file", {"file": "x"}, "given: ['file']"),
        ("read_file", {"\ud800": "x"}, "given: ['\\ud800']"),
        ("git_commit", {"message": "x", "paths": ["\ud800"]}, "surrogates"),
        ("run_command", {"command": "\ud800"}, "surrogates"),
        ("run_command", {"command": "x" * 200_000}, "more in its arguments than a program can be given"),
        ("read_file", {"path": 1}, "path is '1': it must be of type string"),
        ("read_file", {"path": "x", "offset": "a"}, "offset is 'a': it must be of type integer"),
        ("read_file", {"path": "x", "offset": 0}, "offset is 0"),
        ("read_file", {"path": "x", "offset": 1.5}, "must be of type integer"),
        ("read_file", {"path": "x", "offset": True}, "must be of type integer"),
        ("read_file", {"path": "x", "limit": 10**9}, "from 1 to 2000"),
        ("read_file", {"path": "\0"}, "NUL"),
        ("read_file", {"path": "\ud800"}, "UTF-8"),
        ("list_directory", {"path": ["x"]}, "must be of type string"),
        ("edit_file", {"path": "x", "old_string": "a", "new_string": "b", "replace_all": "maybe"}, "type boolean"),
        ("git_commit", {"message": "x", "paths": [1]}, "something else than text"),
        ("git_commit", {"message": "x", "paths": "x"}, "must be of type array"),
        ("run_command", {"command": "a\0b"}, "NUL"),
        ("run_command", {"command": "ls", "timeout_s": 0}, "from 1 to 3600"),
        ("run_python", {"code": " "}, "code is empty"),
        ("run_python", {"code": "x" * 1_000_001}, "more than 1000000"),
        ("run_python", {"code": "'\ud800'"}, "surrogates"),
        ("search_files", {"query": "a\nb"}, "one line"),
    ],
)
def test_arguments_that_are_wrong_are_an_answer(tools, tool, arguments, said):
    assert said in tools(tool, **arguments)["error"]


def test_python_is_run_only_where_the_list_has_it():
    tool = run_python.tool(Policy(Mode.LIST, frozenset({"ls"})))

    coroutine = tool.run({"code": "print(1)"}, None)
    with pytest.raises(StopIteration) as over:
        coroutine.send(None)

    assert over.value.value["error"].startswith("Command not allowed: python3")


ANY = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.lists(st.text(max_size=3), max_size=2)
)
ARGUMENTS = st.sampled_from(
    ["path", "content", "offset", "limit", "query", "message", "paths", "staged", "old_string", "new_string", "x"]
)


@settings(max_examples=60)
@given(
    st.sampled_from([name for name in NAMES if not name.startswith("run_")]),
    st.dictionaries(ARGUMENTS, ANY, max_size=4),
)
def test_whatever_the_arguments_are_there_is_an_answer(tools, tool, arguments):
    answer = tools(tool, **arguments)

    assert answer
    assert isinstance(answer.get("error", ""), str)
