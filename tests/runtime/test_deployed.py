"""The runtime image behind a real daemon: built and deployed by the command line, given runs, killed."""

import json
import os
import subprocess
import sys

import pytest

from tests.fakes.docker import BASE_IMAGE
from tests.fakes.models import KEY, MODEL, ModelServer, ToolCall, Turn, When
from tests.fakes.runtime import ROOT, answer_of
from tests.fakes.websockets import WebSocketClient

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


TEST = """
import unittest
from shop import total


class Totals(unittest.TestCase):
    def test_every_price_counts(self):
        self.assertEqual(total([1, 2, 3]), 6)
"""
FIX = [
    Turn(
        text="I run the tests.",
        calls=(ToolCall("run_command", {"command": "python3 -m unittest"}),),
        when=When(user="failing"),
    ),
    Turn(calls=(ToolCall("read_file", {"path": "shop.py"}),), when=When(tool="AssertionError: 5 != 6")),
    Turn(
        calls=(
            ToolCall("edit_file", {"path": "shop.py", "old_string": "prices[1:]", "new_string": "prices"}),
            ToolCall("run_command", {"command": "python3 -m unittest"}),
        ),
        when=When(tool=r"prices\[1:\]"),
    ),
    Turn(
        calls=(ToolCall("git_commit", {"message": "shop: the first price counts", "paths": ["shop.py"]}),),
        when=When(tool="OK"),
    ),
    Turn(text="Fixed: the first price was left out.", when=When(tool='"success": true')),
]


def commands_to(daemon):
    """Return what runs agentainerctl on a daemon and returns all that it printed."""

    def run(*words, code=0):
        done = subprocess.run(
            [sys.executable, "-m", "agentainerctl", "--host", f"unix://{daemon.control_socket}", *words],
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr, daemon.tail())
        return done.stdout + ("" if "json" in words else done.stderr)

    return run


def inside(client, container, *command):
    return client.exec_start(client.exec_create(container, list(command))["Id"]).decode()


@pytest.fixture
def sandbox(docker_sandbox, docker_client):
    """The session's, with nothing left in it after the test."""
    yield docker_sandbox
    docker_sandbox.remove_containers()
    for volume in docker_client.volumes(filters={"name": "smith-workspace"})["Volumes"] or ():
        docker_client.remove_volume(volume["Name"], force=True)


@pytest.fixture
def ctl(start_daemon, sandbox):
    return commands_to(start_daemon(sandbox=sandbox))


def test_an_agent_of_the_image_works_remembers_and_keeps_its_secrets(
    start_daemon, sandbox, runtime_image, docker_client, tmp_path
):
    daemon = start_daemon(sandbox=sandbox)
    ctl = commands_to(daemon)
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "turns.json").write_text(json.dumps(TURNS))
    (tmp_path / "rules.md").write_text("Be brief.")
    ctl(
        "deploy", "--runtime", "--image", runtime_image, "--name", "smith", "--model", "script/turns.json",
        "--volume", f"{scripts}:/scripts:ro", "--instructions", str(tmp_path / "rules.md"), "--secret", "GITHUB_TOKEN=ghp_hidden", "--wait",
    )  # fmt: skip
    agent = json.loads(ctl("inspect", "smith", "-o", "json"))
    container = docker_client.inspect_container(agent["container_id"])

    assert "You said: hello" in ctl("run", "smith", "hello")
    assert (agent["runtime"], agent["memory_limit"], agent["cpu_limit"]) == (True, 2 * 1024**3, 10**9)
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert not container["HostConfig"]["Init"]
    looked = docker_client.exec_create(
        container["Id"], ["sh", "-c", "cat /proc/1/environ"], environment={"GITHUB_TOKEN": ""}
    )
    assert b"Permission denied" in docker_client.exec_start(looked["Id"])

    docker_client.exec_start(docker_client.exec_create(
        container["Id"], ["sh", "-c", "echo 'def add(a, b): return a - b' > /workspace/sum.py"])["Id"])  # fmt: skip
    page = WebSocketClient(daemon.port, "/agent/smith/ws")
    watched = page.ask(id=1, type="watchFile", payload={"path": "sum.py"})
    found = page.ask(id=2, type="getLintErrors")
    shown = ctl("run", "smith", "fix the sum")
    change = page.next_change()
    page.close()
    fixed = docker_client.exec_start(docker_client.exec_create(container["Id"], ["cat", "/workspace/sum.py"])["Id"])

    assert fixed == b"def add(a, b): return a + b\n", shown
    assert "Fixed." in shown
    assert watched["data"] == {"watching": "sum.py", "exists": True}
    assert found["data"]["linters"] == [{"name": "python", "files": 1}]
    assert (change["path"], change["operation"]) == ("sum.py", "modified")


