"""The rounds over all containers."""

import time
from itertools import count

import pytest

from agentainerd import clock
from agentainerd.model.metrics import Usage
from agentainerd.services import metrics
from tests.fakes.world import ADMIN


def measure(world):
    return world.services.measuring.run_once(time.time())


def measured(world, agent, **options):
    (figures,) = world.services.measuring.figures([agent], **options)
    return figures.measured


def test_a_round_reads_every_container_that_runs_in_one_call(world):
    world.up("one")
    world.up("two", replicas=2)
    world.deploy("three")
    world.engine.calls.clear()

    assert measure(world) == 3
    assert world.engine.calls["usages"] == 1
    assert set(world.engine.calls) == {"usages"}


def test_rates_are_of_the_time_since_the_round_before(world, monkeypatch):
    agent = world.up()
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    measure(world)

    world.engine.use(agent.id, cpu_s=5.0, rx_bytes=1000)
    now += 10
    measure(world)

    found = measured(world, agent)
    assert found.whole.cpu_percent == pytest.approx(50.0)
    assert found.whole.rx_per_s == pytest.approx(100.0)


def test_an_agent_that_started_since_is_measured_when_it_is_asked_for(world):
    measure(world)
    agent = world.up()

    assert measured(world, agent).whole.containers == 1


def test_what_is_known_is_not_measured_again(world):
    agent = world.up()
    measure(world)
    world.engine.calls.clear()

    measured(world, agent)

    assert world.engine.calls["usages"] == 0


def test_a_stopped_one_uses_nothing_at_once(world):
    world.up()
    measure(world)

    agent = world.services.agents.stop("web", ADMIN)

    found = measured(world, agent)
    assert (found.whole.containers, found.whole.usage.memory_bytes) == (0, 0)


def test_a_container_that_is_started_again_counts_anew(world):
    agent = world.up()
    world.engine.use(agent.id, cpu_s=500.0)
    measure(world)

    agent = world.services.agents.restart("web", ADMIN, wait_s=5)
    measure(world)

    assert measured(world, agent).whole.usage.cpu_s < 1
    assert measured(world, agent).whole.cpu_percent >= 0


def test_a_container_that_can_not_be_read_is_left_out(world, monkeypatch):
    agent = world.up(replicas=2)
    first = agent.replicas[0].container_id
    monkeypatch.setattr(world.engine, "usages", lambda ids: {first: Usage(at=clock.now(), memory_bytes=7)})

    measure(world)

    found = measured(world, agent)
    assert set(found.replicas) == {1}
    assert found.whole.usage.memory_bytes == 7


def test_nothing_is_kept_of_what_is_gone(world):
    agent = world.up()
    measure(world)
    assert world.services.measuring._known and world.services.measuring._latest

    world.services.agents.remove(agent.id, ADMIN)
    measure(world)

    service = world.services.measuring
    assert (service._known, service._latest, service._rounds, service._traffic) == ({}, {}, {}, {})


def test_each_round_is_a_point_of_the_history(world, monkeypatch):
    agent = world.up()
    now = 1_700_000_000.0
    for second in range(0, 60, 10):
        world.services.measuring.run_once(now + second)

    points = world.services.measuring.history(agent, now)

    assert [each.at - now for each in points] == list(range(0, 60, 10))
    assert points[0].memory_bytes == 10_000_000 and points[0].containers == 1


def test_an_agent_of_which_there_is_nothing_to_tell_has_no_points(world):
    agent = world.deploy()
    measure(world)
    assert world.services.measuring.history(agent, 0) == []

    world.queue(agent)
    measure(world)

    (point,) = world.services.measuring.history(agent, 0)
    assert (point.pending, point.containers) == (1, 0)


def test_requests_are_those_between_two_rounds(world):
    agent = world.up()
    now = 1_700_000_000.0
    world.services.measuring.run_once(now)
    for _ in range(20):
        world.route().tally.answered(200, 0.5)
    world.route().tally.answered(500, 0.5)

    world.services.measuring.run_once(now + 10)

    last = world.services.measuring.history(agent, now)[-1]
    assert last.requests_per_s == pytest.approx(2.1)
    assert last.errors_per_s == pytest.approx(0.1)
    assert last.latency_s == pytest.approx(0.5)


def test_a_daemon_that_stops_writes_what_it_has(world, make_world):
    agent = world.up()
    measure(world)

    world.services.measuring.close()

    assert len(make_world().services.measuring.history(agent, 0)) == 1


def test_a_removed_agent_leaves_no_history(world):
    agent = world.up()
    measure(world)
    world.services.measuring.close()
    assert world.redis.call("EXISTS", f"agentainer:usage:{agent.id}") == 1

    world.services.agents.remove(agent.id, ADMIN)
    measure(world)
    world.services.measuring.close()

    assert world.redis.call("EXISTS", f"agentainer:usage:{agent.id}") == 0


def test_what_is_older_than_is_asked_for_is_measured_again_and_rounds_do_not_notice(world, monkeypatch):
    agent = world.up()
    now = clock.now()
    monkeypatch.setattr(clock, "now", lambda: now)
    measure(world)
    now += 8
    world.engine.use(agent.id, cpu_s=4.0)

    assert measured(world, agent, max_age_s=2.0).whole.cpu_percent == pytest.approx(50.0)
    now += 1
    assert measured(world, agent, max_age_s=2.0).whole.cpu_percent == pytest.approx(50.0), "it is new enough"
    now += 1
    assert measured(world, agent, max_age_s=1.0).whole.cpu_percent == 0.0, "of the two seconds since"
    measure(world)

    assert measured(world, agent).whole.cpu_percent == pytest.approx(40.0), "of the ten since the round before"


def test_many_that_are_not_known_are_read_in_one_call(world):
    agents = [world.up(name) for name in ("one", "two", "three")]
    world.engine.calls.clear()

    world.services.measuring.figures(agents)

    assert world.engine.calls["usages"] == 1


def test_a_daemon_that_comes_back_shows_rates_of_now_and_not_of_the_containers_life(world, make_world, monkeypatch):
    monkeypatch.setattr(metrics, "FIRST_LOOK_S", 0.0)
    agent = world.up()
    world.engine.use(agent.id, cpu_s=500.0)
    seconds = count(clock.now() + 1000)
    monkeypatch.setattr(clock, "now", lambda: float(next(seconds)))
    later = make_world()

    measure(later)

    assert measured(later, agent).whole.cpu_percent == 0.0
    assert measured(later, agent).whole.usage.cpu_s > 500
