"""`/agents/{ref}/metrics` and `/metrics/agents`."""

import pytest

from agentainerd import clock
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


def test_the_history_of_one(client, world):
    agent = world.up()
    world.services.measuring.run_once(clock.now())

    status, said = client.call("GET", "/agents/web/metrics/history?duration=6h&step=1m")

    assert (status, said["message"]) == (200, "Metrics history retrieved successfully")
    assert (said["data"]["agent_id"], said["data"]["duration"], said["data"]["step"]) == (agent.id, "6h0m0s", "1m0s")
    assert len(said["data"]["metrics"]) == 1
    assert client.call("GET", "/agents/web/metrics/history")[1]["data"]["duration"] == "1h0m0s"


@pytest.mark.parametrize("query", ["duration=x", "duration=25h", "step=0", "step=100ms", "steps=1m"])
def test_a_history_that_there_can_not_be_is_400(client, world, query):
    world.deploy()

    assert client.call("GET", f"/agents/web/metrics/history?{query}")[0] == 400


def test_the_daemons_own(client):
    status, said = client.call("GET", "/metrics/daemon")

    assert status == 200
    assert said["data"]["journal"]["available"] is True


def test_over_tcp_a_token_is_needed(world):
    assert world.client(Door.GATEWAY).call("GET", "/metrics/agents")[0] == 401