def test_a_model_fixes_a_failing_test_of_a_repository(start_daemon, sandbox, docker_client, runtime_image, tmp_path):
    repository = tmp_path / "shop.git"
    work = tmp_path / "work"
    work.mkdir()
    (work / "shop.py").write_text("def total(prices):\n    return sum(prices[1:])\n")
    (work / "test_shop.py").write_text(TEST)
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "shop"],
    ):
        subprocess.run(["git", *command], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(repository)], check=True)
    if os.getuid() == 0:
        subprocess.run(
            ["chown", "-R", "1000:1000", str(repository)], check=True
        )  # Git trusts its user's repositories only
    with ModelServer(FIX, host="127.0.0.1") as models:
        provider = {"api_key": KEY, "base_url": models.base_url, "models": [MODEL]}
        config = json.dumps({"models": {"providers": {"openai": provider}, "default": f"openai/{MODEL}"}})
        daemon = start_daemon(
            sandbox=sandbox, config=config, environment={"GIT_USER_NAME": "Ada", "GIT_USER_EMAIL": "a@b.c"}
        )
        ctl = commands_to(daemon)
        ctl(
            "deploy", "--runtime", "--image", runtime_image, "--name", "smith", "--repo", "file:///repo", "--branch", "main",
            "--target-branch", "agent/fix", "--volume", f"{repository}:/repo:ro", "--wait",
        )  # fmt: skip

        shown = ctl("run", "smith", "make the failing test pass")

        container = json.loads(ctl("inspect", "smith", "-o", "json"))["container_id"]
        diff = inside(docker_client, container, "git", "-C", "/workspace", "show", "--format=%an %s")
        branch = inside(docker_client, container, "git", "-C", "/workspace", "branch", "--show-current")
        run = json.loads(ctl("runs", "list", "-o", "json"))[0]
    assert "Fixed" in shown
    assert diff.startswith("Ada shop: the first price counts")
    assert "-    return sum(prices[1:])\n+    return sum(prices)" in diff
    assert branch.strip() == "agent/fix"
    assert models.unplayed == []
    assert {request.status for request in models.received} == {200}
    assert (run["status"], run["steps"]) == ("completed", 5)
    assert run["usage"]["input_tokens"] > 0


def test_a_run_outlives_the_daemon_and_ends_with_its_container(
    start_daemon, sandbox, docker_client, runtime_image, tmp_path, eventually
):
    words = " ".join(str(number) for number in range(80))
    turns = [
        {"text": words, "pause_s": 0.03, "when": {"user": "count"}},
        {"text": "slow", "first_token_s": 60, "when": {"user": "wait"}},
    ]
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "turns.json").write_text(json.dumps([*turns, {"text": "fine", "times": 0}]))
    daemon = start_daemon(sandbox=sandbox)
    commands_to(daemon)(
        "deploy", "--runtime", "--image", runtime_image, "--name", "smith", "--model", "script/turns.json",
        "--volume", f"{scripts}:/scripts:ro", "--wait",
    )  # fmt: skip
    session = daemon.control("POST", "/api/v1/sessions", {"agent_id": "smith"})[1]["session_id"]

    def begin(text):
        return daemon.control("POST", "/api/v1/runs", {"agent_id": "smith", "session_id": session, "input": text})[1][
            "data"
        ]["id"]

    def events(run):
        return daemon.control("GET", f"/api/v1/runs/{run}/events?limit=1000")[1]["data"]

    counting = begin("count")
    eventually(lambda: len(events(counting)) > 10)
    seen = events(counting)
    daemon.kill()
    daemon = start_daemon(like=daemon, sandbox=sandbox)
    eventually(
        lambda: daemon.control("GET", f"/api/v1/runs/{counting}")[1]["data"]["status"] == "completed", limit_s=30
    )
    found = events(counting)
    waiting = begin("wait")
    eventually(lambda: daemon.control("GET", f"/api/v1/runs/{waiting}")[1]["data"]["status"] == "running")
    docker_client.kill(json.loads(commands_to(daemon)("inspect", "smith", "-o", "json"))["container_id"])
    eventually(lambda: daemon.control("GET", f"/api/v1/runs/{waiting}")[1]["data"]["status"] == "failed", limit_s=30)
    commands_to(daemon)("start", "smith", "--wait")

    assert found[: len(seen)] == seen
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    assert answer_of([event["event"] for event in found]) == words
    assert [event["synthetic"] for event in found] == [False] * len(found)
    assert "fine" in commands_to(daemon)("run", "smith", "go on", "--session", session)


