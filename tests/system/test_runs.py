"""Runs on real containers, while the daemon, Redis and the container are killed: each ends once, and its readers miss nothing."""

import http.client
import json
import os
import signal
import subprocess
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.conftest import wait_until

pytestmark = [pytest.mark.docker, pytest.mark.redis]
READ_S = 600.0
KILLS = int(os.environ.get("RUN_KILLS", "2"))
PROGRAM = (Path(__file__).parents[1] / "fakes/docker_run_agent.py").read_text()


class Reader(threading.Thread):
    """Reads the events of a run over TCP as a browser's EventSource does: comes back with the last id until the run is over."""

    def __init__(self, daemon, run_id: str) -> None:
        super().__init__(daemon=True)
        self.daemon_process = daemon
        self.run_id = run_id
        self.events: list[tuple[int, dict]] = []
        self.connections = 0
        self.start()

    def run(self) -> None:
        end = time.monotonic() + READ_S
        while time.monotonic() < end and not self.is_over:
            with suppress(OSError, http.client.HTTPException):
                self.read()
            time.sleep(0.05)

    @property
    def is_over(self) -> bool:
        return bool(self.events) and self.events[-1][1]["event"]["type"] in ("RUN_FINISHED", "RUN_ERROR")

    def read(self) -> None:
        last = {"Last-Event-ID": str(self.events[-1][0])} if self.events else {}
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {self.daemon_process.token}", **last}
        with closing(http.client.HTTPConnection("127.0.0.1", self.daemon_process.port, timeout=30)) as connection:
            connection.request("GET", f"/api/v1/runs/{self.run_id}/events", headers=headers)
            with connection.getresponse() as response:
                if response.status == 200:
                    self.connections += 1
                    self.take(response)

    def take(self, response) -> None:
        data = b""
        while line := response.readline():
            if line.startswith(b"data: "):
                data = line[6:]
            elif line.startswith(b"id: "):
                self.events.append((int(line[4:]), json.loads(data)))

    def all_of_it(self) -> list[dict]:
        """Wait for the end; return the AG-UI events."""
        self.join(READ_S)
        assert self.is_over, self.events[-3:]
        assert [seq for seq, _ in self.events] == list(range(1, len(self.events) + 1))
        return [event["event"] for _, event in self.events]


