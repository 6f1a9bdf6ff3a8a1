"""Named tokens of a real daemon, over TCP, a SIGKILL and the tool."""

import json
import os
import subprocess
import sys

import pytest

from tests.fakes.daemons import DaemonProcess


def agentainerctl(daemon: DaemonProcess, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Over the socket; with a token over TCP."""
    host = daemon.url if token else f"unix://{daemon.control_socket}"
    environment = {**os.environ, "AGENTAINER_TOKEN": token}
    command = [sys.executable, "-m", "agentainerctl", "--host", host, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


def made(daemon: DaemonProcess, name: str, *scopes: str) -> str:
    said = agentainerctl(daemon, "token", "create", name, "--scope", ",".join(scopes), "-q")
    assert said.returncode == 0, said.stderr
    return said.stdout.strip()


def ask(daemon: DaemonProcess, token: str, method: str = "GET", path: str = "/system/ping") -> int:
    return daemon.http(method, path, headers={"Authorization": f"Bearer {token}"})[0]


def test_tokens_survive_a_sigkill_and_a_revoked_one_does_not(start_daemon):
    daemon = start_daemon(engine=False)
    ci, gone = made(daemon, "ci", "operate"), made(daemon, "gone", "admin")
    assert agentainerctl(daemon, "token", "revoke", "gone").returncode == 0
    assert (ask(daemon, ci), ask(daemon, gone)) == (200, 401)

    daemon.kill()
    daemon = start_daemon(engine=False, like=daemon)

    assert (ask(daemon, ci), ask(daemon, gone)) == (200, 401)
    assert ask(daemon, ci, "DELETE", "/agents/nobody") == 403
    files = b"".join(path.read_bytes() for path in daemon.state_dir.rglob("*") if path.is_file())
    assert ci.encode() not in files and gone.encode() not in files


def test_the_name_is_the_actor_of_the_audit_log_and_of_the_logs(start_daemon, eventually):
    daemon = start_daemon(engine=False, flags=["--log-level", "debug"], environment={"AGENTAINER_LOG_FORMAT": "json"})
    boss = made(daemon, "boss", "admin")
    reader = made(daemon, "reader", "read")

    assert agentainerctl(daemon, "stop", "nobody", token=boss).returncode == 3
    refused = agentainerctl(daemon, "stop", "nobody", token=reader)

    assert refused.returncode == 6
    assert "this needs the scope operate; token:reader has the scope read" in refused.stderr

    def told() -> dict[str, str]:
        entries = json.loads(agentainerctl(daemon, "audit", "-o", "json", token=boss).stdout)
        return {entry["actor"]: f"{entry['action']} {entry['result']}" for entry in entries}

    eventually(lambda: told().get("token:reader") == "use_token refused")
    assert told()["token:boss"] == "stop_agent AGENT_NOT_FOUND"

    def logged() -> set[tuple[object, object]]:
        lines = [json.loads(line) for line in daemon.log.splitlines(keepends=True) if line.endswith("\n")]
        return {(line.get("actor"), line.get("status")) for line in lines}

    eventually(lambda: ("token:reader", 403) in logged(), what="the line of the log")
    assert boss not in daemon.log and reader not in daemon.log


def test_guesses_are_slowed_down_and_a_named_token_never_is(start_daemon):
    daemon = start_daemon(engine=False)
    token = made(daemon, "ci", "read")

    answers = [ask(daemon, f"guess-{number}") for number in range(15)]

    assert answers[:5] == [401] * 5
    assert 429 in answers
    assert ask(daemon, token) == 200


@pytest.mark.docker
def test_a_token_for_one_agent_opens_that_one_until_it_is_revoked(start_daemon, docker_sandbox, agent_image):
    daemon = start_daemon(sandbox=docker_sandbox)
    try:
        for name in ("web", "api"):
            spec = {"name": name, "image": agent_image, "token": f"static-{name}"}
            assert daemon.control("POST", "/agents", spec)[0] == 201
            assert daemon.control("POST", f"/agents/{name}/start?wait=30")[0] == 200
        app = made(daemon, "app", "agent:web")

        assert ask(daemon, app, "GET", "/agent/web/") == 200
        assert ask(daemon, "static-web", "GET", "/agent/web/") == 200
        assert ask(daemon, app, "GET", "/agent/api/") == 400
        assert ask(daemon, app, "GET", "/agents") == 403
        assert daemon.http("GET", "/agent/web/")[0] == 401

        assert agentainerctl(daemon, "token", "revoke", "app").returncode == 0
        assert ask(daemon, app, "GET", "/agent/web/") == 401
    finally:
        docker_sandbox.remove_containers()
