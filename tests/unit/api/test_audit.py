"""`/audit` as its handlers are."""

import re
import uuid

import pytest

from agentainerd.api import (
    agentos,
    agents,
    autonomous,
    backups,
    deployments,
    images,
    replicas,
    requests,
    runs,
    scheduler,
    sessions,
    tokens,
)
from agentainerd.api.access import Door
from agentainerd.api.app import ROUTES


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def done(world, client):
    world.deploy("web")
    client.call("POST", "/agents/web/start")
    client.call("POST", "/agents/web/stop")
    client.call("POST", "/agents/web/pause")


def read(client, query: str = "") -> list[dict]:
    return client.call("GET", f"/audit{query}")[1]["data"]["entries"]


def test_entries_are_told_newest_first_with_who_and_what(client, done):
    entries = read(client)

    assert [(entry["action"], entry["result"]) for entry in entries] == [
        ("pause_agent", "AGENT_STOPPED"), ("stop_agent", "ok"), ("start_agent", "ok"), ("deploy_agent", "ok"),
    ]  # fmt: skip
    assert entries[1]["actor"] == "unix:0(root)/pid 4242"
    assert entries[1]["address"] == "unix"
    assert set(entries[0]) == {"seq", "time", "actor", "action", "resource", "result", "address", "request_id"}


def test_the_request_id_is_that_of_the_answer(client, world, done):
    response = client.open("/agents/web", method="DELETE")

    assert response.headers["X-Agentainer-Request-ID"] == read(client)[0]["request_id"] != ""


def test_over_tcp_it_is_that_of_the_data_plane(world):
    token = (world.state_dir / "token").read_text().strip()
    gateway = world.client(Door.GATEWAY)
    request_id = "5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f"
    fields = {"Authorization": f"Bearer {token}", "X-Agentainer-Request-ID": request_id}

    response = gateway.open("/agents/nobody", method="DELETE", headers=fields)

    assert response.status_code == 404
    entry = read(world.client())[0]
    assert (entry["request_id"], entry["address"], entry["result"]) == (request_id, "192.0.2.7", "AGENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("query", "actions"),
    [
        ("?action=start_agent,stop_agent", ["stop_agent", "start_agent"]),
        ("?action=start_agent&action=pause_agent", ["pause_agent", "start_agent"]),
        ("?result=failed", ["pause_agent"]),
        ("?user=tester", ["deploy_agent"]),
        ("?user=root&limit=1", ["pause_agent"]),
        ("?resource=nobody", []),
        ("?duration=1h&action=deploy_agent", ["deploy_agent"]),
        ("?until=2020-01-01T00:00:00Z", []),
        ("?since=2020-01-01T00:00:00Z&limit=1", ["pause_agent"]),
    ],
)
def test_filters(client, done, query, actions):
    assert [entry["action"] for entry in read(client, query)] == actions


def test_pages_are_joined_by_a_cursor(client, done):
    page = client.call("GET", "/audit?limit=3")[1]["data"]
    rest = client.call("GET", f"/audit?limit=3&cursor={page['next_cursor']}")[1]["data"]

    assert [entry["seq"] for entry in page["entries"] + rest["entries"]] == [4, 3, 2, 1]
    assert rest["next_cursor"] == ""


@pytest.mark.parametrize("query", ["?limit=0", "?cursor=x", "?since=yesterday", "?actor=x"])
def test_a_query_that_cannot_be_right_is_refused(client, query):
    assert client.call("GET", f"/audit{query}")[0] == 400


def test_a_log_that_is_whole_and_one_that_is_not(client, world, done):
    status, whole = client.call("GET", "/audit/verify")
    assert (status, whole["data"]["intact"], whole["data"]["last_seq"], whole["data"]["faults"]) == (200, True, 4, [])

    log = world.state_dir / "audit.log"
    log.write_bytes(log.read_bytes().replace(b"stop_agent", b"stop_ageNt"))
    _, broken = client.call("GET", "/audit/verify")

    assert broken["data"]["intact"] is False
    assert broken["data"]["faults"] == [
        {"file": "audit.log", "line": 3, "seq": 3, "reason": "this entry was changed: its seal is wrong"}
    ]


def test_reading_it_is_for_administrators(world):
    assert world.client(Door.GATEWAY).call("GET", "/audit")[0] == 401


CHANGES_NOTHING = (deployments.plan, backups.verify)
ASKED = {
    agents.deploy: {"name": "other", "image": "echo"},
    replicas.scale: {"replicas": 2},
    deployments.apply: {"deployments": [{"name": "shop", "agents": []}]},
    backups.create: {"name": "nightly"},
    tokens.create: {"name": "ci", "scopes": ["read"]},
    images.pull: {"image": "echo", "policy": "always"},
    runs.create: {"agent_id": "nobody", "input": "x"},
    scheduler.schedule: {"prompt": "x"},
    agentos.run: {"input": "x"},
    agentos.stream: {"input": "x"},
    sessions.create: {"agent_id": "web"},
    sessions.reuse: {"user_id": "u"},
    autonomous.start: {"task": "x"},
    autonomous.resume: {"newTask": "x"},
    autonomous.chat: {"message": "x"},
}
"""Bodies without which a request does not get as far as changing something."""
BRING_UP = (autonomous.start, autonomous.resume, autonomous.chat)
"""What they change first is an agent that is there."""
QUERIES = {requests.purge: {"state": "pending"}, images.build: {"tag": "made"}}
CHANGES = [
    (method, rule)
    for rule in ROUTES
    for method in sorted(rule.methods - {"GET", "HEAD", "OPTIONS"})
    if rule.endpoint not in CHANGES_NOTHING
]


@pytest.mark.parametrize(("method", "rule"), CHANGES, ids=lambda each: str(each))
def test_every_route_that_changes_something_leaves_an_entry_with_its_request(client, world, method, rule):
    world.deploy("web")
    path = re.sub("<(request|job)_id>", str(uuid.uuid4()), rule.rule)
    path = re.sub("<[^>]*>", "web" if rule.endpoint in BRING_UP else "nothing", path)
    query = QUERIES.get(rule.endpoint, {})

    with client.open(path, method=method, query_string=query, json=ASKED.get(rule.endpoint, {})) as response:
        said = response.get_data()

    entries = read(client)
    assert response.headers["X-Agentainer-Request-ID"] in {entry["request_id"] for entry in entries}, said