def test_the_image_is_built_through_the_daemon(ctl, runtime_image, docker_client):
    tag = f"agentainer-test-{os.getpid()}:built"

    shown = ctl("runtime", "build", "--base", BASE_IMAGE, "--wheels", str(ROOT / ".wheels/runtime"), "--tag", tag)

    labels = docker_client.inspect_image(tag)["Config"]["Labels"]
    docker_client.remove_image(tag, force=True)
    assert f"Image: {tag}" in shown
    assert labels["agentainer.bridge"] == "native"


def test_what_keeps_an_agent_from_its_work_is_said_where_it_is_deployed_or_started(ctl, runtime_image):
    said = ctl(
        "deploy", "--runtime", "--image", runtime_image, "--name", "smith", "--model", "script/echo.yaml",
        "--repo", "file:///nowhere.git", "--wait", code=1,
    )  # fmt: skip

    assert "agent 'smith' runs without its repository" in said
    assert "/nowhere.git" in said
    assert "without its repository" in ctl("restart", "smith", "--wait", code=1)

    assert "agentainerctl runtime build" in ctl(
        "deploy", "--runtime", "--image", "no-such-image:1", "--name", "x", "--pull", "never", code=3
    )
    assert "--repo needs --runtime" in ctl("deploy", "--image", "x", "--name", "x", "--repo", "https://x/y", code=2)
    assert "need --repo" in ctl("deploy", "--runtime", "--name", "x", "--branch", "b", code=2)
    assert "cannot read /nope" in ctl("deploy", "--runtime", "--name", "x", "--instructions", "/nope", code=2)
    assert "no such folder" in ctl("runtime", "build", "--wheels", "/nope", code=3)


def test_a_run_that_waits_for_a_person_outlives_the_daemon_and_the_container(
    start_daemon, sandbox, docker_client, runtime_image, tmp_path, eventually
):
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    turns = [
        {"when": {"user": "tidy"}, "calls": [{"name": "run_command", "arguments": {"command": "id -u > who"}}]},
        {"text": "{{tool}}", "times": 0},
    ]
    (scripts / "turns.json").write_text(json.dumps(turns))
    daemon = start_daemon(sandbox=sandbox)
    ctl = commands_to(daemon)
    ctl(
        "deploy", "--runtime", "--image", runtime_image, "--name", "smith", "--model", "script/turns.json",
        "--volume", f"{scripts}:/scripts:ro", "--env", "AGENT_COMMANDS=confirm", "--wait",
    )  # fmt: skip

    session = daemon.control("POST", "/api/v1/sessions", {"agent_id": "smith"})[1]["session_id"]

    asked = ctl("run", "smith", "--session", session[:8], "tidy up", code=11)
    run = json.loads(ctl("runs", "list", "--status", "input_required", "-o", "json"))[0]["id"]
    container = json.loads(ctl("inspect", "smith", "-o", "json"))["container_id"]
    daemon.kill()
    docker_client.kill(container)
    daemon = start_daemon(like=daemon, sandbox=sandbox)
    ctl = commands_to(daemon)

    assert "? May the agent run this command?\n  id -u > who" in asked
    assert f"agentainerctl runs answer {run} TEXT" in asked
    assert "input_required" in ctl("runs", "show", run[:8])
    ctl("start", "smith", "--wait")
    ctl("runs", "answer", run[:8], "yes")
    assert '"success": true' in ctl("runs", "attach", run[:8])
    assert inside(docker_client, container, "cat", "/workspace/who") == "1000\n"
    events = [json.loads(line)["event"]["type"] for line in ctl("runs", "events", run, "-o", "json").splitlines()]
    assert [events.count(kind) for kind in ("RUN_FINISHED", "TOOL_CALL_START", "TOOL_CALL_RESULT")] == [2, 1, 1]
    state = ("sh", "-c", "cd /workspace/.agentainer; ls conversations runs | grep -c jsonl")
    assert inside(docker_client, container, *state) == "3\n"
    ctl("sessions", "delete", "--force", session[:8])
    eventually(lambda: inside(docker_client, container, *state) == "0\n")
