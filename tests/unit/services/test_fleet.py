"""Locks, routes and targets of the agents."""

import gevent
import pytest

from agentainerd.errors import NotFound
from agentainerd.model.replicas import AgentState
from agentainerd.model.requests import ReplayPolicy
from agentainerd.proxy.routing import Gate


@pytest.fixture
def fleet(world):
    return world.services.state_sync._fleet


def container_of(world, agent):
    return world.engine.inspect(world.agents.get(agent.id).container_id)


@pytest.mark.parametrize("ref", ["", "..", "a/b", "WEB", "%00", "web\n"])
def test_what_cannot_be_a_name_is_not_asked_of_redis(world, fleet, ref, monkeypatch):
    monkeypatch.setattr(fleet.store, "find", lambda ref: pytest.fail("it was asked"))

    with pytest.raises(NotFound):
        fleet.find(ref)


def test_a_name_that_is_nearly_right_is_suggested(world, fleet):
    world.deploy("search")

    with pytest.raises(NotFound) as failure:
        fleet.find("serach")

    assert "did you mean 'search'?" in failure.value.hint


def test_a_lock_is_waited_for_and_the_agent_is_read_under_it(world, fleet, eventually):
    agent = world.deploy()
    seen = []

    def later():
        with fleet.locked("web") as found:
            seen.append(found.reason)

    with fleet.locked(agent.id) as held:
        other = gevent.spawn(later)  # noqa: TID251
        gevent.sleep(0)
        assert seen == []
        fleet.save(held.changed(reason="changed meanwhile"))
    other.join(5)

    assert seen == ["changed meanwhile"]


def test_who_waits_for_an_agent_that_is_removed_finds_none(world, fleet):
    agent = world.deploy()
    outcome = []

    def later():
        try:
            with fleet.locked(agent.id):
                outcome.append("found")
        except NotFound:
            outcome.append("none")

    with fleet.locked(agent.id):
        other = gevent.spawn(later)  # noqa: TID251
        gevent.sleep(0)
        fleet.store.remove(agent.id)
        fleet.withdraw(agent.id)
    other.join(5)

    assert outcome == ["none"]
    assert agent.id not in fleet._locks


def test_a_try_takes_the_lock_only_if_it_is_free(world, fleet):
    agent = world.deploy()
    taken = []

    def attempt():
        with fleet.tried(agent.id) as is_taken:
            taken.append(is_taken)

    with fleet.locked(agent.id):
        gevent.spawn(attempt).join(5)  # noqa: TID251
    gevent.spawn(attempt).join(5)  # noqa: TID251

    assert taken == [False, True]


def test_a_route_has_what_the_spec_says(world, fleet):
    agent = world.deploy(
        token="agents-own", ordered=True, hold_timeout_s=3, request_timeout_s=4, max_pending=5,
        max_pending_bytes=6000, persistence=False,
    )  # fmt: skip

    route = fleet.route(agent.id)

    assert (route.ordered, route.replay_concurrency, route.hold_timeout_s, route.request_timeout_s) == (True, 1, 3, 4)
    assert (route.max_pending, route.max_pending_bytes, route.persistence, len(route.token_digest)) == (
        5,
        6000,
        False,
        32,
    )
    assert route.gate is Gate.CLOSED


def test_persistence_is_off_for_all_where_the_daemon_has_none(make_world):
    world = make_world(features={"request_persistence": False})

    assert world.route(world.deploy().id).persistence is False


def test_a_run_that_is_over_retires_its_target_and_not_the_next_ones(world, fleet):
    agent = world.up()
    box = container_of(world, agent)
    target = fleet.target_of(agent.id, box)
    assert target is not None

    fleet.bury(agent.id, box.id, box.started_at - 1)  # an old event, told late
    assert not target.is_retired
    fleet.bury(agent.id, "another", box.started_at + 1)
    assert not target.is_retired
    fleet.bury(agent.id, box.id, box.started_at + 1)

    assert target.is_retired
    assert fleet.route(agent.id).gate is Gate.HOLDING
    assert fleet.target_of(agent.id, box) is None


