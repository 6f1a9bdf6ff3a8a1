"""The tools where they work: in the real image, as hardened as agents are, called by a run."""

import http.client
import json

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


@pytest.fixture
def container(docker_client, docker_sandbox, docker_engine, runtime_image):
    host = docker_client.create_host_config(
        network_mode=docker_sandbox.network, read_only=True, tmpfs={"/tmp": "rw"}, cap_drop=["ALL"],
        security_opt=["no-new-privileges"], pids_limit=256,
    )  # fmt: skip
    environment = {"AGENT_MODEL": "script/turns.json", "GITHUB_TOKEN": TOKEN, "AGENT_COMMANDS": "off"}
    made = docker_client.create_container(runtime_image, environment=environment, host_config=host)["Id"]
    docker_client.start(made)
    yield made
    docker_client.remove_container(made, force=True, v=True)


def events_of(address, body):
    connection = http.client.HTTPConnection(address, 8080, timeout=30)
    try:
        connection.request("POST", "/invocations", json.dumps(body))
        return [json.loads(line[6:]) for line in connection.getresponse() if line.startswith(b"data: ")]
    finally:
        connection.close()


def test_tools_work_and_see_no_secret(container, docker_client, docker_sandbox, eventually):
    turns = [{"calls": [{"name": name, "arguments": arguments} for name, arguments in CALLS.items()]}, {"text": "done"}]
    script = ["sh", "-c", f"cat > /workspace/turns.json <<'END'\n{json.dumps(turns)}\nEND"]
    docker_client.exec_start(docker_client.exec_create(container, script)["Id"])
    networks = docker_client.inspect_container(container)["NetworkSettings"]["Networks"]
    address = networks[docker_sandbox.network]["IPAddress"]

    def run():
        try:
            return events_of(
                address,
                {
                    "prompt": "go",
                    "threadId": "t",
                    "runId": "r",
                    "messages": [{"id": "1", "role": "user", "content": "go"}],
                },
            )
        except OSError:
            return None

    events = eventually(run, limit_s=10)
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
