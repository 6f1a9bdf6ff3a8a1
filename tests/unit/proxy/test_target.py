"""The pool of one target."""

import pytest

from agentainerd.proxy import target as module
from agentainerd.proxy.target import Target
from tests.fakes.agents import RawAgent


@pytest.fixture
def agent():
    agent = RawAgent()
    yield agent
    agent.close()


@pytest.fixture
def target(agent):
    target = Target(agent.address)
    yield target
    target.drop_idle()


def test_the_last_connection_put_is_the_first_taken(target):
    first, second = target.connect(), target.connect()
    target.put(first)
    target.put(second)

    assert target.take(repeatable=False) is second
    assert target.take(repeatable=True) is first
    assert target.take(repeatable=True) is None
    first.close()
    second.close()


def test_a_connection_that_the_agent_closed_is_not_given_out(agent, target, eventually):
    target.put(target.connect())
    eventually(lambda: agent.open)
    agent.close()

    eventually(lambda: repr(target).endswith("idle=0>"))
    assert target.take(repeatable=True) is None


def test_a_connection_on_which_the_agent_spoke_unasked_is_not_given_out(agent, target, eventually):
    target.put(target.connect())
    eventually(lambda: agent.open)
    agent.open[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad")

    eventually(lambda: repr(target).endswith("idle=0>"))


def test_a_request_that_can_not_be_repeated_gets_no_connection_that_has_just_ended(agent, target, eventually):
    connection = target.connect()
    eventually(lambda: agent.open)
    connection.pause()  # as long as the event loop does not turn, nobody has heard of it
    target.put(connection)
    agent.close()
    eventually(lambda: not connection.stream.is_quiet())

    assert target.take(repeatable=False) is None


def test_a_request_that_can_not_be_repeated_gets_no_old_connection(target, monkeypatch):
    monkeypatch.setattr(module, "MAX_IDLE_UNSAFE_S", -1)
    connection = target.connect()
    target.put(connection)

    assert target.take(repeatable=False) is None
    assert target.take(repeatable=True) is connection
    connection.close()


def test_an_old_pool_is_dropped_whole(target, monkeypatch):
    monkeypatch.setattr(module, "MAX_IDLE_S", -1)
    target.put(target.connect())
    target.put(target.connect())

    assert target.take(repeatable=True) is None
    assert repr(target).endswith("in_flight=0 idle=0>")


def test_a_retired_target_keeps_nothing(target):
    connection = target.connect()
    target.retire()

    target.put(connection)

    assert target.is_retired
    assert target.take(repeatable=True) is None
