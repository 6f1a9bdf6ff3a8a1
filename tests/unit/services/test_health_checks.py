"""One health check: what is good, and what is said of the rest."""

import gevent
import pytest
from gevent.server import StreamServer

from agentainerd.model.health import HealthCheck
from agentainerd.proxy.target import Target
from agentainerd.services.health_checks import perform
from tests.fakes.agents import RawAgent, answer
from tests.fakes.engine import FakeEngine


def ask(address, **fields):
    return perform(FakeEngine(), Target(address), HealthCheck(**{"timeout": "10s", **fields}))


@pytest.mark.parametrize(
    ("status", "is_good"), [(200, True), (204, True), (302, True), (399, True), (404, False), (503, False)]
)
def test_2xx_and_3xx_are_good(status, is_good):
    agent = RawAgent(lambda connection, _: connection.sendall(answer(b"", status=b"%d Status" % status)))

    result = ask(agent.address, endpoint="/up?deep=1")

    assert (result.is_good, result.status, bool(result.message)) == (is_good, status, not is_good)
    assert 0 < result.latency_s < 10
    (request,) = agent.requests
    assert request.startswith(b"GET /up?deep=1 HTTP/1.1\r\n")
    assert b"agentainerd-health" in request
    agent.close()


def trickle(connection, _):
    while True:
        connection.sendall(b"H")
        gevent.sleep(0.05)


@pytest.mark.parametrize(
    ("script", "timeout", "word"),
    [
        (lambda connection, _: connection.sendall(b"SSH-2.0-x\r\n\r\n"), "10s", "its answer is no HTTP"),
        (trickle, "300ms", "no answer within 300ms"),
    ],
)
def test_what_is_no_http_or_trickles_is_bad(script, timeout, word):
    agent = RawAgent(script)

    result = ask(agent.address, timeout=timeout)

    assert not result.is_good and word in result.message, result
    assert result.latency_s < 5  # a trickle has no end of its own
    agent.close()


@pytest.mark.parametrize("endpoint", ["tcp", "/health"])
def test_nobody_who_listens_is_bad(endpoint):
    server = StreamServer(("127.0.0.1", 0), lambda *_: None)
    server.start()
    address = ("127.0.0.1", server.server_port)
    server.stop()

    result = ask(address, endpoint=endpoint)

    assert (result.is_good, result.status, result.message) == (False, 0, "connection refused")
