"""Why an agent is not ready, in words, with the evidence."""

from agentainerd.errors import Conflict, DeadlineExceeded, Failed
from agentainerd.model.replicas import AgentState, Exit
from agentainerd.services.starting import start_error
from tests.fakes.world import ADMIN


def test_a_start_that_failed_is_told_with_the_log_and_the_exit_code(world):
    agent = world.up()
    crashed = agent.changed(
        state=AgentState.STOPPED,
        last_exit=Exit(code=137, oom_killed=True, at=agent.started_at + 2, log=("a", "b")),
    )

    error = start_error(crashed, crashed.replica(1), started_at=agent.started_at, waited_s=5)

    assert isinstance(error, Failed)
    assert "was killed: out of memory" in error.message and "2.0 s after start" in error.message
    assert error.details == {"exit_code": 137, "oom_killed": True, "log": ["a", "b"]}


def test_one_that_listens_elsewhere_is_told_where(world):
    agent = world.up()

    error = start_error(agent, agent.replica(1), started_at=agent.started_at, waited_s=5, exposed=(9000,))

    assert isinstance(error, DeadlineExceeded)
    assert f"nothing answers on port {agent.port} after 5 s (EXPOSE says 9000)" in error.message


def test_one_that_somebody_stopped_meanwhile_is_a_conflict(world):
    agent = world.up()
    world.services.agents.stop("web", ADMIN)

    assert isinstance(
        start_error(world.agent(), world.agent().replica(1), started_at=agent.started_at, waited_s=5), Conflict
    )
