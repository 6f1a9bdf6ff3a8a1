"""AGENT_COMMANDS=confirm: what is not on the list is run when a person has allowed it, in that conversation, and no sooner."""

import json
import tomllib
from pathlib import Path

import pytest
from agentainer_runtime.approvals import Approvals

from tests.fakes.runtime import ROOT

CALL = {"name": "run_command", "arguments": {"command": "id -u > who"}}


def installed(folder: Path) -> str:
    """A folder for PYTHONPATH in which the runtime's package is installed, as far as its entry points go."""
    points = tomllib.loads((ROOT / "agentainerd/runtime/pyproject.toml").read_text())["project"]["entry-points"]
    record = folder / "agentainer_runtime-0.dist-info"
    record.mkdir(parents=True)
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: agentainer-runtime\nVersion: 0\n")
    lines = [
        f"[{group}]\n" + "\n".join(f"{name} = {value}" for name, value in of.items()) for group, of in points.items()
    ]
    (record / "entry_points.txt").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture
def confirming(start_runtime, tmp_path):
    turns = [
        {"when": {"user": "(go|approve \\w+)$", "tool": "^$"}, "calls": [CALL], "times": 0},
        {"text": "{{tool}}", "times": 0},
    ]
    return start_runtime(turns, PYTHONPATH=installed(tmp_path / "installed"), AGENT_COMMANDS="confirm")


def result_of(events) -> dict:
    results = [event["content"] for event in events if event["type"] == "TOOL_CALL_RESULT"]
    assert len(results) == 1, events
    return json.loads(results[0])


def test_a_command_is_run_once_the_user_has_said_so_in_this_conversation(confirming):
    who = confirming.workspace / "who"
    asked = result_of(confirming.run("go", thread="t"))
    code = asked["approval"]
    assert f"approve {code}" in asked["error"]
    assert asked["error"].startswith("Command not allowed: id. Allowed: ")

    assert "error" in result_of(confirming.run("approve 00000000", thread="t"))
    assert "error" in result_of(confirming.run("go", thread="another"))
    assert not who.exists()
    assert result_of(confirming.run(f"approve {code}", thread="t"))["success"] is True
    assert who.exists()


def test_a_code_is_of_one_action_and_one_process_only():
    approvals = Approvals()
    code = approvals.missing("rm x", [])

    assert approvals.missing("rm x", ["no", f"yes, Approve  {code}."]) == ""
    assert approvals.missing("rm x", [code, f"approve {code}0", f"disapprove {code}"]) == code
    assert approvals.missing("rm y", [f"approve {code}"])
    assert Approvals().missing("rm x", [f"approve {code}"])
