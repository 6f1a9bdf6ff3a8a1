"""Faults other than a clean kill, under the same load and the same ledgers as test_promise.py."""

import dataclasses
import os
import signal
import socket
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import gevent
import psutil
import pytest
from gevent.server import StreamServer

from agentainerd.store.connection import RedisClient
from tests.fakes.daemons import free_port
from tests.fakes.docker import new_sandbox
from tests.fakes.engines import private_engine
from tests.fakes.ledger import CLIENTS, Promise, redis_of, redis_url

KILLS = int(os.environ.get("SOAK_KILLS", "0"))
pytestmark = [
    pytest.mark.docker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300 + 30 * KILLS),
]  # fmt: skip
FROZEN_S = 60.0 if KILLS else 4.0
QUICK_RETRIES = "requests: {max_attempts: 3}\n"


@pytest.mark.parametrize("first", ["reset", "503", "deaf"])
def test_an_agent_that_is_no_good_for_its_first_seconds_gets_everything_later(promise, first):
    """It listens, so it is ready: but it resets each connection, answers 503, or does not read.

    A reset and a silence leave open whether an unsafe request ran: it is buried with that reason, and never sent again.
    """
    world = promise(env_vars={"FIRST": first, "FIRST_S": "5"}, kinds=("get", "async", "keyed"), request_timeout_s=5)

    world.finish(may_be_unknown=first != "503")

    assert len(world.load.accepted) > 5
    ledger, keyed = world.ledger(), [each for each in world.load.accepted if each.startswith(("get", "keyed"))]
    assert all(ledger[each] for each in keyed)


def test_an_agent_that_crashes_on_every_tenth_request_gets_everything(promise, eventually):
    world = promise(env_vars={"CRASH_EVERY": "10"}, kinds=("async",))
    eventually(lambda: len(world.load.accepted) > 60, limit_s=60)
    world.stop_load()

    def resumed_until_drained():
        world.daemon.control("POST", "/agents/ledger/resume?wait=10")  # a crash loop is not waited for here
        return world.drained()

    eventually(resumed_until_drained, limit_s=90, what="the queue to be drained")

    world.check()
    world.check_journal()


def test_a_poison_request_is_buried_and_blocks_nobody(promise, eventually):
    world = promise(config=QUICK_RETRIES, kinds=("async",))
    world.stop_load()
    eventually(world.drained, limit_s=30)

    poison = world.load.ask("async", "async-poison", "/die").json["data"]["request_id"]
    behind = [world.load.ask("async", f"async-behind-{number}") for number in range(20)]
    assert {answer.status for answer in behind} == {202}

    def buried():
        world.daemon.control("POST", "/agents/ledger/resume?wait=10")
        found = world.must("GET", f"/agents/ledger/requests/{poison}")
        return found["status"] == "failed" and found

    assert eventually(buried, limit_s=120)["reason"] == "attempts"
    world.daemon.control("POST", "/agents/ledger/resume?wait=10")
    eventually(world.drained, limit_s=60)
    ledger = world.ledger()
    assert ledger["async-poison"] == 3
    assert all(ledger[f"async-behind-{number}"] for number in range(20))


def test_a_daemon_that_was_frozen_finds_itself_replaced(promise, redis_server, start_daemon, eventually):
    """The lock keeps a second one out; with the lock gone the epoch does: the first is refused when it wakes, and ends."""
    environment = {"AGENTAINER_REDIS_URL": redis_server.url}
    world = promise(daemon={"environment": environment})
    world.load.timeout_s = 5.0  # those who ask the frozen one are to ask the next one soon
    world.serve(3 * CLIENTS)  # by then nobody waits longer
    first = world.daemon
    place = SimpleNamespace(folder=first.folder, runtime_dir=first.runtime_dir, port=free_port())
    first.signal(signal.SIGSTOP)
    try:
        locked_out = start_daemon(like=place, sandbox=world.sandbox, environment=environment, wait=False)
        assert locked_out.wait_exit() != 0
        assert "is in use by" in locked_out.tail()

        (first.state_dir / "lock").rename(first.state_dir / "stolen-lock")
        place.runtime_dir = Path(tempfile.mkdtemp(prefix="agd-"))
        world.daemon = start_daemon(like=place, sandbox=world.sandbox, environment=environment)
        world.load.port = world.daemon.port
        world.serve(50)
        gevent.sleep(FROZEN_S)  # how long it stands still is what is tried
    finally:
        first.signal(signal.SIGCONT)

    assert first.wait_exit(30) != 0
    assert "FENCED" in first.log
    world.serve(50)
    world.stop_load()
    eventually(world.drained, limit_s=60)
    world.check()


def test_without_file_descriptors_nothing_hangs_and_it_recovers(promise, eventually):
    world = promise()
    process = psutil.Process(world.daemon.pid)
    soft, hard = process.rlimit(psutil.RLIMIT_NOFILE)
    idle = []
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 20, hard))
    try:
        for _ in range(60):
            idle.append(socket.create_connection(("127.0.0.1", world.daemon.port), timeout=5))
        eventually(lambda: "no connection can be accepted now" in world.daemon.log, limit_s=30)
        began = time.monotonic()
        assert world.must("GET", "/agents/ledger")["status"] == "running"
        assert time.monotonic() - began < 5
    finally:
        for connection in idle:
            connection.close()
        process.rlimit(psutil.RLIMIT_NOFILE, (soft, hard))

    world.serve(100)
    world.finish()


