"""`/agents/{ref}/metrics` and `/metrics/agents`."""

import pytest

from agentainerd.api.access import Door


@pytest.fixture
def client(world):
    return world.client()


def test_the_metrics_of_one_and_of_all(client, world):
    agent = world.up()
    world.deploy("other")

    status, one = client.call("GET", "/agents/web/metrics")
    _, all_of_them = client.call("GET", "/metrics/agents")

    assert (status, one["message"], one["data"]["agent_id"]) == (200, "Metrics retrieved successfully", agent.id)
    assert {each["agent_name"] for each in all_of_them["data"].values()} == {"web", "other"}


def test_an_unknown_agent_is_404(client):
    status, said = client.call("GET", "/agents/nobody/metrics")

    assert (status, said["code"]) == (404, "AGENT_NOT_FOUND")


def test_over_tcp_a_token_is_needed(world):
    assert world.client(Door.GATEWAY).call("GET", "/metrics/agents")[0] == 401
