"""Agents with several containers: scaled up and down, killed one by one, restarted in turn."""

import time

import gevent
import pytest

from agentainerd.errors import Conflict, DeadlineExceeded, Failed, InvalidParameter, Unavailable
from agentainerd.proxy.routing import Gate
from tests.fakes.programs import Program
from tests.fakes.world import ADMIN


def numbers(world, state="running", ref="web"):
    return [replica.number for replica in world.agent(ref).replicas if replica.state == state]


def boxes(world, ref="web"):
    agent = world.agent(ref)
    return sorted(box.name for box in world.engine.containers() if box.agent_id == agent.id)


def serving(world, ref="web"):
    return sorted(target.number for target in world.route(ref).serving)


@pytest.fixture
def replicas(world):
    return world.services.replicas


def test_a_running_agent_gets_more_and_all_are_ready(world, replicas):
    agent = world.up()

    agent = replicas.scale("web", 3, ADMIN, wait_s=5)

    assert (agent.spec.replicas, numbers(world), serving(world)) == (3, [1, 2, 3], [1, 2, 3])
    assert boxes(world) == [f"agentainer-{agent.id}-{number}" for number in (1, 2, 3)]


def test_one_that_does_not_run_starts_all_when_it_is_started(world, replicas):
    world.deploy()

    replicas.scale("web", 2, ADMIN)
    assert boxes(world) == []
    world.services.agents.start("web", ADMIN, wait_s=5)

    assert serving(world) == [1, 2]


def test_fewer_finish_what_they_have_and_are_removed(world, replicas, eventually):
    agent = world.up(replicas=3)
    leaving = next(target for target in world.route().targets if target.number == 3)
    leaving.in_flight += 1
    scaling = gevent.spawn(replicas.scale, "web", 1, ADMIN)  # noqa: TID251
    eventually(lambda: serving(world) == [1])
    assert len(boxes(world)) >= 2  # the third one still works

    leaving.in_flight -= 1
    scaling.get(timeout=10)

    assert (boxes(world), numbers(world)) == ([f"agentainer-{agent.id}"], [1])
    assert world.route().gate is Gate.OPEN
    assert world.routes.find(b"web-1") is None


def test_scaling_to_what_it_is_changes_nothing(world, replicas):
    before = world.up(replicas=2)

    assert replicas.scale("web", 2, ADMIN, wait_s=5).replicas == before.replicas


@pytest.mark.parametrize("count", [0, -1, 65])
def test_a_number_that_cannot_be_is_refused(world, replicas, count):
    world.up()

    with pytest.raises(InvalidParameter):
        replicas.scale("web", count, ADMIN)

    assert world.agent().spec.replicas == 1


def test_a_name_that_another_agent_has_is_a_conflict_and_nothing_is_changed(world, replicas):
    world.up()
    world.deploy("web-2")

    with pytest.raises(Conflict) as failure:
        replicas.scale("web", 2, ADMIN)

    assert (failure.value.code, len(world.agent().replicas), len(boxes(world))) == ("AGENT_NAME_TAKEN", 1, 1)


def test_a_paused_agent_is_not_scaled(world, replicas):
    world.up()
    world.services.agents.pause("web", ADMIN)

    with pytest.raises(Conflict):
        replicas.scale("web", 2, ADMIN)


def test_new_ones_that_end_at_once_are_told_and_the_others_go_on(world, replicas):
    world.up()
    world.engine.program("echo").exits = 7

    with pytest.raises(Failed):
        replicas.scale("web", 3, ADMIN, wait_s=5)

    assert (serving(world), numbers(world)) == ([1], [1])
    assert "exit 7" in world.agent().reason


def test_what_a_daemon_left_half_done_is_finished_by_the_next(world, make_world, eventually):
    agent = world.up(replicas=3)
    half = world.agents.get(agent.id)
    world.agents.scale(
        type(half)(**{**{f: getattr(half, f) for f in half.__struct_fields__}, "spec": smaller(half.spec)})
    )
    world.end()

    again = make_world()

    eventually(
        lambda: again.services.state_sync.run_once(time.time()) == 0 and boxes(again) == [f"agentainer-{agent.id}"]
    )
    assert numbers(again) == [1]


def smaller(spec):
    import msgspec

    return msgspec.structs.replace(spec, replicas=1)


def test_one_that_is_killed_is_restarted_and_the_others_serve_meanwhile(world, eventually):
    agent = world.up(replicas=3, auto_restart=True)

    world.engine.kill(agent.id, 2)

    eventually(lambda: world.agent().replica(2).restarts == 1 and serving(world) == [1, 2, 3])
    assert (world.agent().replica(1).restarts, world.agent().replica(3).crashes) == (0, 0)


def test_one_that_is_killed_without_auto_restart_stays_down_and_a_start_brings_it_back(world, eventually):
    agent = world.up(replicas=2)
    world.engine.kill(agent.id, 1)
    eventually(lambda: numbers(world) == [2])
    assert (world.state(), world.route().gate) == ("running", Gate.OPEN)
    assert world.agent().reason == "1 of 2 replicas run; replica 1 is stopped: exit 137, killed"

    world.services.agents.start("web", ADMIN, wait_s=5)

    assert serving(world) == [1, 2]


