"""The log of a real daemon: in its files, on the channel, followed by the command, and for whom things were done."""

import json
import os
import signal
import stat
import subprocess
import sys
import time

from agentainerd.store.connection import RedisClient, socket_url


def entries(daemon) -> list[dict]:
    path = daemon.state_dir / "logs/agentainerd.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def follow(daemon, *words) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "agentainerctl",
        "--host",
        f"unix://{daemon.control_socket}",
        "system",
        "logs",
        *words,
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_what_is_done_for_a_request_says_so_in_every_place(start_daemon, eventually):
    daemon = start_daemon(engine=False, environment={"AGENTAINER_LOG_LEVEL": "debug"})
    listener = RedisClient(socket_url(str(daemon.runtime_dir / "redis.sock"))).connection(10.0)
    listener.connect()
    listener.send_command("SUBSCRIBE", "logs:stream")
    listener.read_response()
    follower = follow(daemon, "--follow", "--component", "control_server", "-o", "json")
    headers = {"Authorization": f"Bearer {daemon.token}"}

    status, _, fields = daemon.http("GET", "/agents", headers=headers)

    assert status == 200
    ident = {name.lower(): value for name, value in fields.items()}["x-agentainer-request-id"]

    def told():
        return [entry for entry in entries(daemon) if entry.get("request_id") == ident]

    [entry] = eventually(told)
    assert entry["actor"].startswith("token")
    assert (entry["message"], entry["level"], entry["status"]) == ("control request served", "debug", 200)
    assert (daemon.state_dir / "logs/agentainerd.log").stat().st_mode & 0o777 == stat.S_IRUSR | stat.S_IWUSR
    while json.loads(heard := listener.read_response()[2])["time"] != entry["time"]:
        pass
    assert json.loads(heard) == entry
    for line in follower.stdout:
        if json.loads(line) == entry:
            break
    follower.send_signal(signal.SIGINT)
    assert follower.wait(10) == 130
    listener.disconnect()


def test_a_follower_goes_on_across_a_restart_of_the_daemon(start_daemon):
    daemon = start_daemon(engine=False)
    follower = follow(daemon, "--follow", "--since", "1h", "-o", "json")
    for line in follower.stdout:
        if " serves on " in json.loads(line)["message"]:
            break

    daemon.signal(signal.SIGTERM)
    daemon.wait_exit()
    start_daemon(engine=False, like=daemon)

    seen = []
    for line in follower.stdout:
        seen.append(json.loads(line)["message"])
        if " serves on " in seen[-1]:
            break
    follower.kill()
    assert "stopped" in seen
    assert seen.count("stopped") == 1


def test_the_last_words_are_in_the_file(start_daemon):
    daemon = start_daemon(engine=False)

    daemon.signal(signal.SIGTERM)
    assert daemon.wait_exit() == 0

    assert entries(daemon)[-1]["message"] == "stopped"
    assert entries(daemon)[0]["time"] < entries(daemon)[-1]["time"]
    assert daemon.log.splitlines()[-1].endswith("stopped")


def test_a_log_that_hangs_on_its_disk_holds_nobody_up(start_daemon):
    """A FIFO that nobody reads keeps whoever opens and writes it waiting, as a disk that does not answer."""
    first = start_daemon(engine=False)
    assert first.stop() == 0
    path = first.state_dir / "logs/agentainerd.log"
    path.unlink()
    os.mkfifo(path)

    daemon = start_daemon(engine=False, like=first, environment={"AGENTAINER_LOG_LEVEL": "debug"})
    for _ in range(300):
        assert daemon.control("GET", "/version")[0] == 200

    lag = daemon.control("GET", "/system/info")[1]["data"]["loop_lag"]
    assert max(value for name, value in lag.items() if name.endswith("_ms")) < 1000
    began = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - began < 10
