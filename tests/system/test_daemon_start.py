"""How the daemon starts, and how it says why it does not. Nothing here needs an engine."""

import os
import re
import socket
import stat
import subprocess
import sys

import pytest

from agentainerd import defaults
from agentainerd.version import VERSION
from tests.fakes.daemons import free_port
from tests.fakes.redis import RedisProcess


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agentainerd", *arguments],
        env={**{name: value for name, value in os.environ.items() if not name.startswith("AGENTAINER_")}, **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def mode_of(path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_it_serves_without_an_engine_and_says_what_is_missing(start_daemon, eventually):
    daemon = start_daemon(engine=False)

    assert daemon.http("GET", "/livez")[0] == 200
    status, answer, _ = daemon.http("GET", "/readyz?verbose")
    assert status == 503
    assert "/nonexistent/docker.sock" in str(answer)
    assert daemon.control("GET", "/agents")[0] == 200
    assert daemon.control("GET", "/version")[1]["data"]["version"] == VERSION
    said = re.compile(r"cannot reach .*docker.*/nonexistent/docker\.sock.*hint: ", re.IGNORECASE)
    eventually(lambda: said.search(daemon.log))


def test_what_it_makes_is_closed_to_others(start_daemon):
    daemon = start_daemon(engine=False)

    assert mode_of(daemon.state_dir) == 0o700
    assert mode_of(daemon.runtime_dir / "agentainer.sock") == 0o660
    assert mode_of(daemon.runtime_dir / "gateway.sock") == 0o600
    assert mode_of(daemon.runtime_dir / "redis.sock") & 0o077 == 0
    assert mode_of(daemon.state_dir / "token") == 0o600
    assert (daemon.state_dir / "lock").read_text() == f"{daemon.pid}\n"
    wide = [path for path in daemon.state_dir.rglob("*") if path.is_file() and mode_of(path) & 0o022]
    assert wide == []


def test_over_tcp_a_token_is_needed_and_on_the_socket_it_is_not(start_daemon):
    daemon = start_daemon(engine=False)

    assert daemon.http("GET", "/agents")[0] == 401
    assert daemon.http("GET", "/agents", headers={"Authorization": f"Bearer {daemon.token}"})[0] == 200
    assert daemon.http("GET", "/agents", headers={"Authorization": "Bearer wrong"})[0] == 401
    assert daemon.control("GET", "/agents")[0] == 200


def test_the_token_is_made_once_and_one_that_is_given_is_used(start_daemon):
    first = start_daemon(engine=False)
    made = first.token
    assert len(made) >= 43
    assert first.stop() == 0

    again = start_daemon(engine=False, like=first)
    assert again.token == made
    assert again.stop() == 0

    given = start_daemon(engine=False, like=first, environment={"AGENTAINER_SECURITY_DEFAULT_TOKEN": "my-own-token"})
    assert given.http("GET", "/agents", headers={"Authorization": "Bearer my-own-token"})[0] == 200
    assert given.http("GET", "/agents", headers={"Authorization": f"Bearer {made}"})[0] == 401


def test_a_wrong_configuration_names_file_line_key_and_what_would_be_right(start_daemon):
    daemon = start_daemon(engine=False, wait=False, config="server:\n  prot: 1\nlog:\n  level: loud\n")

    assert daemon.wait_exit() == 2
    assert "error: config.yaml:2: server.prot: no such key: did you mean server.port?\n" in daemon.log
    assert "error: config.yaml:4: log.level: 'loud' is not one of debug, info, warning, error\n" in daemon.log
    assert "\nhint: " in daemon.log
    assert not daemon.state_dir.exists()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--config", "/nowhere.yaml"], "error: /nowhere.yaml: cannot be read: No such file or directory"),
        (["--listen", "8081"], "error: --listen: '8081' is not HOST:PORT"),
        (["--redis-url", "http://x"], "error: --redis-url: redis.url: 'http://x' is not a URL"),
        (["--log-level", "loud"], "error: --log-level: log.level: 'loud' is not one of"),
        (["--docker-host", "x"], "error: --docker-host: docker.host: 'x' is not a URL"),
        (["--no-such-flag"], "No such option"),
    ],
)
def test_wrong_usage_ends_with_2(flags, problem):
    done = run(*flags)

    assert done.returncode == 2
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_the_default_token_is_refused_on_an_address_that_is_not_loopback():
    done = run("--listen", "0.0.0.0:0", AGENTAINER_SECURITY_DEFAULT_TOKEN=defaults.SEED_TOKEN)

    assert done.returncode == 2
    assert "refusing to listen on 0.0.0.0 with the default token" in done.stderr


