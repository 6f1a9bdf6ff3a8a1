"""The pool of one target."""

import select

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
    connection = target.connect()
    eventually(lambda: agent.open)
    agent.close()
    eventually(lambda: select.select([connection], [], [], 0)[0])
    target.put(connection)

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
