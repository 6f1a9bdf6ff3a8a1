"""How the daemon stops, reloads, and is handed sockets by systemd. Nothing here needs an engine."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from tests.fakes.daemons import free_port

BODY = b'{"name": "slow", "image": "none:1"}'


class SlowRequest:
    """A request whose body comes in two halves: in flight for as long as one wants."""

    def __init__(self, daemon) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        self._connection.putrequest("POST", "/agents")
        self._connection.putheader("Authorization", f"Bearer {daemon.token}")
        self._connection.putheader("Content-Type", "application/json")
        self._connection.putheader("Content-Length", str(len(BODY)))
        self._connection.endheaders(BODY[:10])

    def finish(self) -> int:
        self._connection.send(BODY[10:])
        response = self._connection.getresponse()
        response.read()
        return response.status

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def slow_request():
    made = []

    def begin(daemon) -> SlowRequest:
        made.append(SlowRequest(daemon))
        return made[-1]

    yield begin
    for request in made:
        request.close()


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_leaves_nothing_running(start_daemon, number):
    daemon = start_daemon(engine=False)
    children = psutil.Process(daemon.pid).children(recursive=True)
    assert children

    daemon.signal(number)

    assert daemon.wait_exit() == 0
    assert [child for child in children if child.is_running()] == []
    assert not daemon.control_socket.exists()
    assert not (daemon.runtime_dir / "gateway.sock").exists()
    assert "Traceback" not in daemon.log
    assert daemon.log.rstrip().endswith("stopped")


def test_what_is_in_flight_is_finished(start_daemon, slow_request, eventually):
    daemon = start_daemon(engine=False)
    request = slow_request(daemon)
    eventually(lambda: daemon.http("GET", "/livez")[0] == 200)

    daemon.signal(signal.SIGTERM)
    daemon.wait_told("STOPPING=1")
    eventually(lambda: refuses(daemon.port))

    assert request.finish() in (404, 503)  # there is no engine: it was answered, which is what counts
    assert daemon.wait_exit(10) == 0
    assert "broken off" not in daemon.log


def test_what_does_not_finish_in_time_is_broken_off(start_daemon, slow_request):
    daemon = start_daemon(engine=False, environment={"AGENTAINER_SERVER_DRAIN_TIMEOUT_S": "0.5"})
    slow_request(daemon)
    daemon.http("GET", "/livez")

    started = time.monotonic()
    assert daemon.stop() == 0

    assert time.monotonic() - started < 10
    assert "requests were broken off: " in daemon.log


def test_a_second_signal_hastens_it(start_daemon, slow_request, eventually):
    daemon = start_daemon(engine=False)
    slow_request(daemon)
    daemon.http("GET", "/livez")
    daemon.signal(signal.SIGTERM)
    eventually(lambda: refuses(daemon.port))

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_exit(15) == 0


def test_a_kill_of_the_daemon_takes_its_redis_with_it(start_daemon, eventually):
    daemon = start_daemon(engine=False)
    children = psutil.Process(daemon.pid).children(recursive=True)

    daemon.kill()

    eventually(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def test_a_reload_takes_what_can_change_and_names_what_cannot(start_daemon, eventually):
    daemon = start_daemon(engine=False, config="log:\n  level: warning\n")
    assert "serves on" not in daemon.log
    (daemon.folder / "config.yaml").write_text("log:\n  level: info\nserver:\n  drain_timeout_s: 5\n")

    daemon.signal(signal.SIGHUP)

    eventually(lambda: "configuration reloaded" in daemon.log)
    assert "changed=log.level waits_for_restart=server.drain_timeout_s" in daemon.log
    assert daemon.http("GET", "/livez")[0] == 200


def test_a_reload_reads_the_file_of_variables_again(start_daemon, eventually, tmp_path):
    variables = tmp_path / ".env"
    variables.write_text("AGENTAINER_LOG_LEVEL=warning\n")
    daemon = start_daemon(engine=False, environment={"AGENTAINER_ENV_FILE": str(variables)})
    assert "serves on" not in daemon.log
    variables.write_text("GEMINI_API_KEY='no key'\n")
    daemon.signal(signal.SIGHUP)
    eventually(lambda: "not reloaded: what is in GEMINI_API_KEY is no key" in daemon.log)
    variables.write_text("AGENTAINER_LOG_LEVEL=info\nGEMINI_API_KEY=AIza-secret\n")

    daemon.signal(signal.SIGHUP)

    eventually(lambda: "changed=log.level,models.providers" in daemon.log.replace(", ", ","))
    assert "AIza-secret" not in daemon.log


def test_a_reload_of_a_wrong_file_changes_nothing(start_daemon, eventually):
    daemon = start_daemon(engine=False, config="log:\n  level: info\n")
    (daemon.folder / "config.yaml").write_text("log:\n  levle: debug\n")

    daemon.signal(signal.SIGHUP)

    eventually(lambda: "the configuration was not reloaded: config.yaml:2: log.levle: no such key" in daemon.log)
    assert daemon.http("GET", "/livez")[0] == 200


def test_a_reload_is_told_to_systemd(start_daemon):
    daemon = start_daemon(engine=False)

    daemon.signal(signal.SIGHUP)

    assert "MONOTONIC_USEC=" in daemon.wait_told("RELOADING=1")
    daemon.wait_told("READY=1")


def test_the_watchdog_is_fed(start_daemon):
    daemon = start_daemon(engine=False, environment={"WATCHDOG_USEC": "400000"})

    daemon.wait_told("WATCHDOG=1")
    daemon.wait_told("WATCHDOG=1")


def test_a_signal_during_the_start_is_heard(start_daemon, tmp_path, eventually):
    program = tmp_path / "redis-server"
    program.write_text(
        "#!/bin/sh\ncase \"$*\" in *--version*|*-v*) echo 'Redis server v=7.0.15 sha=0:0 malloc=libc bits=64 build=0' ;;"
        " *) exec sleep 600 ;; esac\n"
    )
    program.chmod(0o755)
    daemon = start_daemon(engine=False, wait=False, environment={"AGENTAINER_REDIS_SERVER_BINARY": str(program)})
    eventually(lambda: psutil.Process(daemon.pid).children(), limit_s=30)

    daemon.signal(signal.SIGTERM)

    assert daemon.wait_exit(20) == 0
    assert "stopped before it served" in daemon.log


def test_sockets_of_systemd_are_served_and_outlive_the_daemon(start_daemon, tmp_path):
    daemon = start_daemon(engine=False)
    assert daemon.stop() == 0
    port = free_port()
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as control:
        tcp.bind(("127.0.0.1", port))
        tcp.listen(64)
        control.bind(str(daemon.control_socket))
        control.listen(64)
        early = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        early.connect()  # before anybody accepts: it waits

        again = start_daemon(
            engine=False, like=daemon, wait=False, environment={"LISTEN_FDS": "2"}, activated_by=(tcp, control)
        )
        again.wait_ready()

        early.request("GET", "/livez")
        assert early.getresponse().status == 200
        early.close()
        again.port = port
        assert again.http("GET", "/livez")[0] == 200
        assert again.control("GET", "/agents")[0] == 200
        assert again.stop() == 0
        assert os.path.exists(daemon.control_socket)


def test_it_runs_as_an_installed_program(tmp_path):
    program = os.path.join(os.path.dirname(sys.executable), "agentainerd")

    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.startswith("agentainerd ")
