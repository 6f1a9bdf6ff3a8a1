"""The health of agents as it is shown."""

import pytest

from agentainerd.errors import NotFound
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN

CHECK = {"endpoint": "/health", "interval": "100ms", "retries": 1}


@pytest.fixture
def program(world):
    made = Program(http(lambda request, run: Answer(500 if run.env["AGENT_REPLICA"] == made.sick else 200)))
    made.sick = ""
    world.engine.add_image("patient", made)
    return made


def test_an_agent_without_a_check_has_no_health(world):
    world.up()

    with pytest.raises(NotFound) as failure:
        world.services.health.get("web")

    assert failure.value.code == "HEALTH_NOT_FOUND"
    assert "No health data for agent" in failure.value.message
    assert world.services.health.all() == {}


def test_a_healthy_one_has_its_last_result(world, program):
    agent = world.up(image="patient", health_check=CHECK)

    report = world.services.health.get("web")

    assert (report["agent_id"], report["status"], report["healthy"]) == (agent.id, "healthy", True)
    assert (report["failure_count"], report["status_code"], report["message"]) == (0, 200, "")
    assert report["last_check"] and report["latency_ms"] > 0
    assert report["check"]["endpoint"] == "/health"
    assert world.services.health.all() == {agent.id: world.services.health.get(agent.id)}


def test_of_several_the_one_that_is_worst_off_is_shown_and_each_beside_it(world, program, eventually):
    world.up(image="patient", replicas=2, health_check=CHECK)

    program.sick = "2"

    eventually(lambda: world.services.health.get("web")["status"] == "unhealthy")
    report = world.services.health.get("web")
    assert (report["healthy"], report["status_code"], report["message"]) == (False, 500, "GET /health answered 500")
    assert [(each["replica"], each["status"]) for each in report["replicas"]] == [(1, "healthy"), (2, "unhealthy")]


def test_one_that_does_not_run_says_so(world, program):
    world.up(image="patient", health_check=CHECK)
    world.services.agents.stop("web", ADMIN)

    report = world.services.health.get("web")

    assert (report["status"], report["healthy"], report["message"], report["last_check"]) == (
        "none",
        False,
        "agent is stopped",
        None,
    )
    assert report["replicas"][0]["message"] == "it is stopped"
