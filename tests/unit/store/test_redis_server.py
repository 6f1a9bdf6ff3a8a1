import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from agentainerd.errors import AgentainerError, Failed
from agentainerd.store import aof, marks, redis_process, redis_server
from agentainerd.store.connection import RedisClient
from agentainerd.store.marks import Mark
from agentainerd.store.redis_server import RedisServer
from agentainerd.supervisor import Supervisor
from tests.fakes.redis import find_server

pytestmark = pytest.mark.redis
ROOT = Path(__file__).resolve().parents[3]


class Home:
    """A state and a runtime folder, and the servers that were started on them."""

    def __init__(self, kind):
        self.folder = Path(tempfile.mkdtemp(prefix="home-"))
        self.state, self.runtime = self.folder / "state", self.folder / "run"
        self.runtime.mkdir()
        self.binary = find_server(kind)
        self.supervisor = Supervisor()
        self.servers = []
        self.restarts = []

    def server(self, **options):
        server = RedisServer(
            self.binary,
            **{
                "state_dir": self.state,
                "runtime_dir": self.runtime,
                "maxmemory_bytes": 64 * 1024 * 1024,
                "spawn": self.supervisor.spawn,
                "on_restart": lambda: self.restarts.append(True),
                **options,
            },
        )
        self.servers.append(server)
        return server

    def started(self, **options):
        server = self.server(**options)
        server.start()
        return server

    def abandon(self):
        """The daemon dies without a word; its server goes on. Return the server's pid."""
        self.supervisor.stop(1)
        self.supervisor = Supervisor()
        return self.servers[-1].pid

    @property
    def last_file(self):
        return next((self.state / "journal/appendonlydir").glob("*.incr.aof"))

    def close(self):
        for server in self.servers:
            server.stop()
        self.supervisor.stop(1)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(params=["redis", "valkey"])
def home(request):
    home = Home(request.param)
    yield home
    home.close()


def ask(server, *command):
    client = RedisClient(server.url)
    try:
        return client.call(*command)
    finally:
        client.close()


def configured(server, setting):
    return ask(server, "CONFIG", "GET", setting)[1].decode()


def test_started_server_is_durable_and_private(home):
    server = home.started()

    assert ask(server, "SET", "a", "b") == b"OK"
    assert [configured(server, name) for name in ("appendonly", "appendfsync", "maxmemory-policy", "port", "save")] == [
        "yes",
        "always",
        "noeviction",
        "0",
        "",
    ]
    assert configured(server, "maxmemory") == str(64 * 1024 * 1024)
    assert Path(server.socket_path).stat().st_mode & 0o777 == 0o600
    assert (home.state / "journal").stat().st_mode & 0o777 == 0o700
    assert (home.state / "redis.log").exists()
    assert psutil.pid_exists(server.pid)


def test_stopped_server_is_gone_and_keeps_its_data(home):
    server = home.started()
    ask(server, "SET", "a", "b")
    pid = server.pid

    server.stop()

    assert server.pid is None
    assert not psutil.pid_exists(pid)
    assert ask(home.started(), "GET", "a") == b"b"


def test_killed_server_is_started_again_with_everything_that_it_answered(home, eventually):
    server = home.started()
    pids = [server.pid]
    for number in range(3):
        ask(server, "SET", f"n{number}", number)
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda count=number: len(home.restarts) > count, what="the restart")
        pids.append(server.pid)

    assert len(set(pids)) == 4
    assert [ask(server, "GET", f"n{number}") for number in range(3)] == [b"0", b"1", b"2"]


def test_stale_socket_is_no_obstacle(home):
    home.state.mkdir()
    (home.runtime / "redis.sock").write_text("stale")

    assert ask(home.started(), "PING") == b"PONG"


def test_folder_may_have_any_name(home):
    home.state = home.folder / 'sta te"%\\'

    assert ask(home.started(), "PING") == b"PONG"


def test_zero_bytes_at_the_end_are_repaired(home):
    server = home.started()
    ask(server, "SET", "a", "b")
    server.stop()
    with home.last_file.open("ab") as file:
        file.write(bytes(5000))

    again = home.started()

    assert ask(again, "GET", "a") == b"b"
    assert len(list((home.state / "journal.damaged").iterdir())) == 1


