"""Deadlines without timers."""

import socket

import gevent
import pytest

from agentainerd.proxy.watch import Cause, Sweeper, Watched


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.mark.parametrize("cause", [Cause.IDLE, Cause.SLOW_HEAD, Cause.SLOW_BODY, Cause.STALLED])
def test_an_overdue_wait_on_a_client_ends_with_its_cause(pair, cause):
    sweeper, watched = Sweeper(), Watched(pair[0])
    watched.deadline, watched.overdue = sweeper.now - 1, cause
    sweeper.add(watched)
    waiting = gevent.spawn(pair[0].recv, 1)
    gevent.sleep(0)

    sweeper.sweep()

    assert waiting.get(timeout=1) == b""
    assert watched.cause is cause


def test_what_is_not_overdue_goes_on(pair):
    sweeper, watched = Sweeper(), Watched(pair[0])
    watched.deadline = sweeper.now + 60
    sweeper.add(watched)

    sweeper.sweep()

    assert watched.cause is Cause.NONE
    assert len(sweeper) == 1
    sweeper.remove(watched)
    assert sweeper.all() == []


def test_a_client_that_left_ends_the_wait_for_its_agent(pair):
    upstream, agent = socket.socketpair()
    sweeper, watched = Sweeper(), Watched(pair[0])
    watched.upstream, watched.waits_for_agent = upstream, True
    sweeper.add(watched)
    waiting = gevent.spawn(upstream.recv, 1)
    sweeper.sweep()
    assert watched.cause is Cause.NONE

    pair[1].close()
    sweeper.sweep()

    assert waiting.get(timeout=1) == b""
    assert watched.cause is Cause.CLIENT_LEFT
    upstream.close()
    agent.close()


def test_a_client_that_sent_more_has_not_left(pair):
    pair[1].sendall(b"GET")

    assert not Watched(pair[0]).has_left()
    assert not Watched().has_left()
