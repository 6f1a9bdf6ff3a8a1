"""Each loop's body does what its name says, and tells how much."""

import time

import pytest

from agentainerd.errors import Unavailable
from agentainerd.loops import idle, metrics, replay, retention, state_sync


def test_state_sync_finds_what_happened_behind_the_daemons_back(world):
    agent = world.up()
    world.engine.kill(agent.id)

    state_sync.run_once(world.services, time.time())

    world.wait_state("stopped")


def test_replay_delivers_what_is_due(world, eventually):
    agent = world.up()
    world.journal.accept(world.record(agent, "/x"))

    replay.run_once(world.services, time.time())

    eventually(lambda: world.requests.counts(agent.id).pending == 0)


def test_retention_turns_deadlines_into_states(world):
    agent = world.deploy()
    world.journal.accept(world.record(agent, "/x"))

    retention.run_once(world.services, time.time() + 10**6)

    counts = world.requests.counts(agent.id)
    assert (counts.pending, counts.failed) == (0, 1)


def refuse(*_):
    raise Unavailable("out of memory")


@pytest.mark.parametrize(("service", "verb"), [("audit", "expire"), ("named_tokens", "flush")])
def test_retention_makes_room_first_and_then_does_what_may_take_some(world, monkeypatch, service, verb):
    agent = world.deploy()
    world.journal.accept(world.record(agent, "/x"))
    monkeypatch.setattr(getattr(world.services, service), verb, refuse)

    with pytest.raises(Unavailable):
        retention.run_once(world.services, time.time() + 10**6)

    assert world.requests.counts(agent.id).pending == 0


def test_idle_puts_to_sleep_what_nobody_asks(world, eventually):
    world.up(idle_timeout_s=0.01)

    eventually(lambda: idle.run_once(world.services, time.time()) or world.agent().is_idle)

    world.wait_state("stopped")


def test_loops_have_names_of_their_own():
    assert len({loop.NAME for loop in (replay, retention, state_sync, idle)}) == 4
    assert all(loop.INTERVAL_S > 0 for loop in (replay, retention, state_sync, idle))


def test_metrics_measures_what_runs(world):
    world.up()

    assert metrics.run_once(world.services, time.time()) == 1
