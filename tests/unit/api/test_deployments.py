"""`/deployments` over both doors: shapes, statuses, progress."""

import json

import pytest

from agentainerd.api.access import Door
from tests.fakes.programs import Program


@pytest.fixture
def client(world):
    return world.client()


def wish(*agents, **fields):
    return {"deployments": [{"name": "shop", "agents": [{"image": "echo", **agent} for agent in agents]}], **fields}


def applied(client, body):
    with client.open("/deployments/apply", method="POST", json=body) as response:
        assert response.status_code == 200, response.get_data()
        assert response.mimetype == "application/x-ndjson"
        return [json.loads(line) for line in response.get_data().splitlines() if line]


def test_a_plan_says_what_will_be_done(client):
    status, body = client.call(
        "POST", "/deployments/plan", json=wish({"name": "web", "dependencies": ["db"]}, {"name": "db"})
    )

    assert (status, body["data"]["stray"]) == (200, [])
    assert body["data"]["steps"][1] == {
        "agent": "web",
        "deployment": "shop",
        "action": "create",
        "image": "echo",
        "changes": [],
        "dependencies": ["db"],
        "starts": True,
        "stops_first": False,
        "lacks_image": False,
    }


def test_an_apply_tells_plan_progress_and_result(client):
    lines = applied(client, wish({"name": "web"}))

    assert [next(iter(line)) for line in lines] == ["plan", "progress", "progress", "progress", "result"]
    assert [line["progress"]["stage"] for line in lines[1:4]] == ["doing", "starting", "done"]
    result = lines[-1]["result"]
    assert result["success"] is True
    assert result["agents"][0]["id"].startswith("agent-")
    del result["agents"][0]["id"]
    assert result["agents"] == [{"agent": "web", "image": "echo", "action": "create", "stage": "done", "message": ""}]


def test_changes_are_told_with_what_they_take(client):
    applied(client, wish({"name": "web", "env_vars": {"A": "1"}}))

    _, body = client.call(
        "POST", "/deployments/plan", json=wish({"name": "web", "env_vars": {"B": "2"}, "volumes": [], "replicas": 2})
    )

    assert body["data"]["steps"][0]["action"] == "replace"
    assert body["data"]["steps"][0]["changes"] == [
        {"field": "env_vars.A", "before": "1", "after": None, "needs": "container"},
        {"field": "env_vars.B", "before": None, "after": "2", "needs": "container"},
        {"field": "replicas", "before": 1, "after": 2, "needs": "replicas"},
    ]


def test_a_failure_is_in_the_result_with_its_evidence(client, world):
    world.engine.add_image("broken", Program(exits=3, prints=("no model",)))

    result = applied(client, wish({"name": "web", "image": "broken"}))[-1]["result"]

    assert result["success"] is False
    error = result["agents"][0]["error"]
    assert (error["code"], error["details"]["exit_code"]) == ("AGENT_EXITED", 3)
    assert error["details"]["log"] == ["no model"]


def test_a_list_and_an_export(client):
    applied(client, wish({"name": "web", "env_vars": {"API_KEY": "sesame"}}))

    _, listed = client.call("GET", "/deployments")
    _, exported = client.call("GET", "/deployments/shop/export")

    assert [(one["name"], one["agents"]) for one in listed["data"]] == [("shop", ["web"])]
    [web] = exported["data"]["agents"]
    assert (web["env_vars"], web["secrets"]) == ({"API_KEY": "***"}, ["API_KEY"])
    assert client.call("GET", "/deployments/nothing/export")[0] == 404


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "deployments"),
        ({"deployments": []}, 400, "deployments"),
        ({"deployments": [{"name": "shop", "agents": []}]}, 400, "agents"),
        ({"deployments": [{"name": "Shop!", "agents": [{"name": "a", "image": "echo"}]}]}, 400, "deployment"),
        (wish({"name": "web"}, {"name": "web"}), 400, "agents"),
        (wish({"name": "web", "replicas": 2}, {"name": "web-2"}), 400, "replicas"),
        (wish({"name": "web", "memroy": 1}), 400, "deployments[0].agents[0].memroy"),
        (wish({"name": "web", "replicas": 65}), 400, "web.replicas"),
        (wish({"name": "web"}, timeout_s=-1), 400, "timeout_s"),
    ],
)
def test_what_can_never_be_is_refused_with_its_field(client, body, status, field):
    for path in ("/deployments/plan", "/deployments/apply"):
        found, answer = client.call("POST", path, json=body)
        assert (found, answer["details"]["field"]) == (status, field)


def test_over_tcp_a_token_is_needed(world):
    for method, path in (("GET", "/deployments"), ("POST", "/deployments/plan"), ("POST", "/deployments/apply")):
        assert world.client(Door.GATEWAY).call(method, path)[0] == 401
