"""`/agents/{ref}/scale`."""

import pytest


@pytest.fixture
def client(world):
    return world.client()


def test_a_running_agent_is_scaled_and_shown(client, world):
    world.up()

    status, said = client.call("POST", "/agents/web/scale?wait=5", json={"replicas": 3})

    assert (status, said["message"], said["data"]["replicas"]) == (200, "Agent scaled successfully", 3)
    assert [(one["replica"], one["status"], one["ready"]) for one in said["data"]["containers"]] == [
        (number, "running", True) for number in (1, 2, 3)
    ]
    assert said["data"]["containers"][1]["name"] == f"agentainer-{said['data']['id']}-2"


@pytest.mark.parametrize("body", [{}, {"replicas": "3"}, {"replicas": 3, "x": 1}, {"replicas": 0}, {"replicas": 1000}])
def test_what_is_no_number_of_replicas_is_400(client, world, body):
    world.up()

    assert client.call("POST", "/agents/web/scale", json=body)[0] == 400
    assert world.agent().spec.replicas == 1


def test_an_unknown_agent_is_404(client, world):
    assert client.call("POST", "/agents/nobody/scale", json={"replicas": 2})[0] == 404


def test_agents_are_deployed_with_replicas(client, world):
    status, said = client.call("POST", "/agents", json={"name": "web", "image": "echo", "replicas": 2})

    assert (status, said["data"]["replicas"], len(said["data"]["containers"])) == (201, 2, 2)


def test_logs_of_all_replicas_say_whose_they_are(client, world):
    agent = world.up(replicas=2)
    world.engine.say(agent.id, "from two", replica=2)

    with client.get("/agents/web/logs", headers={"Accept": "application/x-ndjson"}) as response:
        assert b'"data":"from two\\n","replica":2' in response.get_data()
    with client.get("/agents/web/logs?replica=1") as response:
        assert b"from two" not in response.get_data()