def test_command_that_was_cut_off_is_set_aside_and_dropped(home, caplog):
    server = home.started()
    ask(server, "SET", "a", "b")
    ask(server, "SET", "c", "d" * 100)
    server.stop()
    with home.last_file.open("r+b") as file:
        file.truncate(home.last_file.stat().st_size - 50)

    again = home.started()

    assert (ask(again, "GET", "a"), ask(again, "GET", "c")) == (b"b", None)
    [kept] = (home.state / "journal.damaged").iterdir()
    assert kept.read_bytes().startswith(b"*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$100\r\nddd")
    assert f"cut {kept.stat().st_size} bytes off the end of {home.last_file}" in caplog.text


def test_server_that_dies_with_a_torn_tail_comes_back_by_itself(home, eventually):
    server = home.started()
    ask(server, "SET", "a", "b")
    os.kill(server.pid, signal.SIGSTOP)
    with home.last_file.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nc" + bytes(3000))
    os.kill(server.pid, signal.SIGKILL)

    eventually(lambda: home.restarts, what="the restart")

    assert (ask(server, "GET", "a"), ask(server, "GET", "c")) == (b"b", None)


def test_what_a_killed_server_wrote_is_durable_before_the_next_one_reads_it(home, eventually, monkeypatch):
    """Its last writes may be in memory only, and what the next one answers is built on them."""
    server = home.started()
    synced, sync = [], os.fsync

    def note(descriptor):
        if server.pid is None:
            synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)

    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: home.restarts)

    files = aof.folder(home.state / "journal")
    assert {str(files), *map(str, files.iterdir())} <= set(synced)


def test_garbage_in_the_journal_stops_the_start_and_says_what_to_do(home):
    server = home.started()
    ask(server, "SET", "a", "b")
    server.stop()
    with home.last_file.open("ab") as file:
        file.write(b"garbage that is no command\r\n" * 10)

    with pytest.raises(Failed) as error:
        home.started()

    assert error.value.code == "JOURNAL_DAMAGED"
    assert f"agentainerd --state-dir {home.state} --accept-journal-loss" in error.value.hint
    assert error.value.details["log"]
    assert home.servers[-1].pid is None
    assert home.last_file.read_bytes().endswith(b"garbage that is no command\r\n"), "nothing was changed"
    assert not (home.state / "journal.damaged").exists()


def had_a_journal(home):
    marks.write(home.state, Mark("0123456789abcdef" * 2, 1, 0))


def damage_of(home):
    with pytest.raises(Failed) as error:
        home.started()
    assert home.servers[-1].pid is None
    return error.value.code


def test_lost_list_of_files_stops_the_start(home):
    ask(home.started(), "SET", "a", "b")
    home.servers[-1].stop()
    had_a_journal(home)
    aof.manifest(home.state / "journal").unlink()
    before = sorted(aof.folder(home.state / "journal").iterdir())

    assert damage_of(home) == "JOURNAL_DAMAGED"

    assert sorted(aof.folder(home.state / "journal").iterdir()) == before


def test_lost_files_stop_the_start_and_no_new_ones_are_made(home):
    home.started().stop()
    had_a_journal(home)
    shutil.rmtree(aof.folder(home.state / "journal"))

    assert damage_of(home) == "JOURNAL_LOST"

    assert not aof.folder(home.state / "journal").exists()


@pytest.mark.parametrize("pattern", ["*.incr.aof", "*.base.rdb"])
def test_one_lost_file_stops_the_start(home, pattern):
    server = home.started()
    ask(server, "SET", "a", "b")
    server.stop()
    next(aof.folder(home.state / "journal").glob(pattern)).unlink()

    assert damage_of(home) == "JOURNAL_DAMAGED"


