"""`/agents` as its handlers are: what they read from a request, and what they say."""

import json

import pytest

from tests.fakes.world import ADMIN


@pytest.fixture
def client(world):
    return world.client()


def test_deploy_says_201_and_masks(client, world):
    body = {"name": "web", "image": "echo", "env_vars": {"API_KEY": "sesame"}, "token": "agents-own"}

    status, said = client.call("POST", "/agents", json=body)

    assert (status, said["message"]) == (201, "Agent deployed successfully")
    assert "sesame" not in json.dumps(said) and "agents-own" not in json.dumps(said)
    assert said["data"]["id"] == world.agent().id


@pytest.mark.parametrize(
    ("fields", "port"),
    [
        ({"ports": [{"container_port": 9000, "host_port": 80}]}, 9000),
        ({"port": 1, "ports": [{"container_port": 9000}]}, 1),
    ],
)
def test_the_originals_ports_mean_the_containers_side(client, fields, port):
    assert client.call("POST", "/agents", json={"name": "web", "image": "echo", **fields})[1]["data"]["port"] == port


def test_lists_are_filtered_by_status_name_and_labels_and_paged(client, world):
    for name, team in (("one", "a"), ("two", "b"), ("three", "a")):
        world.deploy(name, labels={"team": team})
    world.services.agents.start("one", ADMIN)

    def names(query):
        return [agent["name"] for agent in client.call("GET", f"/agents?{query}")[1]["data"]]

    assert names("label=team=a") == ["one", "three"]
    assert names("status=running") == ["one"]
    assert names("status=running,created&name=two") == ["two"]
    status, said = client.call("GET", "/agents?limit=2")
    assert len(said["data"]) == 2
    assert [agent["name"] for agent in client.call("GET", f"/agents?cursor={said['next_cursor']}")[1]["data"]] == [
        "three"
    ]


@pytest.mark.parametrize("query", ["status=odd", "label=team", "limit=0", "unknown=1", "status=running&status=created"])
def test_a_query_that_is_wrong_is_400(client, query):
    assert client.call("GET", f"/agents?{query}")[0] == 400


@pytest.mark.parametrize(
    ("verb", "query"),
    [("start", "wait=x"), ("start", "wait=2h"), ("stop", "grace=-1"), ("restart", "x=1"), ("pause", "wait=1")],
)
def test_parameters_of_the_verbs_are_checked(client, world, verb, query):
    world.deploy()

    assert client.call("POST", f"/agents/web/{verb}?{query}")[0] == 400


def test_removing_says_what_was_removed(client, world):
    agent = world.deploy()

    assert client.call("DELETE", "/agents/web?force=true")[1] == {
        "success": True, "message": f"Agent 'web' (ID: {agent.id}) removed successfully",
        "data": {"agent_id": agent.id, "agent_name": "web"},
    }  # fmt: skip


def test_logs_are_text_or_lines_of_json(client, world):
    agent = world.up()
    world.engine.say(agent.id, "hello")

    with client.open("/agents/web/logs?tail=1") as text:
        assert (text.mimetype, text.get_data()) == ("text/plain", b"hello\n")
    with client.open("/agents/web/logs?tail=1", headers={"Accept": "application/x-ndjson"}) as lines:
        assert json.loads(lines.get_data().strip()) == {"stream": "stdout", "data": "hello\n"}


@pytest.mark.parametrize(
    "query", ["tail=-1", "tail=x", "since=yesterday", "since=2026-13-01T00:00:00Z", "stream=both", "follow=perhaps"]
)
def test_what_is_asked_of_a_log_is_checked(client, world, query):
    world.up()

    assert client.call("GET", f"/agents/web/logs?{query}")[0] == 400
