"""The containers of replicas on the engine."""

import pytest

from agentainerd import defaults
from tests.fakes.world import ADMIN


@pytest.fixture
def containers(world):
    return world.services.state_sync._containers


def test_the_last_lines_are_kept_and_cut(world, containers):
    agent = world.up()
    for number in range(defaults.CRASH_LOG_LINES + 5):
        world.engine.say(agent.id, f"line {number} " + "x" * 2000)

    lines = containers.last_lines(world.agent().container_id)

    assert len(lines) == defaults.CRASH_LOG_LINES
    assert lines[-1].startswith(f"line {defaults.CRASH_LOG_LINES + 4} ")
    assert max(map(len, lines)) == 1000


def test_an_engine_that_tells_no_log_costs_only_the_log(world, containers):
    agent = world.up()
    world.engine.go_down()

    assert containers.last_lines(agent.container_id) == ()


def test_a_container_that_no_record_knows_is_found_by_its_name(world, containers):
    agent = world.up(replicas=2)
    ids = {replica.number: replica.container_id for replica in agent.replicas}

    found = containers.find(agent.changed(container_id=""))

    assert {number: container.id for number, container in found.items()} == ids


def test_containers_are_called_by_id_and_number_and_know_which_they_are(world, containers):
    agent = world.up(replicas=2)

    found = containers.find(agent)

    assert found[2].name == f"agentainer-{agent.id}-2"
    assert found[2].labels["agentainer.replica"] == "2"
    assert world.engine._boxes[found[2].id].spec.env["AGENT_REPLICA"] == "2"
    assert world.engine._boxes[found[2].id].spec.aliases == (agent.id, "web")


def test_the_container_of_an_agent_that_never_had_two_has_no_number(world, containers):
    agent = world.up()

    (container,) = containers.find(agent).values()

    assert container.name == f"agentainer-{agent.id}"
    world.services.agents.stop("web", ADMIN)