@pytest.mark.parametrize("pattern", ["*.incr.aof", "*.base.rdb", "*.manifest"])
def test_damage_in_the_middle_stops_the_start(home, pattern):
    server = home.started()
    for number in range(20):
        ask(server, "SET", f"n{number}", "x" * 50)
    server.stop()
    file = next(aof.folder(home.state / "journal").glob(pattern))
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2] + b"\0\xffdamage\0" + data[len(data) // 2 + 9 :])

    assert damage_of(home) == "JOURNAL_DAMAGED"


def test_first_start_that_was_cut_off_is_begun_again(home, caplog):
    files = aof.folder(home.state / "journal")
    files.mkdir(parents=True)
    (files / "appendonly.aof.1.base.rdb").write_bytes(b"REDIS")

    assert ask(home.started(), "PING") == b"PONG"

    [aside] = (home.state / "journal.damaged").iterdir()
    assert (aside / "appendonly.aof.1.base.rdb").read_bytes() == b"REDIS"
    assert str(aside) in caplog.text


def test_program_that_does_not_start_is_told_with_its_words(home):
    home.binary = shutil.which("false")

    with pytest.raises(Failed) as error:
        home.started()

    assert error.value.code == "REDIS_START_FAILED"
    assert "exit 1" in error.value.message


def test_server_of_a_killed_daemon_is_replaced(home):
    ask(home.started(), "SET", "a", "b")
    survivor = home.abandon()

    second = home.started()

    assert second.pid != survivor
    assert not psutil.pid_exists(survivor)
    assert ask(second, "GET", "a") == b"b"


DAEMON = """
from gevent import monkey
monkey.patch_all()
import sys, gevent
from pathlib import Path
from agentainerd.store.marks import Mark
from agentainerd.store.redis_server import RedisServer
from agentainerd.supervisor import Supervisor
server = RedisServer(sys.argv[1], state_dir=Path(sys.argv[2]), runtime_dir=Path(sys.argv[3]), maxmemory_bytes=2**26,
                     spawn=Supervisor().spawn)
server.start()
print(server.pid, flush=True)
gevent.sleep(60)
"""


def test_server_ends_with_a_daemon_that_is_killed(home, eventually):
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, home.binary, str(home.state), str(home.runtime)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    with daemon:
        pid = int(daemon.stdout.readline())
        assert psutil.pid_exists(pid)
        daemon.kill()

    eventually(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie", what="its end")
    assert ask(home.started(), "PING") == b"PONG"


def test_frozen_server_that_outlived_its_daemon_is_stopped(home, monkeypatch):
    monkeypatch.setattr(redis_process, "STOP_TIMEOUT_S", 0.3)
    ask(home.started(), "SET", "a", "b")
    survivor = home.abandon()
    os.kill(survivor, signal.SIGSTOP)

    assert ask(home.started(), "GET", "a") == b"b"
    assert not psutil.pid_exists(survivor)


def test_long_journal_is_rewritten(home, monkeypatch, eventually):
    monkeypatch.setattr(redis_process, "CHECK_INTERVAL_S", 0.05)
    monkeypatch.setattr(redis_server, "REWRITE_AT_BYTES", 200_000)
    server = home.started()
    for _ in range(40):
        ask(server, "SET", "same", "x" * 10_000)

    def size():
        info = RedisClient(server.url)
        try:
            return int(info.info("persistence")["aof_current_size"])
        finally:
            info.close()

    eventually(lambda: size() < 300_000, what="a shorter file")
    assert ask(server, "STRLEN", "same") == 10_000


def test_server_that_can_not_be_started_again_is_tried_again(home, eventually, caplog):
    server = home.started()
    ask(server, "SET", "a", "b")
    had_a_journal(home)
    index = aof.manifest(home.state / "journal")
    away = index.with_suffix(".away")
    index.rename(away)
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: "was not started" in caplog.text, what="a failed start")

    away.rename(index)
    eventually(lambda: home.restarts, what="the restart")

    assert ask(server, "GET", "a") == b"b"


def test_restart_that_the_disk_prevents_is_tried_again(home, eventually, caplog):
    server = home.started()
    ask(server, "SET", "a", "b")
    configuration = home.runtime / "redis.conf"
    configuration.unlink()
    configuration.mkdir()
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: "was not started" in caplog.text, what="a failed start")

    configuration.rmdir()
    eventually(lambda: home.restarts, what="the restart")

    assert ask(server, "GET", "a") == b"b"


def test_stop_during_a_failing_restart_ends_the_supervision(home, eventually, caplog):
    server = home.started()
    had_a_journal(home)
    aof.manifest(home.state / "journal").unlink()
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: "was not started" in caplog.text, what="a failed start")

    server.stop()

    eventually(lambda: home.supervisor.stop(0) == 0, what="the end of its greenlet")
    with pytest.raises(AgentainerError):
        ask(server, "PING")
