"""The audit log of a real daemon: over SIGKILL, with what crashes and people do to its files."""

import http.client
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import gevent
import pytest

from tests.fakes.daemons import DaemonProcess

KILLS = int(os.environ.get("AUDIT_KILLS", "3"))


def agentainerctl(daemon: DaemonProcess, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "agentainerctl", "--host", f"unix://{daemon.control_socket}", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def mutate(daemon: DaemonProcess, names, answered: list[str]) -> None:
    """Ask for changes one after the other until the daemon is gone; nothing here exists, so each is answered with 404."""
    for name in names:
        try:
            status, _ = daemon.control("DELETE", f"/agents/{name}")
        except (OSError, http.client.HTTPException):
            return
        assert status == 404
        answered.append(name)


def removals(daemon: DaemonProcess) -> list[str]:
    said = agentainerctl(daemon, "audit", "--action", "remove_agent", "--limit", "1000000", "-o", "json")
    assert said.returncode == 0, said.stderr
    return [entry["resource"] for entry in json.loads(said.stdout)]


def test_whatever_was_answered_before_a_sigkill_is_in_a_chain_that_is_whole(start_daemon, eventually):
    daemon = start_daemon(engine=False, config="audit:\n  file_bytes: 64Ki\n")  # so that files turn meanwhile
    answered: list[str] = []
    for kill in range(KILLS):
        before = len(answered)
        names = (f"nobody-{kill}-{number}" for number in itertools.count())
        workers = [gevent.spawn(mutate, daemon, names, answered) for _ in range(8)]
        eventually(lambda least=before + 50 * (kill + 1): len(answered) > least, limit_s=30)
        daemon.kill()
        gevent.joinall(workers, timeout=30, raise_error=True)
        daemon = start_daemon(engine=False, like=daemon)

        found = removals(daemon)
        assert len(found) == len(set(found))
        assert set(answered) <= set(found)
        said = agentainerctl(daemon, "audit", "--verify")
        assert said.returncode == 0, said.stdout
        assert "The audit log is whole" in said.stdout
    assert list(daemon.state_dir.glob("audit.log.*"))


@pytest.mark.docker
def test_what_was_done_to_containers_before_a_sigkill_is_on_record(
    start_daemon, docker_sandbox, agent_image, eventually
):
    daemon = start_daemon(sandbox=docker_sandbox)
    answered: list[str] = []

    def drive(name: str) -> None:
        daemon.control("POST", "/agents", {"name": name, "image": agent_image})
        for verb in itertools.cycle(("start", "pause", "resume", "restart", "stop")):
            try:
                status, said = daemon.control("POST", f"/agents/{name}/{verb}")
            except (OSError, http.client.HTTPException):
                return
            assert status == 200, said
            answered.append(f"{verb}_agent {name}")

    try:
        workers = [gevent.spawn(drive, name) for name in ("web", "api", "db")]
        eventually(lambda: len(answered) >= 15, limit_s=60)
        daemon.kill()
        gevent.joinall(workers, timeout=30, raise_error=True)
        daemon = start_daemon(like=daemon, sandbox=docker_sandbox)

        said = agentainerctl(daemon, "audit", "--result", "ok", "--limit", "1000", "-o", "json")
        kept = [
            f"{entry['action']} {entry['resource'].partition('(')[2].rstrip(')')}" for entry in json.loads(said.stdout)
        ]
        assert not Counter(answered) - Counter(kept)
        assert agentainerctl(daemon, "audit", "--verify").returncode == 0
    finally:
        docker_sandbox.remove_containers()


def test_a_line_that_a_crash_tore_is_told_at_the_next_start(start_daemon):
    daemon = start_daemon(engine=False)
    daemon.control("DELETE", "/agents/nobody")
    daemon.kill()
    with (daemon.state_dir / "audit.log").open("ab") as log:
        log.write(b'{"seq":2,"time":"2026-')

    daemon = start_daemon(engine=False, like=daemon)

    daemon.wait_logged("the last line of audit.log was not written to its end (22 bytes)")
    said = agentainerctl(daemon, "audit", "--verify")
    assert said.returncode == 0
    assert "1 line was torn by a crash" in said.stdout


def test_what_somebody_did_to_the_file_is_told_with_its_place(start_daemon):
    daemon = start_daemon(engine=False)
    for number in range(5):
        daemon.control("DELETE", f"/agents/nobody-{number}")
    daemon.stop()
    log = daemon.state_dir / "audit.log"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], lines[1].replace(b"nobody-1", b"nobody-7"), lines[3]]))

    daemon = start_daemon(engine=False, like=daemon)

    said = agentainerctl(daemon, "audit", "--verify", "-o", "json")
    assert said.returncode == 1
    assert [(fault["line"], fault["seq"]) for fault in json.loads(said.stdout)["faults"]] == [(2, 2), (3, 4), (4, 6)]
    daemon.wait_logged("entries 5-5 are missing at the end")


def test_who_did_it_is_the_user_of_the_socket_or_who_had_the_token(start_daemon):
    daemon = start_daemon(engine=False)
    daemon.control("DELETE", "/agents/one")
    token = {"Authorization": f"Bearer {daemon.token}"}
    _, _, fields = daemon.http("DELETE", "/agents/two", headers=token)
    daemon.http("GET", "/agents", headers={"Authorization": "Bearer guess"})

    end = time.monotonic() + 10
    found: list[dict] = []
    while len(found) < 3 and time.monotonic() < end:
        found = json.loads(agentainerctl(daemon, "audit", "-o", "json").stdout)

    assert [entry["actor"].partition("/")[0] for entry in found] == ["unix:0(root)", "token", "anonymous"]
    assert [entry["address"] for entry in found] == ["unix", "127.0.0.1", "127.0.0.1"]
    assert found[1]["request_id"] == fields["x-agentainer-request-id"]
    assert "guess" not in (daemon.state_dir / "audit.log").read_text()


def test_a_reload_of_the_configuration_is_an_entry_and_new_limits_hold(start_daemon, eventually):
    daemon = start_daemon(engine=False)
    (daemon.folder / "config.yaml").write_text("audit:\n  file_bytes: 64Ki\nlog:\n  level: warning\n")

    daemon.signal(signal.SIGHUP)

    def told() -> list[dict]:
        said = agentainerctl(daemon, "audit", "--action", "reload_configuration", "-o", "json")
        return json.loads(said.stdout)

    (entry,) = eventually(told)
    assert (entry["actor"], entry["resource"]) == ("daemon", "log.level, audit.file_bytes")


def test_a_log_that_cannot_grow_stops_changes_and_nothing_else(start_daemon):
    """A limit on the size of the daemon's files is a disk that is full for them: what fits is written, and the rest is not."""
    daemon = start_daemon(engine=False)
    daemon.control("DELETE", "/agents/one")
    size = (daemon.state_dir / "audit.log").stat().st_size
    _, hard = resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (size + 40, hard))
    assert daemon.control("DELETE", "/agents/two")[0] == 404  # it is found out here

    status, said = daemon.control("DELETE", "/agents/three")
    assert (status, said["code"]) == (503, "AUDIT_UNAVAILABLE")
    assert said["hint"]
    assert daemon.control("GET", "/events")[0] == 200
    assert daemon.http("GET", "/livez")[0] == 200
    assert any("audit log" in warning for warning in daemon.control("GET", "/system/info")[1]["data"]["warnings"])

    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert daemon.control("DELETE", "/agents/four")[0] == 404
    assert removals(daemon) == ["one", "two", "four"]
    assert agentainerctl(daemon, "audit", "--verify").returncode == 0
