"""What the end of a container means, and the words for it."""

import msgspec
import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, DeadlineExceeded, Failed
from agentainerd.model.agents import AgentState, Exit
from agentainerd.proxy.routing import Gate
from agentainerd.services.lifecycle import exit_reason, restart_delay_s, start_error
from tests.fakes.programs import Program
from tests.fakes.world import ADMIN


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


def test_a_crash_with_auto_restart_waits_and_holds_requests(world, lifecycle):
    world.up(auto_restart=True)
    with world.services.state_sync._fleet.locked("web") as agent:
        agent = lifecycle.crashed(agent, Exit(code=1), ran_s=3.0)
        gate = world.route().gate

    assert (agent.state, agent.crashes, agent.should_run) == (AgentState.STOPPED, 1, True)
    assert agent.next_restart_at > agent.updated_at
    assert gate is Gate.HOLDING


def test_without_it_it_stays_stopped_and_requests_are_queued(world, lifecycle):
    world.up()
    with world.services.state_sync._fleet.locked("web") as agent:
        agent = lifecycle.crashed(agent, Exit(code=1))
        gate = world.route().gate

    assert (agent.state, agent.should_run, agent.next_restart_at) == (AgentState.STOPPED, False, 0.0)
    assert gate is Gate.CLOSED


def test_too_many_crashes_in_a_row_end_in_failed(world, lifecycle):
    agent = world.up(auto_restart=True)
    for _ in range(defaults.CRASH_LOOP_LIMIT):
        agent = lifecycle.crashed(agent, Exit(code=3), ran_s=0.1)

    assert (agent.state, agent.should_run) == (AgentState.FAILED, False)
    assert agent.reason == "crash loop: 5 crashes in a row, the last one with exit 3"


def test_a_long_run_forgets_earlier_crashes(world, lifecycle):
    agent = world.up(auto_restart=True)
    for _ in range(defaults.CRASH_LOOP_LIMIT - 1):
        agent = lifecycle.crashed(agent, Exit(code=3))

    assert lifecycle.crashed(agent, Exit(code=3), ran_s=defaults.RESTART_RESET_S).crashes == 1


def test_the_last_lines_are_kept_and_cut(world, lifecycle):
    agent = world.up()
    for number in range(defaults.CRASH_LOG_LINES + 5):
        world.engine.say(agent.id, f"line {number} " + "x" * 2000)

    lines = lifecycle.last_lines(world.agent().container_id)

    assert len(lines) == defaults.CRASH_LOG_LINES
    assert lines[-1].startswith(f"line {defaults.CRASH_LOG_LINES + 4} ")
    assert max(map(len, lines)) == 1000


def test_an_engine_that_tells_no_log_costs_only_the_log(world, lifecycle):
    agent = world.up()
    world.engine.go_down()

    assert lifecycle.last_lines(agent.container_id) == ()


def test_a_start_that_failed_is_told_with_the_log_and_the_exit_code(world):
    agent = world.up()
    crashed = msgspec.structs.replace(
        agent,
        state=AgentState.STOPPED,
        last_exit=Exit(code=137, oom_killed=True, at=agent.started_at + 2, log=("a", "b")),
    )

    error = start_error(crashed, started_at=agent.started_at, waited_s=5)

    assert isinstance(error, Failed)
    assert "was killed: out of memory" in error.message and "2.0 s after start" in error.message
    assert error.details == {"exit_code": 137, "oom_killed": True, "log": ["a", "b"]}


def test_one_that_listens_elsewhere_is_told_where(world):
    agent = world.up()

    error = start_error(agent, started_at=agent.started_at, waited_s=5, exposed=(9000,))

    assert isinstance(error, DeadlineExceeded)
    assert f"nothing answers on port {agent.port} after 5 s (EXPOSE says 9000)" in error.message


def test_one_that_somebody_stopped_meanwhile_is_a_conflict(world):
    agent = world.up()
    world.services.agents.stop("web", ADMIN)

    assert isinstance(start_error(world.agent(), started_at=agent.started_at, waited_s=5), Conflict)


def test_a_program_that_exits_at_once_is_no_error_of_the_start(world, lifecycle):
    world.engine.add_image("short", Program(exits=7))
    agent = world.deploy(image="short")

    agent = lifecycle.up(agent)

    assert (agent.state, agent.last_exit.code) == (AgentState.STOPPED, 7)