def test_version_check_and_print_start_nothing(tmp_path):
    assert run("--version").stdout == f"agentainerd {VERSION}\n"

    state_dir = tmp_path / "state"
    checked = run("--check-config", "--state-dir", str(state_dir))
    assert (checked.returncode, checked.stdout) == (0, "the configuration is right (no file)\n")

    printed = run(
        "--print-config", "--state-dir", str(state_dir), AGENTAINER_SERVER_PORT="99", AGENTAINER_TOKEN="s3cret"
    )
    assert printed.returncode == 0
    assert re.search(r"^  port: 99 +# AGENTAINER_SERVER_PORT$", printed.stdout, re.MULTILINE)
    assert re.search(rf'^  state_dir: "{state_dir}" +# --state-dir$', printed.stdout, re.MULTILINE)
    assert "s3cret" not in printed.stdout + printed.stderr
    assert not state_dir.exists()

    for flag, key in (("--record", "record"), ("--replay-models", "replay")):
        printed = run("--print-config", flag, str(tmp_path)).stdout
        assert re.search(rf'^  {key}: "{tmp_path}" +# --{key}-models$', printed, re.MULTILINE)


def test_a_taken_port_says_by_whom_and_nothing_is_started(start_daemon):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        daemon = start_daemon(engine=False, wait=False, flags=["--listen", f"127.0.0.1:{port}"])

        assert daemon.wait_exit() == 3

    assert f"error: cannot listen on 127.0.0.1:{port}: address in use by pid {os.getpid()} (" in daemon.log
    assert "\nhint: stop it, or set server.port" in daemon.log
    assert not (daemon.state_dir / "journal").exists()


def test_a_second_daemon_on_the_same_state_is_told_the_pid_of_the_first(start_daemon):
    first = start_daemon(engine=False)

    second = start_daemon(engine=False, like=first, wait=False)

    assert second.wait_exit() == 3
    line = f"error: the state folder {first.state_dir} is in use by another agentainerd, pid {first.pid} ("
    assert line in second.log
    assert first.http("GET", "/livez")[0] == 200
    assert first.control("GET", "/agents")[0] == 200


def test_a_second_daemon_in_the_same_runtime_folder_is_refused(start_daemon, tmp_path):
    first = start_daemon(engine=False)

    second = start_daemon(
        engine=False, like=first, wait=False,
        flags=["--state-dir", str(tmp_path / "other"), "--listen", f"127.0.0.1:{free_port()}"],
    )  # fmt: skip

    assert second.wait_exit() == 3
    assert f"the runtime folder {first.runtime_dir} is in use by another agentainerd, pid {first.pid}" in second.log


def test_another_daemon_on_the_port_is_called_by_its_name(start_daemon):
    first = start_daemon(engine=False)

    second = start_daemon(engine=False, wait=False, flags=["--listen", f"127.0.0.1:{first.port}"])

    assert second.wait_exit() == 3
    assert f"address in use by another agentainerd, pid {first.pid} (" in second.log


def test_no_redis_program_is_a_clear_error(start_daemon):
    daemon = start_daemon(
        engine=False, wait=False, environment={"AGENTAINER_REDIS_SERVER_BINARY": "/nowhere/redis-server"}
    )

    assert daemon.wait_exit() == 3
    assert "/nowhere/redis-server" in daemon.log
    assert "\nhint: " in daemon.log
    assert "Traceback" not in daemon.log


def test_a_redis_program_that_is_too_old_is_a_clear_error(start_daemon, tmp_path):
    old = tmp_path / "redis-server"
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64 build=0'\n")
    old.chmod(0o755)

    daemon = start_daemon(engine=False, wait=False, environment={"AGENTAINER_REDIS_SERVER_BINARY": str(old)})

    assert daemon.wait_exit() == 3
    assert "6.2.14" in daemon.log
    assert "7.0" in daemon.log
    assert "Traceback" not in daemon.log


def test_a_redis_that_cannot_be_reached_says_where_it_was_asked_for(start_daemon):
    port = free_port()
    daemon = start_daemon(engine=False, wait=False, config=f"redis:\n  host: 127.0.0.1\n  port: {port}\n")

    assert daemon.wait_exit() == 3
    assert f"127.0.0.1:{port}" in daemon.log
    assert "(from config.yaml:2)" in daemon.log
    assert "Traceback" not in daemon.log