def test_when_the_last_one_ends_requests_are_queued(world, eventually):
    agent = world.up(replicas=2)

    for number in (1, 2):
        world.engine.kill(agent.id, number)

    world.wait_state("stopped")
    assert world.route().gate is Gate.CLOSED


def test_a_restart_takes_one_after_the_other(world):
    agent = world.up(replicas=3)
    before = {replica.number: replica.started_at for replica in agent.replicas}
    least = []
    watched = world.services.agents._lifecycle.down

    def down(*arguments):
        least.append(serving(world))
        watched(*arguments)

    world.services.agents._lifecycle.down = down
    world.services.agents.restart("web", ADMIN, wait_s=5)

    assert least == [[2, 3], [1, 3], [1, 2]]
    assert all(replica.started_at > before[replica.number] for replica in world.agent().replicas)


def test_a_restart_brings_those_back_that_were_down(world, eventually):
    agent = world.up(replicas=2)
    world.engine.kill(agent.id, 1)
    eventually(lambda: numbers(world) == [2])

    world.services.agents.restart("web", ADMIN, wait_s=5)

    assert serving(world) == [1, 2]


def test_a_restart_stops_at_a_replica_that_does_not_get_ready(world, monkeypatch):
    monkeypatch.setattr("agentainerd.services.agents.ROLL_TIMEOUT_S", 0.2)
    world.engine.add_image("deaf", Program())
    world.up(image="deaf", replicas=2)
    world.engine.program("deaf").listens = False

    with pytest.raises(DeadlineExceeded):
        world.services.agents.restart("web", ADMIN)

    assert serving(world) == [2]


@pytest.mark.parametrize(("verb", "undo", "state"), [("stop", "start", "stopped"), ("pause", "resume", "paused")])
def test_verbs_are_of_all_replicas(world, verb, undo, state):
    world.up(replicas=3)

    getattr(world.services.agents, verb)("web", ADMIN)
    assert (numbers(world, state), serving(world), world.state()) == ([1, 2, 3], [], state)
    getattr(world.services.agents, undo)("web", ADMIN, wait_s=5)

    assert serving(world) == [1, 2, 3]


def test_removal_takes_all_containers_and_names(world):
    agent = world.up(replicas=3)

    world.services.agents.remove("web", ADMIN)

    assert [box for box in world.engine.containers() if box.agent_id == agent.id] == []
    for name in ("web", "web-2", f"{agent.id}-3"):
        assert world.routes.find(name.encode()) is None
    world.deploy("web-2")


def test_a_daemon_that_comes_back_adopts_all(world, make_world):
    agent = world.up(replicas=3)
    world.end()

    again = make_world()
    again.wait_ready()

    assert [replica.container_id for replica in again.agent().replicas] == [
        each.container_id for each in agent.replicas
    ]


def test_an_agent_of_the_time_before_replicas_is_adopted_and_scaled(world, make_world, replicas):
    """Its container has no number in its name, and its record no replicas."""
    import msgspec

    from agentainerd.store import keys

    agent = world.up()
    world.end()
    record = msgspec.json.decode(msgspec.json.encode(agent))
    (only,) = record.pop("replicas")
    only.pop("number")
    record["spec"].pop("replicas")
    again = make_world(begin=False)
    again.redis.call("HSET", keys.AGENTS, agent.id, msgspec.json.encode({**record, **only}))
    again.begin()
    again.wait_ready()
    assert again.agent().replica(1).container_id == agent.container_id

    again.services.replicas.scale("web", 2, ADMIN, wait_s=5)

    assert boxes(again) == [f"agentainer-{agent.id}-1", f"agentainer-{agent.id}-2"]
    assert again.agent().replica(1).container_id == agent.container_id


def test_an_engine_that_goes_away_while_it_grows_starts_the_rest_when_it_is_back(world, replicas, eventually):
    world.up()
    world.engine.go_down()

    with pytest.raises(Unavailable):
        replicas.scale("web", 3, ADMIN)
    world.engine.come_back()

    eventually(lambda: world.services.state_sync.run_once(time.time()) >= 0 and numbers(world) == [1, 2, 3], limit_s=15)


def test_a_replica_that_is_due_and_was_never_made_is_made_at_the_next_look(world, eventually):
    agent = world.up(replicas=2)
    world.services.state_sync.run_once(time.time())
    world.engine.remove(agent.replica(2).container_id)
    eventually(lambda: world.agent().replica(2).container_id == "")
    due = world.agent().changed(2, should_run=True, next_restart_at=time.time() - 1)
    world.agents.put(due)

    assert world.services.state_sync.run_once(time.time()) == 1

    eventually(lambda: serving(world) == [1, 2])


def test_every_scaling_is_in_the_audit(world, replicas):
    world.up()

    replicas.scale("web", 2, ADMIN)

    assert '"action":"scale_agent"' in world.log_of("audit.log")
