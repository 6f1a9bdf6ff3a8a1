"""`/agents/{ref}/health` and `/health/agents`."""

import pytest

from agentainerd.api.access import Door


@pytest.fixture
def client(world):
    return world.client()


def test_the_health_of_one_and_of_all(client, world):
    agent = world.up(health_check={"endpoint": "tcp", "interval": "10s"})
    world.deploy("other")

    status, said = client.call("GET", "/agents/web/health")
    assert (status, said["message"], said["data"]["healthy"]) == (200, "Agent health status", True)
    status, said = client.call("GET", "/health/agents")
    assert (status, said["message"], list(said["data"])) == (200, "All agent health statuses", [agent.id])
    shown = client.call("GET", "/agents/web")[1]["data"]
    assert (shown["health"], shown["containers"][0]["health"]) == ("healthy", "healthy")
    assert shown["health_check"]["interval"] == "10s"


def test_one_that_is_not_asked_and_one_that_is_not_there_are_404(client, world):
    world.deploy()

    assert client.call("GET", "/agents/web/health")[1]["code"] == "HEALTH_NOT_FOUND"
    assert client.call("GET", "/agents/nobody/health")[1]["code"] == "AGENT_NOT_FOUND"


def test_a_token_is_asked_for_over_tcp(world):
    client = world.client(Door.GATEWAY)

    assert client.call("GET", "/health/agents")[0] == 401


@pytest.mark.parametrize(
    "check", [{"endpoint": "x"}, {"retries": "3"}, {"nonsense": 1}, {"interval": 30}, {"interval": "never"}]
)
def test_a_check_that_cannot_be_is_400(client, check):
    status, said = client.call("POST", "/agents", json={"name": "web", "image": "echo", "health_check": check})

    assert status == 400, said
