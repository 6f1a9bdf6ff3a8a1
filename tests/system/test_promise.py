"""The promise under crashes: a steady load, a ledger at the client and one at the agent, and SIGKILL for everybody.

What must hold afterwards: every request that got a 202 is in the agent's ledger, and no unsafe one that was answered
live is there twice.
"""

import itertools
import json
import os
import signal
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import gevent
import psutil
import pytest

from tests.fakes.agents import receive_all
from tests.fakes.planes import Answered

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(240)]
HERE = Path(__file__).parent
KILLS = int(os.environ.get("SOAK_KILLS", "5"))
KINDS = ("get", "post", "slow", "async", "keyed", "large")


@dataclass
class Load:
    """Clients that never stop: `accepted` maps a test id to the request's id, `answered` counts live answers."""

    port: int
    accepted: dict[str, str] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    statuses: Counter = field(default_factory=Counter)
    running: bool = True

    def client(self, number: int) -> None:
        for count in itertools.count():
            if not self.running:
                return
            kind = KINDS[(number + count) % len(KINDS)]
            test_id = f"{kind}-{number}-{count}"
            try:
                got = self.ask(kind, test_id)
            except OSError:
                self.statuses["no connection"] += 1
                gevent.sleep(0.02)
                continue
            self.statuses[got.status] += 1
            if got.status == 202:
                self.accepted[test_id] = got.json["data"]["request_id"]
            elif got.status == 200 and got.body == test_id.encode():
                self.answered[test_id] = kind
            gevent.sleep(0.01)

    def ask(self, kind: str, test_id: str) -> Answered:
        method = "GET" if kind == "get" else "POST"
        body = b"x" * (100_000 if kind == "large" else 100) if method == "POST" else b""
        lines = [f"{method} /agent/ledger/{kind}?s={0.05 if kind == 'slow' else 0} HTTP/1.1", "Host: localhost"]
        lines += [f"X-Test-Id: {test_id}", f"Content-Length: {len(body)}", "Connection: close"]
        if kind == "async":
            lines.append("Prefer: respond-async")
        if kind == "keyed":
            lines.append(f"Idempotency-Key: {test_id}")
        with socket.create_connection(("127.0.0.1", self.port), timeout=15) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            raw = receive_all(connection, 15)
        answered = Answered(raw)
        if not raw or len(answered.body) < int(answered.fields.get("content-length", "0")):
            raise ConnectionError("the answer broke off")
        return answered


