"""A steady load of mixed requests on one agent, a ledger at each end, and what must hold between them.

    promise(**agent fields)    a `Promise`: daemon, ledger agent (tests/system/ledger_agent.py) and load, running

The client's ledger says what it was told of each request; the agent's, a file outside the container, what it was given.
`check` is the promise as set algebra over both, and the journal's invariants.
"""

import itertools
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

from agentainerd.errors import Unavailable
from agentainerd.store.connection import RedisClient
from tests.conftest import wait_until
from tests.fakes import invariants
from tests.fakes.agents import receive_all
from tests.fakes.planes import Answered

AGENT_FOLDER = Path(__file__).parent.parent / "system"
KINDS = ("get", "post", "slow", "async", "keyed", "large", "stream")
UNSAFE = ("post", "slow", "async", "large")
CLIENTS = 12


@dataclass
class Load:
    """Clients that never stop. `accepted` maps a test id to its request's id, `answered` to its kind; `refused`: told
    that it was not taken.
    """

    port: int
    kinds: tuple[str, ...] = KINDS
    accepted: dict[str, str] = field(default_factory=dict)
    answered: dict[str, str] = field(default_factory=dict)
    statuses: Counter = field(default_factory=Counter)
    refused: set[str] = field(default_factory=set)
    unexpected: list[str] = field(default_factory=list)
    running: bool = True
    timeout_s: float = 30.0

    @property
    def served(self) -> int:
        return len(self.accepted) + len(self.answered)

    def client(self, number: int) -> None:
        for count in itertools.count():
            if not self.running:
                return
            kind = self.kinds[(number + count) % len(self.kinds)]
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
            elif got.status in (429, 503):
                self.refused.add(test_id)
            elif got.status not in (502, 504):
                self.unexpected.append(f"{test_id}: {got.raw[:200]!r}")
            gevent.sleep(0.01)

    def ask(self, kind: str, test_id: str, path: str | None = None) -> Answered:
        """One request on a connection of its own. Raises OSError where the answer is not whole."""
        method = "GET" if kind in ("get", "stream") else "POST"
        body = b"x" * (100_000 if kind == "large" else 100) if method == "POST" else b""
        path = path or f"/{kind}?s={0.05 if kind == 'slow' else 0}"
        lines = [f"{method} /agent/ledger{path} HTTP/1.1", "Host: localhost", "Connection: close"]
        lines += [f"X-Test-Id: {test_id}", f"Content-Length: {len(body)}"]
        if kind == "async":
            lines.append("Prefer: respond-async")
        if kind == "keyed":
            lines.append(f"Idempotency-Key: {test_id}")
        if kind == "stream":
            lines.append("Accept: text/event-stream")
        with socket.create_connection(("127.0.0.1", self.port), timeout=self.timeout_s) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            raw = receive_all(connection, self.timeout_s)
        answered = Answered(raw)
        chunked = answered.fields.get("transfer-encoding") == "chunked"
        length = int(answered.fields.get("content-length", "0"))
        streamed = raw.partition(b"\r\n\r\n")[2]  # a head may end as the last chunk does
        if not raw or (not streamed.endswith(b"0\r\n\r\n") if chunked else len(answered.body) < length):
            raise ConnectionError("the answer broke off")
        return answered


