"""The tools where they work: in the real image, as hardened as agents are, called by a run."""

import http.client
import json
import subprocess

import pytest

pytestmark = [pytest.mark.docker]
TOKEN = "ghp_nobody-sees-this"
LOOK = (
    "id -un; cat /proc/[0-9]*/environ 2> /dev/null | tr '\\0' '\\n' | grep -c ghp_; "
    "cat /proc/[0-9]*/mem 2>&1 | head -c 100 | wc -c; touch /opt/x; command -v rg git python3"
)
CALLS = {
    "run_command": {"command": LOOK},
    "run_python": {"code": "import os, sys\nprint(sys.prefix, sorted(os.environ))"},
    "write_file": {"path": "src/a.py", "content": "print(1)\n"},
    "read_file": {"path": "../etc/passwd"},
    "search_files": {"query": "print"},
    "list_directory": {"path": "/proc/self/root"},
    "git_status": {},
}


TOTALS = "def total(prices):\n    return sum(prices) - 1\n"
TEST = """import unittest
from totals import total

class Total(unittest.TestCase):
    def test_prices_are_added(self):
        self.assertEqual(total([1, 2]), 3)
"""
FIX = {"path": "totals.py", "old_string": "sum(prices) - 1", "new_string": "sum(prices)"}
MESSAGE = "totals: prices are added, and nothing is taken off"
FIXING = [
    {
        "when": {"user": "failing test"},
        "calls": [{"name": "run_command", "arguments": {"command": "python3 -m unittest -q 2>&1 | tail"}}],
    },
    {"when": {"tool": "2 != 3"}, "calls": [{"name": "search_files", "arguments": {"query": "def total"}}]},
    {"when": {"tool": "totals.py"}, "calls": [{"name": "edit_file", "arguments": FIX}]},
    {
        "when": {"tool": "replacements"},
        "calls": [{"name": "run_command", "arguments": {"command": "python3 -m unittest -q"}}],
    },
    {
        "when": {"tool": "OK"},
        "calls": [{"name": "git_commit", "arguments": {"message": MESSAGE, "paths": ["totals.py"]}}],
    },
    {"when": {"tool": "hash"}, "text": "The test passes."},
]


@pytest.fixture
def start(docker_client, docker_sandbox, docker_engine, runtime_image):
    """`start(binds, pids, **environment)`: a container of the runtime, and its address."""
    made = []

    def started(binds=(), pids=256, **environment):
        host = docker_client.create_host_config(
            network_mode=docker_sandbox.network, read_only=True, tmpfs={"/tmp": "rw"}, cap_drop=["ALL"],
            security_opt=["no-new-privileges"], pids_limit=pids, binds=list(binds),
        )  # fmt: skip
        container = docker_client.create_container(
            runtime_image, environment={"AGENT_MODEL": "script/turns.json", **environment}, host_config=host
        )["Id"]
        made.append(container)
        docker_client.start(container)
        networks = docker_client.inspect_container(container)["NetworkSettings"]["Networks"]
        return container, networks[docker_sandbox.network]["IPAddress"]

    yield started
    for container in made:
        docker_client.remove_container(container, force=True, v=True)


def events_of(address, body):
    connection = http.client.HTTPConnection(address, 8080, timeout=30)
    try:
        connection.request("POST", "/invocations", json.dumps(body))
        return [json.loads(line[6:]) for line in connection.getresponse() if line.startswith(b"data: ")]
    finally:
        connection.close()


def run(address, text, eventually):
    """The events of a run, once the container listens."""

    def events():
        try:
            return events_of(address, {"prompt": text})
        except OSError:
            return None

    return eventually(events, limit_s=30)


def inside(client, container, *command):
    return client.exec_start(client.exec_create(container, list(command))["Id"]).decode()


