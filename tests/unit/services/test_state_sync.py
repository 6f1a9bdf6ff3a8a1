"""Records that agree with the engine, whatever happens outside."""

import time

import pytest

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.containers import ContainerState
from agentainerd.proxy.routing import Gate
from tests.fakes.programs import Program
from tests.fakes.world import ADMIN


@pytest.fixture
def sync(world):
    return world.services.state_sync


@pytest.mark.parametrize(
    ("what", "state"), [("stop", "stopped"), ("pause", "paused"), ("remove", "stopped"), ("kill", "stopped")]
)
def test_what_happens_outside_is_recorded_by_its_event(world, what, state):
    agent = world.up()
    if what == "kill":
        world.engine.kill(agent.id)
    elif what == "stop":
        world.engine.stop(agent.container_id, grace_s=0)
    else:
        getattr(world.engine, what)(agent.container_id)

    world.wait_state(state)

    assert world.route().gate is Gate.CLOSED


def test_what_happened_while_no_event_came_is_found_by_the_look_at_everything(world, sync, eventually):
    agent = world.up()
    world.engine.lose_events()
    world.engine.stop(agent.container_id, grace_s=0)

    assert sync.run_once(time.time()) == 1

    world.wait_state("stopped")
    eventually(lambda: sync.run_once(time.time()) == 0)


def test_a_container_that_is_started_outside_runs_again_and_is_reached(world):
    agent = world.up()
    world.services.agents.stop("web", ADMIN)

    world.engine.start(agent.container_id)

    world.wait_state("running")
    world.wait_ready()


def test_while_the_engine_is_away_nothing_changes(world, sync):
    world.up()
    world.engine.go_down()

    with pytest.raises(Unavailable):
        sync.run_once(time.time())

    assert world.state() == "running"
    world.engine.come_back()
    world.wait_ready()


def test_an_engine_that_came_back_is_told_of(world, sync, eventually):
    told = []
    sync.on_reconnect = lambda: told.append(1)
    world.engine.go_down()

    world.engine.come_back()

    eventually(lambda: told == [1])


def test_a_container_that_was_removed_outside_is_not_made_again_by_itself(world, sync):
    agent = world.up(auto_restart=True)
    world.engine.remove(agent.container_id)

    world.wait_state("stopped")

    found = world.agent()
    assert (found.container_id, found.should_run, found.next_restart_at) == ("", False, 0.0)
    assert "removed from outside" in found.reason


def test_strange_containers_are_orphans_and_left_alone(world, sync):
    agent = world.up()
    world.agents.remove(agent.id)

    sync.run_once(time.time())

    assert [one.agent_id for one in sync.orphans] == [agent.id]
    assert world.engine.inspect(agent.container_id).state is ContainerState.RUNNING


def test_a_crash_is_restarted_after_its_time_and_counted(world, eventually):
    agent = world.up(auto_restart=True)

    world.engine.kill(agent.id)

    eventually(lambda: world.agent().restarts == 1 and world.is_ready())
    assert world.agent().crashes == 1
    assert world.agent().last_exit.code == 137


def test_a_stop_that_was_asked_for_is_not_restarted(world):
    world.up(auto_restart=True)

    world.services.agents.stop("web", ADMIN)

    world.services.state_sync.run_once(time.time())
    assert world.state() == "stopped"
    assert world.agent().restarts == 0


@pytest.mark.parametrize("ends_first", [True, False])
def test_what_ended_with_its_engine_is_no_crash_and_is_started_again_at_once(
    world, sync, eventually, monkeypatch, ends_first
):
    """The engine tells of the ends of its containers before it ends itself, or of none."""
    monkeypatch.setattr(defaults, "CRASH_LOOP_LIMIT", 1)
    monkeypatch.setattr(defaults, "RESTART_BACKOFF_S", 60.0)
    agent = world.up(auto_restart=True)
    if ends_first:
        world.engine.kill(agent.id)
        world.wait_state("failed")
        world.engine.go_down()
    else:
        world.engine.go_down()
        world.engine.kill(agent.id)

    world.engine.come_back()

    eventually(
        lambda: sync.run_once(time.time()) >= 0 and world.agent().restarts and world.is_ready(), what="the agent"
    )
    assert world.agent().crashes == 0


def test_a_crash_before_the_engine_ended_is_one(world, sync, monkeypatch):
    monkeypatch.setattr(defaults, "CRASH_LOOP_LIMIT", 1)
    monkeypatch.setattr(defaults, "ENGINE_STOP_S", -1.0)
    agent = world.up(auto_restart=True)
    world.engine.kill(agent.id)
    world.wait_state("failed")
    world.engine.go_down()
    world.engine.come_back()

    sync.run_once(time.time())

    world.wait_state("failed")
    assert world.agent().crashes == 1


def test_a_crash_loop_ends_in_failed(world, monkeypatch):
    monkeypatch.setattr(defaults, "RESTART_BACKOFF_S", 0.01)
    world.engine.add_image("short", Program(exits=3))
    world.deploy(image="short", auto_restart=True)
    world.services.agents.start("web", ADMIN)

    world.wait_state("failed")

    assert world.agent().crashes == defaults.CRASH_LOOP_LIMIT
    assert world.agent().reason.startswith("crash loop")


def test_a_restart_waits_for_an_engine_that_is_away(world, eventually, monkeypatch):
    monkeypatch.setattr(defaults, "FIRST_RESTART_S", 0.2)
    agent = world.up(auto_restart=True)
    world.engine.kill(agent.id)
    world.wait_state("stopped")
    world.engine.go_down()
    eventually(lambda: world.agent().next_restart_at < time.time())
    assert world.route().gate is Gate.HOLDING

    world.engine.come_back()

    eventually(lambda: world.services.state_sync.run_once(time.time()) >= 0 and world.is_ready(), limit_s=15)


def test_an_agent_that_is_removed_while_its_event_waits_is_no_error(world, sync):
    agent = world.up()
    world.services.agents.remove("web", ADMIN)

    sync.sync(agent.id)


def test_a_crash_is_restarted_though_the_clock_was_set_back_by_a_day(world, sync, eventually, monkeypatch):
    monkeypatch.setattr(defaults, "FIRST_RESTART_S", 60.0)
    agent = world.up(auto_restart=True)
    world.engine.kill(agent.id)
    world.wait_state("stopped")
    waiting = world.agent()
    assert waiting.next_restart_at > time.time()
    world.agents.put(waiting.changed(next_restart_at=waiting.next_restart_at + 86400))

    sync.run_once(time.time())

    world.wait_state("running")


def test_a_back_off_that_is_not_over_is_not_cut_short(world, sync, eventually, monkeypatch):
    monkeypatch.setattr(defaults, "FIRST_RESTART_S", 60.0)
    agent = world.up(auto_restart=True)
    world.engine.kill(agent.id)
    world.wait_state("stopped")

    eventually(lambda: sync.run_once(time.time()) == 0)

    assert world.state() == "stopped"