class Promise:
    """One daemon with one ledger agent, under load. `down_s`: how long no request was accepted after each kill."""

    def __init__(self, start_daemon, sandbox, base_image, folder, *, kinds=KINDS, config="", daemon=None, **fields):
        self.start = start_daemon
        self.sandbox = sandbox
        self.folder = folder
        self.down_s: list[float] = []
        folder.mkdir()
        folder.chmod(0o777)
        self.options = {"sandbox": sandbox, **(daemon or {})}
        self.daemon = start_daemon(config=config, **self.options)
        spec = {
            "name": "ledger",
            "image": base_image,
            "command": ["/usr/bin/python3", "-u", "/agent/ledger_agent.py"],
            "volumes": [
                {"host_path": str(AGENT_FOLDER), "container_path": "/agent", "read_only": True},
                {"host_path": str(folder), "container_path": "/ledger"},
            ],
            "auto_restart": True,
            "replay_concurrency": 8,
            **fields,
        }
        self.must("POST", "/agents", spec)
        self.must("POST", "/agents/ledger/start")
        self.load = Load(self.daemon.port, kinds)
        self.clients = [gevent.spawn(self.load.client, number) for number in range(CLIENTS)]
        self.serve(20)

    def must(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        assert status < 300, said
        return said["data"]

    @property
    def agent(self):
        return self.must("GET", "/agents/ledger")

    # ---- faults

    def kill_daemon(self):
        self.daemon.kill()
        self.daemon = self.start(like=self.daemon, **self.options)

    def kill_redis(self):
        redis = redis_of(self.daemon)
        os.kill(redis.pid, signal.SIGKILL)
        wait_until(lambda: is_over(redis))

    def kill_agent(self, docker_client):
        """SIGKILL; whoever kills it so often is not made to wait for its back-off."""
        run = self.agent["container_id"]
        docker_client.kill(run)
        self.serve(20)
        self.daemon.control("POST", "/agents/ledger/resume?wait=30")  # refused where it runs again already

    # ---- what is waited for

    def serve(self, count=100, limit_s=60.0):
        """Wait until so many more requests were answered or accepted."""
        goal = self.load.served + count
        wait_until(lambda: self.load.served >= goal, limit_s=limit_s, what=f"{count} more requests")

    def after(self, kill, count=100):
        """Kill, and note how long nothing was accepted; then let so many requests through."""
        began, accepted = time.monotonic(), len(self.load.accepted)
        kill()
        wait_until(lambda: len(self.load.accepted) > accepted, limit_s=60, what="the first 202 after a kill")
        self.down_s.append(time.monotonic() - began)
        self.serve(count)

    def stop_load(self):
        self.load.running = False
        gevent.joinall(self.clients, timeout=60, raise_error=True)
        assert all(client.ready() for client in self.clients)

    def drained(self) -> bool:
        requests = self.agent["requests"]
        return requests["pending"] == requests["processing"] == requests["in_flight"] == 0

    def finish(self, limit_s=90.0, may_be_unknown=False):
        """Stop the load, wait until nothing is queued any more, and check everything."""
        self.stop_load()
        try:
            wait_until(self.drained, limit_s=limit_s, what="the queue to be drained")
        except pytest.fail.Exception:
            print(self.agent["requests"], self.daemon.greenlets(), sep="\n")
            raise
        self.check(may_be_unknown=may_be_unknown)
        self.check_journal()

    # ---- what must hold

    def ledger(self) -> Counter:
        """Test ids to how often the agent was given them."""
        return Counter(entry[0] for entry in self.entries())

    def entries(self) -> list[list[str]]:
        """(test id, request id, attempt, maybe duplicate) of every request that the agent was given."""
        return [line.split(" ") for line in (self.folder / "ledger.txt").read_text().splitlines()]

    def check(self, *, may_be_unknown=False):
        """The promise, as set algebra. `may_be_unknown`: the agent lives and breaks connections, so that unsafe requests may
        end as dead letters with reason outcome_unknown.
        """
        ledger, load = self.ledger(), self.load
        dead = self.dead_letters_of_accepted()
        if may_be_unknown:
            assert {(each["reason"], each["method"]) for each in dead} <= {("outcome_unknown", "POST")}, dead[:3]
        else:
            assert not dead, [
                {key: each.get(key) for key in ("id", "reason", "error", "attempts")} for each in dead[:3]
            ]
        buried = {each["id"] for each in dead}
        lost = {
            each: request for each, request in load.accepted.items() if each not in ledger and request not in buried
        }
        assert not lost, f"{len(lost)} of {len(load.accepted)} accepted requests were lost: {list(lost.items())[:5]}"
        twice = [each for each, kind in load.answered.items() if kind in UNSAFE and ledger[each] != 1]
        assert not twice, f"answered live, and not run exactly once: {[(each, ledger[each]) for each in twice[:5]]}"
        first: set[str] = set()
        unmarked = []
        for test_id, _, attempt, duplicate in self.entries():
            if test_id in first and test_id.partition("-")[0] in UNSAFE and attempt == "-" and duplicate == "-":
                unmarked.append(test_id)
            first.add(test_id)
        assert not unmarked, f"given to the agent again without a mark: {unmarked[:5]}"
        ran = [each for each in load.refused if each in ledger]
        assert not ran, f"refused, and run all the same: {ran[:5]}"
        ids: dict[str, set[str]] = {}
        for test_id, request_id, *_ in self.entries():
            ids.setdefault(test_id, set()).add(request_id)
        doubled = {test_id: found for test_id, found in ids.items() if len(found) > 1}
        assert not doubled, f"one request under two ids: {doubled}"
        assert not load.unexpected, load.unexpected[:5]
        assert load.statuses[404] == 0

    def dead_letters_of_accepted(self) -> list:
        failed = self.must("GET", "/agents/ledger/requests?state=failed&limit=1000")["requests"]
        accepted = set(self.load.accepted.values())
        return [each for each in failed if each["id"] in accepted]

    def check_journal(self):
        """The journal's invariants, in one look at Redis, which needs nobody to stop."""
        url = redis_url(self.daemon)
        wait_until(lambda: answers(url), limit_s=30, what="Redis")
        invariants.require(url)

    def summary(self, title: str) -> str:
        """One line for people."""
        entries = self.entries()
        again = sum(1 for entry in entries if entry[3] != "-")
        longest = max(self.down_s, default=0.0)
        middle = sorted(self.down_s)[len(self.down_s) // 2] if self.down_s else 0.0
        return (
            f"{title}: {len(self.down_s)} kills, {sum(self.load.statuses.values())} requests, {len(self.load.accepted)} "
            f"accepted with 202, {len(self.load.answered)} answered live, 0 lost, {again} deliveries marked as possible "
            f"duplicates; nothing accepted for {middle:.2f} s (median) to {longest:.2f} s after a kill"
        )

    def close(self):
        self.load.running = False
        gevent.killall(self.clients)
        self.sandbox.remove_containers()


def answers(url: str) -> bool:
    """Redis runs, and has loaded its data."""
    client = RedisClient(url)
    try:
        return client.call("PING") == b"PONG"
    except Unavailable:
        return False
    finally:
        client.close()


def is_over(process: psutil.Process) -> bool:
    """It does not run any more; its parent may not know yet."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def redis_of(daemon) -> psutil.Process:
    """The Redis child of a daemon."""
    for child in psutil.Process(daemon.pid).children():
        if "redis" in child.name() or "valkey" in child.name():
            return child
    pytest.fail(f"no Redis child of {daemon}")


def redis_url(daemon) -> str:
    """The URL of a daemon's own Redis."""
    return f"unix://{daemon.runtime_dir}/redis.sock"


@pytest.fixture
def promise(start_daemon, docker_sandbox, base_image, tmp_path):
    made = []

    def make(**options) -> Promise:
        made.append(Promise(start_daemon, docker_sandbox, base_image, tmp_path / f"ledger-{len(made)}", **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