def test_tools_work_and_see_no_secret(start, docker_client, eventually):
    turns = [{"calls": [{"name": name, "arguments": arguments} for name, arguments in CALLS.items()]}, {"text": "done"}]
    container, address = start(GITHUB_TOKEN=TOKEN, AGENT_COMMANDS="off")
    inside(docker_client, container, "sh", "-c", f"cat > /workspace/turns.json <<'END'\n{json.dumps(turns)}\nEND")

    events = run(address, "go", eventually)

    names = {event["toolCallId"]: event["toolCallName"] for event in events if event["type"] == "TOOL_CALL_START"}
    results = {
        names[event["toolCallId"]]: json.loads(event["content"])
        for event in events
        if event["type"] == "TOOL_CALL_RESULT"
    }
    assert events[-1]["type"] == "RUN_FINISHED", events[-1]
    assert TOKEN not in json.dumps(events)
    user, seen, _, *programs = results["run_command"]["stdout"].split("\n")
    assert (user, seen) == ("agent", "0")
    assert programs[:3] == ["/usr/bin/rg", "/usr/bin/git", "/usr/bin/python3"]
    assert "Read-only" in results["run_command"]["stderr"]
    assert results["run_python"]["stdout"].startswith("/usr [")
    assert "outside" in results["read_file"]["error"]
    assert "outside" in results["list_directory"]["error"]
    assert results["search_files"]["matches"][0] == {"file": "src/a.py", "line": 1, "content": "print(1)"}
    assert "not a git repository" in results["git_status"]["error"]


def test_an_agent_makes_the_failing_test_of_a_repository_pass(start, docker_client, eventually, tmp_path):
    """The repository is cloned into the workspace, worked on under the list of commands, and the work committed on its branch."""
    work = tmp_path / "scripts" / "work"
    work.mkdir(parents=True)
    (work / "totals.py").write_text(TOTALS)
    (work / "test_totals.py").write_text(TEST)
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("add", "."),
        ("-c", "user.name=A", "-c", "user.email=a@b", "commit", "-q", "-m", "first"),
    ):
        subprocess.run(["git", *arguments], cwd=work, check=True)
    (tmp_path / "scripts" / "turns.json").write_text(json.dumps(FIXING))

    container, address = start(
        [f"{tmp_path}/scripts:/scripts:ro"],
        GITHUB_REPO="file:///scripts/work",
        GITHUB_TARGET_BRANCH="agent/fix-totals",
        GIT_USER_NAME="Bug Fixer",
        GIT_USER_EMAIL="fixer@example.com",
    )
    events = run(address, "make the failing test pass", eventually)

    assert events[-1]["type"] == "RUN_FINISHED", events[-1]
    assert "The test passes." in "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")
    (edit,) = (event["value"] for event in events if event["type"] == "CUSTOM" and event["name"] == "file.changed")
    assert (edit["path"], edit["operation"]) == ("totals.py", "modified")
    shown = inside(docker_client, container, "git", "-C", "/workspace", "show", "--format=%an|%s|%D", "HEAD")
    assert shown.startswith(f"Bug Fixer|{MESSAGE}|HEAD -> agent/fix-totals")
    for line in ("-    return sum(prices) - 1\n", "+    return sum(prices)\n"):
        assert line in shown
        assert line in edit["diff"]
    assert inside(docker_client, container, "git", "-C", "/workspace", "status", "--porcelain") == ""


BOMB = """
import os
print("lit", flush=True)
while True:
    try:
        if os.fork() == 0:
            os.setsid()
    except OSError:
        pass
"""


def test_a_fork_bomb_that_leaves_its_group_is_put_out(start, docker_client, eventually):
    """In a container with a limit of processes, as agents have: only there may it go off."""
    container, address = start(pids=48, AGENT_COMMANDS="off")
    turns = [{"calls": [{"name": "run_python", "arguments": {"code": BOMB, "timeout_s": 1}}]}, {"text": "{{tool}}"}]
    inside(docker_client, container, "sh", "-c", f"cat > /workspace/turns.json <<'END'\n{json.dumps(turns)}\nEND")

    events = run(address, "go", eventually)

    result = next(json.loads(event["content"]) for event in events if event["type"] == "TOOL_CALL_RESULT")
    assert result["timedOut"] is True
    assert events[-1]["type"] == "RUN_FINISHED"
    eventually(lambda: len(docker_client.top(container)["Processes"]) == 2, what="only the runtime is left")