class Host:
    def __init__(self, daemon, image):
        self.daemon = daemon
        self.image = image

    def must(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        assert status < 300, said
        return said["data"]

    def up(self, **fields):
        command = ["/usr/bin/python3", "-u", "-c", PROGRAM]
        self.must("POST", "/agents", {"name": "web", "image": self.image, "command": command, **fields})
        self.must("POST", "/agents/web/start?wait=30")

    def up_tool(self, line):
        """An agent that listens to nothing, whose runs are this line of a shell; return its container."""
        body = {
            "name": "tool", "image": self.image, "command": ["/bin/sleep", "infinity"], "bridge": "exec",
            "bridge_command": ["/bin/sh", "-c", line],
        }  # fmt: skip
        self.must("POST", "/agents", body)
        self.must("POST", "/agents/tool/start?wait=30")
        return self.must("GET", "/agents/tool")["container_id"]

    def ask(self, text, **fields):
        return self.must("POST", "/api/v1/runs", {"agent_id": "web", "input": text} | fields)

    def run(self, run_id, wait=30):
        return self.must("GET", f"/api/v1/runs/{run_id}?wait={wait}")

    def starts(self):
        return self.daemon.http("GET", "/agent/web/starts")[1]


@pytest.fixture
def host(start_daemon, docker_sandbox, agent_image):
    yield Host(start_daemon(sandbox=docker_sandbox), agent_image)
    docker_sandbox.remove_containers()


def is_at(reader, seq):
    wait_until(lambda: len(reader.events) >= seq, what=f"event {seq}")


def said(events) -> str:
    return "".join(event.get("delta", "") for event in events)


def test_a_run_goes_on_while_the_daemon_and_redis_are_killed(host, start_daemon, docker_sandbox):
    host.up()
    session_id = host.daemon.control("POST", "/api/v1/sessions", {"agent_id": "web"})[1]["session_id"]
    run = host.ask("100000 pause=0.05 until=enough", session_id=session_id)
    reader = Reader(host.daemon, run["id"])
    is_at(reader, 5)

    for _ in range(KILLS):
        seen = len(reader.events)
        host.daemon.kill()
        host.daemon = start_daemon(like=host.daemon, sandbox=docker_sandbox)
        is_at(reader, seen + 5)
    redis = int(
        subprocess.run(
            ["pgrep", "-P", str(host.daemon.pid), "redis|valkey"], capture_output=True, check=True
        ).stdout.split()[0]
    )
    os.kill(redis, signal.SIGKILL)
    is_at(reader, len(reader.events) + 5)
    wait_until(lambda: host.daemon.http("GET", "/agent/web/enough")[0] == 200, what="the agent being told to end")

    events = reader.all_of_it()
    assert reader.connections > KILLS
    assert said(events) == "".join(f"{number} " for number in range(len(said(events).split())))
    done = host.run(run["id"])
    assert (done["status"], done["output"], done["attempt"]) == ("completed", said(events), 1)
    assert host.starts() == {run["id"]: 1}
    summary = host.daemon.control("POST", f"/api/v1/sessions/{session_id}/summary")[1]["summary"]
    assert (done["usage"]["input_tokens"], done["usage"]["output_tokens"]) == (40, 2)
    assert (summary["run_count"], summary["total_tokens"]) == (1, 42), "counted once, however often it was joined"


def test_what_can_not_be_joined_again_has_failed_when_the_daemon_is_back(host, start_daemon, docker_sandbox):
    host.up(env_vars={"TIER": "agui"})
    run = host.ask("400 pause=0.05")
    reader = Reader(host.daemon, run["id"])
    is_at(reader, 5)

    host.daemon.kill()
    host.daemon = start_daemon(like=host.daemon, sandbox=docker_sandbox)

    events = reader.all_of_it()
    assert events[-1] == {
        "type": "RUN_ERROR", "code": "interrupted", "message": "the daemon was restarted while it was under way",
    }  # fmt: skip
    assert host.run(run["id"])["status"] == "failed"
    assert host.starts() == {run["id"]: 1}


def test_a_container_that_is_killed_tells_when_it_is_back(host, docker_client):
    host.up(auto_restart=True)
    run = host.ask("200 pause=0.05")
    reader = Reader(host.daemon, run["id"])
    is_at(reader, 5)

    docker_client.kill(host.must("GET", "/agents/web")["container_id"])

    events = reader.all_of_it()
    assert (events[-1]["code"], events[-1]["message"]) == ("interrupted", "the container was restarted")
    done = host.run(run["id"])
    assert (done["status"], done["error"]["code"]) == ("failed", "interrupted")
    assert host.run(host.ask("3")["id"])["status"] == "completed"


def test_an_agent_that_keeps_no_runs_is_gone_in_mid_run(host, docker_client):
    """A run of the tier agui ends as failed whatever took its container away, and its session goes on in the next one."""
    host.up(env_vars={"TIER": "agui"}, stop_grace_s=0)
    session_id = host.daemon.control("POST", "/api/v1/sessions", {"agent_id": "web"})[1]["session_id"]

    for how in ("killed", "stopped"):
        run = host.ask("2000 pause=0.05", session_id=session_id)
        reader = Reader(host.daemon, run["id"])
        is_at(reader, 5)

        if how == "killed":
            docker_client.kill(host.must("GET", "/agents/web")["container_id"])
        else:
            host.must("POST", "/agents/web/stop")

        end = reader.all_of_it()[-1]
        assert (end["type"], end["code"]) == ("RUN_ERROR", "container_lost")
        assert ("was stopped" if how == "stopped" else "its container ended") in end["message"], how
        done = host.run(run["id"])
        assert (done["status"], done["error"]) == ("failed", {"code": "container_lost", "message": end["message"]})
        host.must("POST", "/agents/web/" + ("resume" if how == "killed" else "start") + "?wait=30")
        assert host.run(host.ask("3", session_id=session_id)["id"])["status"] == "completed"

    messages = host.daemon.control("GET", f"/api/v1/sessions/{session_id}/history")[1]["messages"]
    assert [each["content"] for each in messages if each["content"] in ("3", "0 1 2 ")] == ["3", "0 1 2 "] * 2


def test_a_container_that_has_no_memory_left_says_so(host):
    host.up(memory_limit=32 * 1024 * 1024)

    done = host.run(host.ask("3 then=oom")["id"])

    assert (done["status"], done.get("error", {}).get("code")) == ("failed", "oom"), done
    assert done["output"] == "0 1 2 "


def test_a_cancel_reaches_the_container(host):
    host.up()
    run = host.ask("400 pause=0.05")
    reader = Reader(host.daemon, run["id"])
    is_at(reader, 5)

    cancelled = host.daemon.control("POST", f"/api/v1/runs/{run['id']}/cancel")[1]

    assert cancelled["cancelled"] is True
    assert reader.all_of_it()[-1]["message"] == "it was cancelled"
    assert host.run(run["id"])["status"] == "cancelled"


def test_a_run_that_is_a_command_leaves_no_process_behind(host, docker_client):
    container = host.up_tool('echo "you said $JOB_PROMPT"; (sleep 60; echo late) & sleep 60')
    run = host.ask("it's $HOME", agent_id="tool")
    reader = Reader(host.daemon, run["id"])
    is_at(reader, 3)
    assert len(processes(docker_client, container)) > 1

    host.daemon.control("POST", f"/api/v1/runs/{run['id']}/cancel")

    assert reader.all_of_it()[-1]["code"] == "cancelled"
    assert host.run(run["id"])["output"] == "you said it's $HOME\n"
    wait_until(
        lambda: processes(docker_client, container) == ["/bin/sleep infinity"], what="only the agent's own process"
    )


def test_a_command_does_not_outlive_the_daemon_that_began_it(host, docker_client, start_daemon, docker_sandbox):
    container = host.up_tool('echo "you said $JOB_PROMPT"; (sleep 300; echo late) & sleep 300')
    run = host.ask("hello", agent_id="tool")
    reader = Reader(host.daemon, run["id"])
    is_at(reader, 3)

    host.daemon.kill()
    assert len(processes(docker_client, container)) > 1
    host.daemon = start_daemon(like=host.daemon, sandbox=docker_sandbox)

    assert reader.all_of_it()[-1]["code"] == "interrupted"
    wait_until(
        lambda: processes(docker_client, container) == ["/bin/sleep infinity"], what="only the agent's own process"
    )


def processes(client, container) -> list[str]:
    """The command lines in a container, without its init."""
    lines = [row[-1] for row in client.top(container, "-eo pid,args")["Processes"]]
    return [line for line in lines if not line.startswith(("/sbin/docker-init", "/usr/bin/docker-init"))]


def test_curl_reads_a_stream_and_ends_with_it(host):
    host.up()
    run = host.ask("5 pause=0.01")

    done = subprocess.run(
        ["curl", "-sN", "--unix-socket", str(host.daemon.control_socket), "-H", "Accept: text/event-stream",
         f"http://localhost/api/v1/runs/{run['id']}/events?format=agui"],
        capture_output=True, text=True, timeout=20, check=True,
    )  # fmt: skip

    assert done.stdout.endswith("id: 7\n\n")
    assert done.stdout.count("TEXT_MESSAGE_CONTENT") == 5
