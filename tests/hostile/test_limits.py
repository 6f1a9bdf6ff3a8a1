"""Clients that are slow on purpose: each has an end, and thousands of them do not slow the others down.

Sizes of heads, trailers and chunk extensions are in test_framing.py, connections and requests in flight in
tests/unit/proxy/test_server.py.
"""

import contextlib
import os
import socket
import subprocess
import sys
import time

import gevent
import pytest

from agentainerd import defaults
from agentainerd.proxy import watch
from tests.fakes.agents import RawAgent, answer, receive_all
from tests.fakes.planes import Answered

SLOW_CLIENTS = int(os.environ.get("SOAK_SLOW_CLIENTS", "500"))
SOAKING = SLOW_CLIENTS > 500
SAMPLES = 5000 if SOAKING else 1000
NOISE_S = 0.0 if SOAKING else 0.01  # below it a p99 says more of the machine than of us, with few samples
ATTEMPTS = 3  # the machine is not ours alone
PACE_S = 0.003
REQUEST = b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture
def hasty(make_plane, monkeypatch):
    """A plane whose limits of time are tenths of a second."""
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "HEAD_TIMEOUT_S", 0.3)
    monkeypatch.setattr(defaults, "KEEPALIVE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(defaults, "BODY_IDLE_TIMEOUT_S", 0.3)
    monkeypatch.setattr(defaults, "BODY_GRACE_S", 0.5)
    monkeypatch.setattr(defaults, "MIN_BODY_RATE", 5000)
    return make_plane()


def drip(connection, start: bytes, drop: bytes) -> tuple[bytes, float]:
    """Send `start`, then `drop` every 30 ms until the other side answers or closes; return what it said, and when."""

    def send():
        try:
            connection.sendall(start)
            while True:
                gevent.sleep(0.03)
                connection.sendall(drop)
        except OSError:
            pass

    began = time.monotonic()
    sending = gevent.spawn(send)
    raw = receive_all(connection)
    sending.kill()
    return raw, time.monotonic() - began


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"", b"\r\n"),
        (b"GET /agent/web/", b"x"),
        (b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n", b"X: y\r\n"),
        (b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\nX: ", b"y"),
        (REQUEST + b"GET /agent/web/", b"x"),
    ],
    ids=["empty lines", "target", "fields", "value", "behind a request"],
)
def test_a_head_that_trickles_has_an_end(hasty, start, drop):
    with hasty.connect() as connection:
        raw, took_s = drip(connection, start, drop)

    assert took_s < 2
    assert (b" 400 Bad Request\r\n" if drop == b"\r\n" else b" 408 Request Timeout\r\n") in raw
    assert len(hasty.agent.requests) == start.count(REQUEST)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
        (HEAD + b"Content-Length: 10000000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;x=", b"y"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ", b"y"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    ],
    ids=["small", "large", "chunks", "extension", "trailer", "chunk size"],
)
@pytest.mark.parametrize("gate", ["open", "closed"])
def test_a_body_that_trickles_has_an_end(hasty, eventually, start, drop, gate):
    if gate == "closed":
        hasty.route.close()
    with hasty.connect() as connection:
        raw, took_s = drip(connection, start, drop)

    assert took_s < 2.5
    assert Answered(raw).status == 408
    assert not hasty.agent.requests
    assert not hasty.journal.pending
    eventually(lambda: hasty.route.in_flight == 0)


def test_a_client_that_stops_in_its_body_leaves_no_connection_to_the_agent(hasty, eventually):
    with hasty.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\nx")
        assert Answered(receive_all(connection)).status == 408

    eventually(lambda: hasty.agent.open and hasty.agent.open[0].recv(65536, 2) is not None)
    eventually(lambda: hasty.route.in_flight == 0)


def test_pipelining_without_reading_is_bounded(make_plane, monkeypatch, eventually):
    """Requests of a client that takes no answers are not read ahead without end, nor are answers for it kept."""
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    monkeypatch.setattr(defaults, "WRITE_STALL_TIMEOUT_S", 0.5)
    plane = make_plane(agent=RawAgent(lambda c, r: c.sendall(answer(b"x" * 100_000))))
    with plane.connect() as connection:
        connection.setblocking(False)
        sent = 0
        end = time.monotonic() + 3
        try:
            while time.monotonic() < end:
                try:
                    sent += connection.send(REQUEST * 1000)
                except BlockingIOError:
                    gevent.sleep(0.01)
        except OSError:
            pass

        eventually(lambda: plane.data_plane.connections == 0)

    assert len(plane.agent.requests) < 300
    assert sent < 20_000_000


class Process:
    """A module of this folder as a process that ends with its input."""

    def __init__(self, module: str, *arguments: object):
        command = [sys.executable, "-m", f"tests.hostile.{module}", *map(str, arguments)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.said = self._process.stdout.readline().decode().strip()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self._process.stdin.close()
        self.said = self._process.stdout.readline().decode().strip()
        self._process.stdout.close()
        self._process.wait(30)

    def memory_bytes(self) -> int:
        with open(f"/proc/{self._process.pid}/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ask_once(connection) -> float:
    began = time.perf_counter()
    connection.sendall(REQUEST)
    raw = b""
    while not raw.endswith(b"\r\n\r\nok"):
        raw += connection.recv(4096)
    return time.perf_counter() - began


def p99(samples: list[float]) -> float:
    return sorted(samples)[int(len(samples) * 0.99)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thousands_of_slow_clients_do_not_slow_the_others_down():
    """A request to a plane beside an attack and one to a plane in peace, in turn, so that both have the same machine."""
    with contextlib.ExitStack() as stack:
        agents = [stack.enter_context(Process("plane_process", "agent")) for _ in range(2)]
        planes = [stack.enter_context(Process("plane_process", "plane", agent.said)) for agent in agents]
        peace, attacked = planes
        before = attacked.memory_bytes()
        with Process("slow_clients", attacked.said, SLOW_CLIENTS) as slow:
            assert slow.said == "ready"
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", int(each.said))))
                for each in (peace, attacked)
            ]
            rounds = []
            while len(rounds) < ATTEMPTS and (not rounds or rounds[-1][1] > max(2 * rounds[-1][0], NOISE_S)):
                rounds.append(compare(clients))
            memory = attacked.memory_bytes() - before
    connected, returned, refused = map(int, slow.said.split())

    print("p99 in peace and beside slow clients, ms:", [(round(a * 1e3, 2), round(b * 1e3, 2)) for a, b in rounds])
    print(
        f"{memory // SLOW_CLIENTS} bytes of memory for each of {connected}; {returned} came back, {refused} were told 408"
    )
    peaceful, beside = rounds[-1]
    assert beside <= max(2 * peaceful, NOISE_S)
    assert connected == SLOW_CLIENTS


def compare(clients) -> tuple[float, float]:
    """Return the p99 of either client's requests."""
    samples: tuple[list[float], list[float]] = ([], [])
    for _ in range(SAMPLES):
        for client, taken in zip(clients, samples, strict=True):
            taken.append(ask_once(client))
            gevent.sleep(PACE_S)
    return p99(samples[0]), p99(samples[1])