def test_a_journal_that_is_not_there_any_more_ends_with_4_until_the_loss_is_accepted(start_daemon):
    daemon = start_daemon(engine=False)
    assert daemon.stop() == 0
    journal = daemon.state_dir / "journal"
    journal.rename(daemon.state_dir / "moved")

    again = start_daemon(engine=False, like=daemon, wait=False)

    assert again.wait_exit() == 4
    [error, hint] = [line for line in again.log.splitlines() if line.startswith(("error: ", "hint: "))]
    assert "the request journal is lost" in error
    command = f"agentainerd --state-dir {daemon.state_dir} --accept-journal-loss"
    assert hint.endswith(command)
    assert "Traceback" not in again.log

    accepted = run(*command.split()[1:])
    assert accepted.returncode == 0, accepted.stderr
    assert "journal.damaged" in accepted.stdout
    assert start_daemon(engine=False, like=daemon).stop() == 0


def test_a_damaged_journal_ends_with_4_and_a_torn_one_does_not(start_daemon):
    daemon = start_daemon(engine=False)
    assert daemon.stop() == 0
    last = next((daemon.state_dir / "journal/appendonlydir").glob("*.incr.aof"))
    whole = last.read_bytes()
    last.write_bytes(whole[:80] + b"?" * 20 + whole[100:])

    damaged = start_daemon(engine=False, like=daemon, wait=False)
    assert damaged.wait_exit() == 4
    assert "the request journal is damaged" in damaged.log

    last.write_bytes(whole + b"*3\r\n$3\r\nSE" + bytes(4096))
    torn = start_daemon(engine=False, like=daemon)
    torn.wait_logged(f"cut 4106 bytes off the end of {last}")
    assert torn.stop() == 0


def test_a_redis_that_keeps_less_is_named_in_the_log_and_by_health(start_daemon, redis_folder):
    server = RedisProcess(redis_folder, appendfsync="everysec").start()
    try:
        daemon = start_daemon(engine=False, flags=["--redis-url", server.url])

        daemon.wait_logged("this Redis keeps less than is promised: redis appendfsync is 'everysec'")
        assert daemon.http("GET", "/health")[1]["data"] == {"status": "ok", "durability": "everysec"}
        assert daemon.stop() == 0
    finally:
        server.stop()


def test_loss_is_not_accepted_while_a_daemon_runs(start_daemon):
    daemon = start_daemon(engine=False)

    refused = run("--state-dir", str(daemon.state_dir), "--accept-journal-loss")

    assert refused.returncode == 3
    assert "is in use by" in refused.stderr
    assert (daemon.state_dir / "journal.id").exists()


def test_stale_sockets_and_a_dead_lock_are_no_obstacle(start_daemon, eventually):
    daemon = start_daemon(engine=False)
    daemon.kill()
    assert (daemon.runtime_dir / "agentainer.sock").exists()

    again = start_daemon(engine=False, like=daemon)

    assert again.control("GET", "/agents")[0] == 200
    assert again.http("GET", "/livez")[0] == 200


def test_a_name_of_a_socket_that_is_something_else_is_left_alone(start_daemon):
    daemon = start_daemon(engine=False)
    daemon.kill()
    daemon.control_socket.unlink()
    daemon.control_socket.write_text("precious")

    again = start_daemon(engine=False, like=daemon, wait=False)

    assert again.wait_exit() == 3
    assert daemon.control_socket.read_text() == "precious"


@pytest.mark.skipif(os.geteuid() != 0, reason="root is needed to become somebody else")
def test_an_ordinary_user_gets_folders_of_its_own(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)

    printed = subprocess.run(
        [sys.executable, "-c", "import os, sys\nfrom agentainerd.__main__ import main\n"
         "os.setuid(65534)\nsys.argv[1:] = ['--print-config']\nmain()"],  # imported first: root's Python may be root's alone
        env={"HOME": str(home), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(home / "run")},
        capture_output=True, text=True, timeout=60, check=True,
    ).stdout  # fmt: skip

    assert f'state_dir: "{home}/.local/state/agentainer"' in printed
    assert f'runtime_dir: "{home}/run/agentainer"' in printed


def test_the_log_can_be_json(start_daemon):
    import json

    daemon = start_daemon(engine=False, environment={"AGENTAINER_LOG_FORMAT": "json"})

    daemon.wait_logged(f'"agentainerd {VERSION} serves on ')
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log.splitlines()]
    assert any(line["message"].startswith(f"agentainerd {VERSION} serves on ") for line in lines)


def test_an_unknown_variable_is_a_warning(start_daemon):
    daemon = start_daemon(engine=False, environment={"AGENTAINER_SERVR_PORT": "1"})

    daemon.wait_logged("AGENTAINER_SERVR_PORT is not a variable of agentainerd: did you mean AGENTAINER_SERVER_PORT?")