class World:
    """One daemon with one ledger agent, under load."""

    def __init__(self, start_daemon, sandbox, base_image, folder):
        self.start = start_daemon
        self.sandbox = sandbox
        self.folder = folder
        folder.mkdir()
        folder.chmod(0o777)
        self.daemon = start_daemon(sandbox=sandbox)
        spec = {
            "name": "ledger",
            "image": base_image,
            "command": ["/usr/bin/python3", "-u", "/agent/ledger_agent.py"],
            "volumes": [
                {"host_path": str(HERE), "container_path": "/agent", "read_only": True},
                {"host_path": str(folder), "container_path": "/ledger"},
            ],
            "auto_restart": True,
            "replay_concurrency": 8,
        }
        self.must("POST", "/agents", spec)
        self.must("POST", "/agents/ledger/start?wait=30")
        self.load = Load(self.daemon.port)
        self.clients = [gevent.spawn(self.load.client, number) for number in range(12)]

    def must(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        assert status < 300, said
        return said["data"]

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon = self.start(like=self.daemon, sandbox=self.sandbox)

    def kill_redis(self):
        redis = redis_of(self.daemon)
        os.kill(redis.pid, signal.SIGKILL)
        return redis

    def stop_load(self):
        self.load.running = False
        gevent.joinall(self.clients, timeout=30, raise_error=True)
        assert all(client.ready() for client in self.clients)

    def ledger(self) -> Counter:
        """Test ids to how often the agent was given them."""
        lines = (self.folder / "ledger.txt").read_text().splitlines()
        return Counter(line.split(" ")[0] for line in lines)

    def drained(self) -> bool:
        requests = self.must("GET", "/agents/ledger")["requests"]
        return requests["pending"] == 0 and requests["in_flight"] == 0

    def check(self):
        """The promise, as set algebra."""
        ledger = self.ledger()
        lost = {test_id: request for test_id, request in self.load.accepted.items() if test_id not in ledger}
        assert not lost, (
            f"{len(lost)} of {len(self.load.accepted)} accepted requests were lost: {list(lost.items())[:5]}"
        )
        twice = [each for each, kind in self.load.answered.items() if kind != "get" and ledger[each] != 1]
        assert not twice, f"answered live, and not run exactly once: {[(each, ledger[each]) for each in twice[:5]]}"


def redis_of(daemon) -> psutil.Process:
    """The Redis child of a daemon."""
    for child in psutil.Process(daemon.pid).children():
        if "redis" in child.name() or "valkey" in child.name():
            return child
    pytest.fail(f"no Redis child of {daemon}")


@pytest.fixture
def world(start_daemon, docker_sandbox, base_image, tmp_path):
    world = World(start_daemon, docker_sandbox, base_image, tmp_path / "ledger")
    yield world
    world.load.running = False
    gevent.killall(world.clients)
    docker_sandbox.remove_containers()


def test_sigkill_of_daemon_redis_and_agent_under_load_loses_nothing(world, docker_client, eventually):
    def served(count=200):
        """So many more requests were answered or accepted."""
        goal = len(world.load.accepted) + len(world.load.answered) + count
        eventually(
            lambda: len(world.load.accepted) + len(world.load.answered) >= goal,
            limit_s=60,
            what=f"{count} more requests",
        )

    served()
    for _ in range(KILLS):
        world.kill_daemon()
        served()
    killed = world.kill_redis()
    eventually(lambda: not killed.is_running() or killed.status() == psutil.STATUS_ZOMBIE, limit_s=10)
    served()
    container = world.must("GET", "/agents/ledger")["container_id"]
    docker_client.kill(container)
    served()
    world.stop_load()
    eventually(world.drained, limit_s=60, what="the queue to be drained")

    print(json.dumps({str(status): count for status, count in world.load.statuses.items()}))
    world.check()
    assert len(world.load.accepted) > 100
    assert world.load.statuses[404] == 0
    failed = world.must("GET", "/agents/ledger/requests?state=failed&limit=1000")["requests"]
    lost = [each for each in failed if each["id"] in world.load.accepted.values()]
    assert not lost, lost[:3]


def test_a_stopped_agent_gets_what_came_meanwhile_in_order(world, eventually):
    world.stop_load()
    eventually(world.drained, limit_s=30)
    world.must("POST", "/agents/ledger/stop")
    order = [f"get-queued-{number}" for number in range(30)]
    for test_id in order:
        assert world.load.ask("get", test_id).status == 202
    began = time.time()

    world.must("POST", "/agents/ledger/resume?wait=30")

    eventually(world.drained, limit_s=30)
    lines = (world.folder / "ledger.txt").read_text().splitlines()
    ran = [line.split(" ")[0] for line in lines if "-queued-" in line]
    assert sorted(ran) == sorted(order)
    assert ran[:2] == order[:2]
    assert time.time() - began < 20


def test_restart_under_load_loses_nothing_and_answers_no_5xx(world, eventually):
    eventually(lambda: len(world.load.answered) > 50, limit_s=30)
    world.load.statuses.clear()

    world.must("POST", "/agents/ledger/restart?wait=30")

    goal = len(world.load.answered) + 100
    eventually(lambda: len(world.load.answered) > goal, limit_s=30)
    world.stop_load()
    eventually(world.drained, limit_s=60)
    assert set(world.load.statuses) <= {200, 202}, world.load.statuses
    world.check()
