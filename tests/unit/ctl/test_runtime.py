import ast
from pathlib import Path

import pytest

from agentainerctl import runtime
from agentainerctl.runtime import body_of, context
from agentainerd.errors import InvalidParameter, NotFound

ROOT = Path(__file__).parents[3]
GIVEN = {"name": "coder", "model": None, "repo": None, "branch": None, "target_branch": None, "instructions": None}


def test_what_the_image_is_built_from_is_in_the_wheel():
    setup = ast.parse((ROOT / "setup.py").read_text())
    patterns = next(
        ast.literal_eval(node.value)
        for node in setup.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "RUNTIME"
    )
    shipped = {path for pattern in patterns for path in (ROOT / "agentainerd").glob(pattern)}

    sent = {Path(entry.path) for entry in context(None).entries if Path(entry.path).is_file()}

    assert sent
    assert sent - shipped == set()
    assert not [path for path in sent if "__pycache__" in path.parts]


def test_a_desktop_is_built_from_the_same_context_by_another_file():
    made = context(None, runtime.DESKTOP_DOCKERFILE)

    assert made.dockerfile == "desktop.Dockerfile"
    assert {entry.name for entry in made.entries} == {entry.name for entry in context(None).entries}


def test_packages_of_a_folder_go_along(tmp_path):
    with pytest.raises(InvalidParameter, match="no packages"):
        context(str(tmp_path))
    with pytest.raises(NotFound):
        context(str(tmp_path / "none"))
    (tmp_path / "a-1-py3-none-any.whl").write_bytes(b"12345")
    (tmp_path / "notes.txt").write_text("x")

    made = context(str(tmp_path))

    assert [entry.name for entry in made.entries if entry.name.startswith("wheels/")] == ["wheels/a-1-py3-none-any.whl"]
    assert made.total_bytes == context(None).total_bytes + 5


def test_a_model_is_asked_through_the_daemon_unless_it_is_a_script_or_there_is_a_key():
    assert body_of(GIVEN, env={}, volumes=[])["model"] == "default"
    assert body_of({**GIVEN, "model": "openai/x"}, env={}, volumes=[])["model"] == "openai/x"

    for model, env in (("script/echo.yaml", {}), ("gpt-9", {"OPENAI_API_KEY": "k"})):
        body = body_of({**GIVEN, "model": model}, env=env, volumes=[])
        assert (body["model"], body["env_vars"]) == ("", {"AGENT_MODEL": model, **env})


def test_it_gets_a_workspace_unless_it_was_given_one(tmp_path):
    own = {"host_path": "/data/x", "container_path": "/workspace/", "read_only": False}
    other = {"host_path": "/data/x", "container_path": "/scripts", "read_only": True}

    assert body_of(GIVEN, env={}, volumes=[own])["volumes"] == [own]
    assert [each["host_path"] for each in body_of(GIVEN, env={}, volumes=[other])["volumes"]] == [
        "/data/x",
        "coder-workspace",
    ]


def test_instructions_are_the_content_of_a_file(tmp_path):
    path = tmp_path / "rules.md"
    path.write_text("Be brief.")
    given = {**GIVEN, "instructions": str(path), "repo": "a/b", "target_branch": "fix"}

    assert body_of(given, env={"GITHUB_BRANCH": "mine"}, volumes=[])["env_vars"] == {
        "GITHUB_REPO": "a/b", "GITHUB_TARGET_BRANCH": "fix", "AGENT_INSTRUCTIONS": "Be brief.", "GITHUB_BRANCH": "mine",
    }  # fmt: skip
    path.write_text("x" * (runtime._MAX_INSTRUCTIONS_BYTES + 1))
    with pytest.raises(InvalidParameter, match="longer than 64 KiB"):
        body_of(given, env={}, volumes=[])
