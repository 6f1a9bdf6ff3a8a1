"""Agents that sleep when nobody asks them, and wake for a request."""

import time

import gevent
import pytest

from agentainerd.errors import Conflict
from agentainerd.proxy.routing import Gate
from tests.fakes.programs import Program
from tests.fakes.world import ADMIN


@pytest.fixture
def idle(world):
    return world.services.idle


def look(world):
    return world.services.idle.run_once(time.time())


def sleep(world, eventually, **fields):
    """An agent that sleeps."""
    agent = world.up(idle_timeout_s=0.05, **fields)
    eventually(lambda: look(world) or world.agent().is_idle)
    eventually(lambda: world.agent().reason == "idle")
    return agent


def ask(world, seconds=5.0):
    """Wait at the gate, as a request does."""
    return gevent.spawn(world.route().wait_open, seconds)  # noqa: TID251


def test_an_agent_without_a_request_is_stopped_and_says_so(world, eventually):
    agent = sleep(world, eventually)

    assert (world.state(), world.agent().reason) == ("stopped", "idle")
    assert world.route().gate is Gate.HOLDING
    assert world.engine.inspect(agent.container_id).state == "exited"
    assert world.agent().crashes == world.agent().restarts == 0


def test_one_that_is_used_or_was_just_now_is_not(world):
    world.up(idle_timeout_s=60)
    target = world.route().targets[0]
    target.used_at -= 100
    target.in_flight += 1
    assert look(world) == 0

    target.in_flight -= 1
    target.used_at = time.monotonic() - 1
    assert look(world) == 0
    assert world.state() == "running"

    target.used_at -= 100
    assert look(world) == 1


def test_one_that_has_no_timeout_is_not(world):
    world.up()
    world.route().targets[0].used_at -= 1e6

    assert look(world) == 0


def test_a_request_that_waits_starts_it(world, eventually):
    sleep(world, eventually)

    assert ask(world).get(timeout=5) is Gate.OPEN

    assert (world.state(), world.agent().is_idle, world.route().on_wanted) == ("running", False, None)


def test_a_request_that_comes_while_it_is_being_stopped_starts_it_again(world, eventually):
    world.engine.add_image("stubborn", Program(heeds_sigterm=False))
    world.up(image="stubborn", idle_timeout_s=0.05, stop_grace_s=0.3)
    eventually(lambda: look(world) == 1)
    eventually(lambda: world.route().gate is Gate.HOLDING)

    waiting = ask(world)

    assert waiting.get(timeout=5) is Gate.OPEN
    assert world.state() == "running"


def test_what_is_queued_wakes_it_at_the_next_look(world, eventually):
    agent = sleep(world, eventually)

    request_id = world.queue(agent, "/later")
    look(world)

    world.wait_request(request_id, "completed")


def test_one_with_something_queued_is_not_put_to_sleep(world):
    agent = world.up(idle_timeout_s=0.05)
    world.queue(agent, "/later", due_at=time.time() + 3600)
    gevent.sleep(0.1)

    look(world)
    gevent.sleep(0.2)

    assert world.state() == "running"


def test_a_daemon_that_comes_back_lets_it_sleep_and_wakes_it(world, make_world, eventually):
    agent = sleep(world, eventually)
    world.end()

    again = make_world()
    assert (again.state(), again.agent().reason, again.route().gate) == ("stopped", "idle", Gate.HOLDING)
    gevent.sleep(0.2)
    assert again.state() == "stopped"

    assert ask(again).get(timeout=5) is Gate.OPEN
    assert again.agent().container_id == agent.container_id


def test_all_replicas_sleep_and_wake(world, eventually):
    sleep(world, eventually, replicas=3)
    assert [replica.state.value for replica in world.agent().replicas] == ["stopped"] * 3

    ask(world).get(timeout=5)

    eventually(lambda: len(world.route().serving) == 3)


def test_a_stop_is_a_stop_and_no_request_wakes_it(world, eventually):
    sleep(world, eventually)

    world.services.agents.stop("web", ADMIN)

    assert (world.agent().reason, world.agent().is_idle) == ("", False)
    assert ask(world).get(timeout=5) is Gate.CLOSED
    assert world.state() == "stopped"


@pytest.mark.parametrize("verb", ["start", "resume"])
def test_a_person_can_wake_it(world, eventually, verb):
    sleep(world, eventually)

    getattr(world.services.agents, verb)("web", ADMIN, wait_s=5)

    assert (world.state(), world.agent().is_idle) == ("running", False)


def test_a_restart_or_a_pause_of_one_that_sleeps_is_a_conflict_that_says_why(world, eventually):
    sleep(world, eventually)

    with pytest.raises(Conflict) as failure:
        world.services.agents.restart("web", ADMIN)

    assert "it is stopped (idle)" in failure.value.message


def test_one_that_cannot_be_started_is_failed_and_its_requests_are_queued(world, eventually):
    sleep(world, eventually)
    world.engine.program("echo").fails = (127, "exec: not found")

    assert ask(world).get(timeout=5) is Gate.CLOSED
    assert (world.state(), world.agent().is_idle) == ("failed", False)


def test_an_engine_that_is_away_keeps_it_asleep_and_is_not_asked_all_the_time(world, eventually, monkeypatch):
    monkeypatch.setattr("agentainerd.services.idle.PAUSE_S", 0.2)
    sleep(world, eventually)
    world.engine.go_down()

    assert ask(world, 0.1).get(timeout=5) is Gate.HOLDING
    assert world.agent().is_idle
    world.engine.come_back()
    gevent.sleep(0.3)

    assert ask(world).get(timeout=5) is Gate.OPEN


def test_its_container_may_be_removed_while_it_sleeps(world, eventually):
    agent = sleep(world, eventually)
    world.engine.remove(agent.container_id)
    eventually(lambda: world.agent().container_id == "")

    assert ask(world).get(timeout=5) is Gate.OPEN