def test_attaching_the_run_that_is_attached_changes_nothing(world, fleet):
    agent = world.up()
    box = container_of(world, agent)
    target = fleet.route(agent.id).targets[0]

    assert fleet.attach(world.agents.get(agent.id), 1, box) is None

    assert fleet.route(agent.id).targets == [target]
    assert fleet.route(agent.id).gate is Gate.OPEN


def test_a_withdrawn_agent_is_not_queued_for_any_more(world, fleet):
    agent = world.up()
    route = fleet.route(agent.id)

    fleet.withdraw(agent.id)

    assert (route.persistence, route.gate, route.targets) == (False, Gate.CLOSED, [])
    assert world.route("web") is None
    fleet.hold(agent.id)
    fleet.close(agent.id)
    fleet.detach(agent)
    fleet.reopen(agent.id)
    fleet.expect(agent.id)
    fleet.settle(agent)
    fleet.reshape(agent)
    fleet.dismiss(agent.id, 1)


def test_a_gate_that_was_closed_for_nothing_is_opened_again(world, fleet, eventually):
    agent = world.up()
    fleet.hold(agent.id)

    fleet.reopen(agent.id)

    eventually(lambda: fleet.route(agent.id).gate is Gate.OPEN)


def test_whoever_waits_for_a_change_is_told_of_a_save_and_of_a_removal(world, fleet):
    agent = world.deploy()
    for change in (
        lambda: fleet.save(world.agents.get(agent.id).changed(reason="x")),
        lambda: fleet.withdraw(agent.id),
    ):
        waiting = gevent.spawn(fleet.wait_for_change, agent.id, 30)  # noqa: TID251
        gevent.sleep(0)
        change()
        waiting.get(timeout=5)


def test_after_a_start_requests_wait_for_what_should_run(world, make_world):
    running, stopped = world.up("web"), world.deploy("idle")
    world.end()

    again = make_world(begin=False)
    again.services.state_sync.load()

    assert again.route(running.id).gate is Gate.HOLDING
    assert again.route(stopped.id).gate is Gate.CLOSED
    assert again.agents.get(running.id).state is AgentState.RUNNING


def test_a_replica_is_no_agent_and_says_whose_it_is(world, fleet):
    world.deploy("web", replicas=2)

    with pytest.raises(NotFound) as failure:
        fleet.find("web-2")

    assert "'web-2' is replica 2 of 'web'" in failure.value.message
    assert failure.value.code == "AGENT_IS_REPLICA"  # the tool does not look for a name that is nearly the same


def test_the_route_of_a_replica_queues_nothing(world, fleet):
    agent = world.up("web", replicas=2)

    part = world.routes.find(b"web-2")

    assert (part.persistence, part.policy, part.gate) == (True, ReplayPolicy.NEVER, Gate.OPEN)
    assert [target.number for target in part.targets] == [2]
    assert world.routes.find(f"{agent.id}-2".encode()) is part


def test_the_end_of_one_of_two_leaves_the_other_one_serving(world, fleet):
    agent = world.up("web", replicas=2)
    route = fleet.route(agent.id)

    fleet.detach(agent.changed(1, state=AgentState.STOPPED, should_run=False), 1)

    assert (route.gate, [target.number for target in route.serving]) == (Gate.OPEN, [2])
    fleet.detach(agent.changed(state=AgentState.STOPPED, should_run=False), 2)
    assert (route.gate, route.targets) == (Gate.CLOSED, [])


def test_the_path_of_a_replica_that_does_not_come_back_is_closed_at_once(world, fleet, eventually):
    agent = world.up("web", replicas=2)

    world.engine.kill(agent.id, 2)

    eventually(lambda: world.routes.find(b"web-2").gate is Gate.CLOSED)
    assert world.route().gate is Gate.OPEN
