"""What tools' programs get of the environment: no key, no token, nothing that nobody listed."""

import pytest
from agentainer_runtime import environment

from tests.runtime.conftest import SECRETS


def test_no_key_and_no_token_is_in_the_environment_of_any_tool(tools):
    seen = tools("run_command", command="env; cat /proc/self/environ")["stdout"]
    seen += tools("run_python", code="import os; print(dict(os.environ))")["stdout"]

    assert "PAGER=cat" in seen
    for name, value in SECRETS.items():
        assert name not in seen
        assert value not in seen


def test_the_operator_gives_more_names_but_never_the_keys_of_models_or_of_the_repository(workspace):
    own = {
        "PATH": "/bin",
        "DISPLAY": ":1",
        "NPM_TOKEN": "n",
        "OPENAI_API_KEY": "k",
        "GITHUB_TOKEN": "t",
        "OTHER": "o",
        "AGENT_TOOL_ENVIRONMENT": "NPM_TOKEN, OPENAI_API_KEY GITHUB_TOKEN",
    }

    given = environment.for_tools(own, workspace)

    assert given["NPM_TOKEN"] == "n"
    assert (given["PATH"], given["DISPLAY"]) == ("/bin", ":1")
    assert not {"OPENAI_API_KEY", "GITHUB_TOKEN", "OTHER", "AGENT_TOOL_ENVIRONMENT"} & set(given)


def test_nothing_waits_for_a_person(tools, repository):
    assert (
        tools("run_command", command="git log; git commit --allow-empty; git rebase -i HEAD", timeout_s=20).get(
            "timedOut"
        )
        is None
    )
    assert tools("run_command", command="echo $PAGER $CI $TERM $LC_ALL")["stdout"] == "cat 1 dumb C.UTF-8\n"


@pytest.mark.parametrize(
    "name",
    [
        "OPENROUTER_API_KEY",
        "OPENAI_API_KEY",
        "ANTHROPIC_API_KEY",
        "GEMINI_API_KEY",
        "GITHUB_TOKEN",
        "GIT_TOKEN",
        "AWS_SECRET_KEY",
    ],
)
def test_a_secret_is_not_given_on(workspace, name):
    assert name not in environment.for_tools({name: "x"}, workspace)
