"""What the end of a container means, and the words for it."""

from dataclasses import replace

import pytest

from agentainerd import defaults
from agentainerd.model.containers import ContainerSpec
from agentainerd.model.replicas import AgentState, Exit
from agentainerd.proxy.routing import Gate
from agentainerd.services.lifecycle import exit_reason, restart_delay_s
from tests.fakes.programs import Program


@pytest.fixture
def lifecycle(world):
    return world.services.state_sync._lifecycle


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (Exit(code=0), "exit 0"),
        (Exit(code=1), "exit 1"),
        (Exit(code=137), "exit 137, killed"),
        (Exit(code=139), "exit 139, segmentation fault"),
        (Exit(code=137, oom_killed=True), "exit 137, out of memory"),
        (Exit(code=127), "exit 127, command not found"),
        (Exit(code=127, error="'x' is not in the image"), "'x' is not in the image"),
        (Exit(code=1, error="not told for an ordinary exit"), "exit 1"),
    ],
)
def test_an_end_is_told_in_one_clause(end, reason):
    assert exit_reason(end) == reason


def test_the_first_restart_begins_at_once_and_each_further_one_waits_twice_as_long_up_to_a_minute():
    delays = [restart_delay_s(crashes) for crashes in (0, 1, 2, 3, 4, 7, 100, 10_000)]

    assert delays == [0.1, 0.1, 2, 4, 8, 60, 60, 60]


def test_after_a_good_run_a_restart_begins_at_once_though_it_had_crashed_before():
    assert [restart_delay_s(4, ran_s) for ran_s in (9.9, 10.0, 1000.0)] == [8, 0.1, 0.1]


def test_a_crash_with_auto_restart_waits_and_holds_requests(world, lifecycle):
    world.up(auto_restart=True)
    with world.services.state_sync._fleet.locked("web") as agent:
        agent = lifecycle.crashed(agent, 1, Exit(code=1), ran_s=3.0)
        gate = world.route().gate

    assert (agent.state, agent.crashes, agent.should_run) == (AgentState.STOPPED, 1, True)
    assert agent.next_restart_at > agent.updated_at
    assert gate is Gate.HOLDING


def test_without_it_it_stays_stopped_and_requests_are_queued(world, lifecycle):
    world.up()
    with world.services.state_sync._fleet.locked("web") as agent:
        agent = lifecycle.crashed(agent, 1, Exit(code=1))
        gate = world.route().gate

    assert (agent.state, agent.should_run, agent.next_restart_at) == (AgentState.STOPPED, False, 0.0)
    assert gate is Gate.CLOSED


def test_too_many_crashes_in_a_row_end_in_failed(world, lifecycle):
    agent = world.up(auto_restart=True)
    for _ in range(defaults.CRASH_LOOP_LIMIT):
        agent = lifecycle.crashed(agent, 1, Exit(code=3), ran_s=0.1)

    assert (agent.state, agent.should_run) == (AgentState.FAILED, False)
    assert agent.reason == "crash loop: 5 crashes in a row, the last one with exit 3"


def test_a_long_run_forgets_earlier_crashes(world, lifecycle):
    agent = world.up(auto_restart=True)
    for _ in range(defaults.CRASH_LOOP_LIMIT - 1):
        agent = lifecycle.crashed(agent, 1, Exit(code=3))

    assert lifecycle.crashed(agent, 1, Exit(code=3), ran_s=defaults.RESTART_RESET_S).crashes == 1


def test_a_program_that_exits_at_once_is_no_error_of_the_start(world, lifecycle):
    world.engine.add_image("short", Program(exits=7))
    agent = world.deploy(image="short")

    agent = lifecycle.up(agent)

    assert (agent.state, agent.last_exit.code) == (AgentState.STOPPED, 7)


def test_an_end_that_is_dated_before_the_beginning_is_the_end_of_that_run(world, lifecycle):
    agent = world.up()
    container = replace(world.engine.inspect(agent.container_id), exit_code=7, started_at=100.5, finished_at=100.4)

    agent = lifecycle.over(agent, 1, container)

    assert agent.last_exit.at == 100.5


def test_what_could_not_be_started_beside_others_is_failed_and_says_why(world, lifecycle):
    agent = world.deploy(replicas=3)
    world.engine.create(stranger(f"agentainer-{agent.id}-2"))

    agent = lifecycle.up(agent)

    assert [replica.state.value for replica in agent.replicas] == ["running", "failed", "running"]
    assert "is not this agent's" in agent.replica(2).reason
    assert agent.state is AgentState.RUNNING
    assert agent.reason.startswith("2 of 3 replicas run; replica 2 is failed")


def test_the_crash_of_one_replica_is_its_own(world, lifecycle):
    agent = world.up(replicas=2, auto_restart=True)

    agent = lifecycle.crashed(agent, 2, Exit(code=1))

    assert (agent.replica(1).crashes, agent.replica(2).crashes) == (0, 1)
    assert (agent.state, agent.crashes, world.route().gate) == (AgentState.RUNNING, 1, Gate.OPEN)


def stranger(name):
    return ContainerSpec(name=name, hostname="x", image="echo", aliases=(), labels={}, env={})
