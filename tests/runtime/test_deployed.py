"""The runtime image behind a real daemon: built and deployed by the command line, given runs, killed."""

import json
import os
import subprocess
import sys

import pytest

from tests.fakes.docker import BASE_IMAGE
from tests.fakes.runtime import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.redis]
TURNS = [
    {
        "text": "I look.",
        "when": {"user": "^fix"},
        "calls": [{"name": "run_command", "arguments": {"command": "cat sum.py"}}],
    },
    {
        "when": {"tool": "a - b"},
        "calls": [{"name": "edit_file", "arguments": {"path": "sum.py", "old_string": "a - b", "new_string": "a + b"}}],
    },
    {"text": "Fixed.", "when": {"tool": "true|sum.py"}},
    {"text": "slow", "when": {"user": "^wait"}, "first_token_s": 60},
    {"text": "You said: {{input}}", "times": 0},
]


@pytest.fixture
def ctl(start_daemon, docker_sandbox, docker_client):
    daemon = start_daemon(sandbox=docker_sandbox)

    def run(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "agentainerctl", "--host", f"unix://{daemon.control_socket}", *words],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr, daemon.tail())
        return done.stdout + done.stderr

    yield run
    docker_sandbox.remove_containers()
    for volume in docker_client.volumes(filters={"name": "coder-workspace"})["Volumes"] or ():
        docker_client.remove_volume(volume["Name"], force=True)


def test_an_agent_of_the_image_works_remembers_and_keeps_its_secrets(ctl, runtime_image, docker_client, tmp_path):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "turns.json").write_text(json.dumps(TURNS))
    (tmp_path / "rules.md").write_text("Be brief.")
    ctl(
        "deploy", "--runtime", "--image", runtime_image, "--name", "coder", "--model", "script/turns.json",
        "--volume", f"{scripts}:/scripts:ro", "--instructions", str(tmp_path / "rules.md"), "--secret", "GITHUB_TOKEN=ghp_hidden", "--wait",
    )  # fmt: skip
    agent = json.loads(ctl("inspect", "coder", "-o", "json"))
    container = docker_client.inspect_container(agent["container_id"])

    assert "You said: hello" in ctl("run", "coder", "hello")
    assert (agent["runtime"], agent["memory_limit"], agent["cpu_limit"]) == (True, 2 * 1024**3, 10**9)
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert not container["HostConfig"]["Init"]
    looked = docker_client.exec_create(
        container["Id"], ["sh", "-c", "cat /proc/1/environ"], environment={"GITHUB_TOKEN": ""}
    )
    assert b"Permission denied" in docker_client.exec_start(looked["Id"])

    docker_client.exec_start(docker_client.exec_create(
        container["Id"], ["sh", "-c", "echo 'def add(a, b): return a - b' > /workspace/sum.py"])["Id"])  # fmt: skip
    shown = ctl("run", "coder", "fix the sum")
    fixed = docker_client.exec_start(docker_client.exec_create(container["Id"], ["cat", "/workspace/sum.py"])["Id"])

    assert fixed == b"def add(a, b): return a + b\n", shown
    assert "Fixed." in shown


def test_the_image_is_built_through_the_daemon(ctl, runtime_image, docker_client):
    tag = f"agentainer-test-{os.getpid()}:built"

    shown = ctl("runtime", "build", "--base", BASE_IMAGE, "--wheels", str(ROOT / ".wheels/runtime"), "--tag", tag)

    labels = docker_client.inspect_image(tag)["Config"]["Labels"]
    docker_client.remove_image(tag, force=True)
    assert f"Image: {tag}" in shown
    assert labels["agentainer.bridge"] == "native"


def test_what_the_runtime_cannot_be_deployed_with_is_said(ctl):
    assert "agentainerctl runtime build" in ctl(
        "deploy", "--runtime", "--image", "no-such-image:1", "--name", "x", "--pull", "never", code=3
    )
    assert "--repo needs --runtime" in ctl("deploy", "--image", "x", "--name", "x", "--repo", "https://x/y", code=2)
    assert "need --repo" in ctl("deploy", "--runtime", "--name", "x", "--branch", "b", code=2)
    assert "cannot read /nope" in ctl("deploy", "--runtime", "--name", "x", "--instructions", "/nope", code=2)
    assert "no such folder" in ctl("runtime", "build", "--wheels", "/nope", code=3)