def test_a_journal_without_memory_accepts_nothing_and_goes_on(promise, eventually):
    world = promise()
    client = RedisClient(redis_url(world.daemon))
    used = int(
        next(line for line in client.call("INFO", "memory").split(b"\r\n") if line.startswith(b"used_memory:"))[12:]
    )
    limit = client.call("CONFIG", "GET", "maxmemory")[1]
    client.call("CONFIG", "SET", "maxmemory", max(used - 200_000, 1))
    try:
        eventually(lambda: world.load.statuses[503] > 0, limit_s=30)
        accepted, answered = len(world.load.accepted), len(world.load.answered)
        eventually(lambda: len(world.load.answered) > answered + 50, limit_s=30, what="live requests go on")
        assert len(world.load.accepted) - accepted < 20  # what was on its way
    finally:
        client.call("CONFIG", "SET", "maxmemory", limit)
        client.close()

    accepted = len(world.load.accepted)
    eventually(lambda: len(world.load.accepted) > accepted + 20, limit_s=30)
    world.finish()


def test_a_journal_that_stands_still_accepts_nothing_and_goes_on(promise, eventually):
    world = promise()
    redis = redis_of(world.daemon)
    redis.suspend()
    try:
        eventually(lambda: world.load.statuses[503] > 0, limit_s=30)
        accepted = len(world.load.accepted)
        world.serve(30)
        assert len(world.load.accepted) == accepted
    finally:
        redis.resume()

    eventually(lambda: len(world.load.accepted) > accepted + 20, limit_s=30)
    world.finish()


class Cable:
    """A Unix socket in front of the engine's, which a test can cut."""

    def __init__(self, path: Path, engine: str) -> None:
        self.path, self.engine = path, engine
        self.is_cut = False
        self._ends: set[socket.socket] = set()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen(64)
        self._server = StreamServer(listener, self._serve)
        self._server.start()

    def _serve(self, client, _address):
        engine = socket.socket(socket.AF_UNIX)
        ends = {client, engine}
        if self.is_cut:
            client.close()
            return
        engine.connect(self.engine)
        self._ends |= ends
        copying = [gevent.spawn(self._copy, client, engine), gevent.spawn(self._copy, engine, client)]
        gevent.joinall(copying)
        self._ends -= ends
        for end in ends:
            end.close()

    def _copy(self, source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._shut(source, sink)

    def _shut(self, *ends):
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        """End every connection that there is."""
        self._shut(*self._ends)

    def close(self):
        self.cut()
        self._server.stop(timeout=1)
        self.path.unlink()


def test_an_engine_whose_connections_break_is_found_again(
    start_daemon, docker_sandbox, base_image, docker_client, eventually, tmp_path
):
    cable = Cable(Path(f"/tmp/agd-cable-{os.getpid()}.sock"), docker_sandbox.host.removeprefix("unix://"))
    behind = dataclasses.replace(docker_sandbox, host=f"unix://{cable.path}")
    world = Promise(start_daemon, behind, base_image, tmp_path / "ledger")
    try:
        for _ in range(KILLS or 10):
            cable.cut()
            world.serve(20)
        cable.is_cut = True
        cable.cut()
        world.serve(30)
        docker_client.kill(world.agent["container_id"])
        world.serve(5)
        cable.is_cut = False

        eventually(lambda: world.agent["ready"], limit_s=90)
        # What was at the agent when it was killed may have run, for all that can be known: there was no engine to ask whether it died.
        world.finish(may_be_unknown=True)
    finally:
        cable.is_cut = False
        world.close()
        cable.close()


def test_an_engine_that_restarts_takes_its_containers_with_it_and_loses_nothing(
    start_daemon, base_image, tmp_path, eventually
):
    """Without live-restore all containers end with their engine; those that are to run are started again.

    The daemon lives on the engine's own network, with a socket of this one.
    """
    with (
        private_engine(base_image) as engine,
        new_sandbox(engine.host) as sandbox,
        socket.create_server(("127.0.0.1", 0), backlog=1024) as door,
        engine_world(start_daemon, engine, sandbox, door, base_image, tmp_path / "ledger") as world,
    ):
        for _ in range(KILLS // 10 or 1):
            engine.stop()
            world.serve(20)
            engine.start()
            eventually(lambda: world.agent["ready"], limit_s=120, what="the agent to be ready again")
            world.serve(50)
        world.finish()


@contextmanager
def engine_world(start_daemon, engine, sandbox, door, base_image, folder):
    def start(**options):
        daemon = start_daemon(
            **options, inside=engine.inside, activated_by=(door,), environment={"LISTEN_FDS": "1"}, wait=False
        )
        daemon.port = door.getsockname()[1]
        return daemon.wait_ready()

    world = Promise(start, sandbox, base_image, folder)
    try:
        yield world
    finally:
        world.close()
        world.daemon.stop()
