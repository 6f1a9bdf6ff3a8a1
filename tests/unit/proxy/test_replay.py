"""Replays: the original request, ours added, and an honest word on what came of it."""

import socket

import gevent
import pytest
from gevent.pool import Group

from agentainerd import defaults
from agentainerd.model.requests import Record
from agentainerd.proxy import watch
from agentainerd.proxy.replay import Failure, Replayer
from agentainerd.proxy.routing import Route, RouteTable
from agentainerd.proxy.target import Target
from agentainerd.proxy.watch import Sweeper
from tests.fakes.agents import RawAgent, answer, body_of


@pytest.fixture
def replay(monkeypatch):
    """`replay(agent, method=..., body=...)`: one replay to it; `replay.routes` is the table."""
    monkeypatch.setattr(watch, "SWEEP_S", 0.02)
    routes, sweeper, pumps = RouteTable(), Sweeper(), Group()
    sweeping = gevent.spawn(sweeper.run)
    targets = []

    def send(agent, *, method=b"POST", body=b"{}", timeout_s=5.0, **fields):
        route = Route("agent-0123456789abcdef", "web")
        route.request_timeout_s = timeout_s
        targets.append(Target(agent.address))
        head = b"%b /x?y=1 HTTP/1.1\r\nHost: a\r\nX-Agentainer-Request-ID: id-1\r\n" % method
        record = Record(
            "id-1", route.agent_id, head=head, method=method, target=b"/agent/web/x?y=1", received_at=1.5, expires_at=2e9,
            body=body, body_bytes=len(body), **fields,
        )  # fmt: skip
        replayer = Replayer(routes, sweeper, pumps)
        return replayer.send(route, targets[-1], record, [body[:10], body[10:]])

    send.routes = routes
    yield send
    sweeping.kill()
    for target in targets:
        target.drop_idle()


@pytest.fixture
def agent():
    agents = []

    def make(script=None):
        agents.append(RawAgent(script))
        return agents[-1]

    yield make
    for each in agents:
        each.close()


@pytest.mark.parametrize("size", [2, 100_000])
def test_the_agent_gets_the_whole_request_and_what_it_is(replay, agent, size):
    echo = agent(lambda c, r: c.sendall(answer(body_of(r), status=b"201 Created", fields=b"X-A: b\r\n")))

    got = replay(echo, body=b"b" * size, attempt=3, maybe_duplicate=True)

    seen = echo.requests[0]
    assert seen.startswith(b"POST /x?y=1 HTTP/1.1\r\nHost: a\r\nX-Agentainer-Request-ID: id-1\r\n")
    for line in (
        b"X-Agentainer-Replay: true\r\n",
        b"X-Agentainer-Attempt: 3\r\n",
        b"X-Agentainer-Received-At: 1970-01-01T00:00:01.500+00:00\r\n",
        b"X-Agentainer-Maybe-Duplicate: 1\r\n",
    ):
        assert line in seen
    assert body_of(seen) == b"b" * size
    assert (got.status, got.failure, got.response_bytes) == (201, Failure.NONE, size)
    assert got.response.body == b"b" * size
    assert got.response.head == b"HTTP/1.1 201 Created\r\nX-A: b\r\n"


def test_a_first_attempt_is_not_called_a_duplicate(replay, agent):
    plain = agent()

    replay(plain, method=b"GET", body=b"")

    assert b"Maybe-Duplicate" not in plain.requests[0]
    assert b"Content-Length" not in plain.requests[0]


def test_a_giant_answer_is_read_and_not_kept(replay, agent):
    size = defaults.MAX_STORED_RESPONSE_BYTES + 1

    got = replay(agent(lambda c, r: c.sendall(answer(b"x" * size))))

    assert (got.response_bytes, got.response.truncated, got.response.body) == (size, True, b"")


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"7", 7.0), (b"999999", 3600.0), (b"soon", None), (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0)]
)
def test_retry_after_is_read(replay, agent, value, seconds):
    busy = answer(status=b"503 Busy", fields=b"Retry-After: %b\r\n" % value)

    got = replay(agent(lambda c, r: c.sendall(busy)))

    assert (got.status, got.retry_after_s) == (503, seconds)


def test_an_absent_agent_was_not_reached(replay, agent):
    gone = agent()
    gone.close()

    assert replay(gone).failure is Failure.CONNECT


@pytest.mark.parametrize(("dead", "failure"), [(True, Failure.DIED), (False, Failure.NO_ANSWER)])
def test_no_answer_of_a_dead_agent_and_of_a_living_one_differ(replay, agent, dead, failure):
    replay.routes.on_dead_check = lambda route, target: dead

    got = replay(agent(lambda c, r: c.shutdown(socket.SHUT_RDWR)))

    assert (got.status, got.failure) == (0, failure)
    assert got.error


def test_a_silent_agent_is_left_after_its_time(replay, agent):
    assert replay(agent(lambda c, r: None), timeout_s=0.1).failure is Failure.NO_ANSWER


def test_an_answer_that_breaks_off_is_no_answer(replay, agent):
    half = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"

    got = replay(agent(lambda c, r: (c.sendall(half), c.shutdown(socket.SHUT_RDWR))))

    assert (got.status, got.failure) == (0, Failure.BROKEN)


def test_garbage_is_no_answer(replay, agent):
    assert replay(agent(lambda c, r: c.sendall(b"garbage\r\n\r\n"))).failure is Failure.NO_ANSWER
