"""`/events` as its handler is."""

import json

import pytest

from agentainerd.model.events import EventFilter
from tests.fakes.world import ADMIN


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def told(world, eventually):
    """Wait until an action was told of."""
    return lambda *actions: eventually(
        lambda: set(actions) <= {event.action.value for event in world.services.events.last(100, EventFilter())}
    )


def test_the_life_of_an_agent(client, world, told):
    world.up()
    world.services.agents.pause("web", ADMIN)
    world.services.agents.resume("web", ADMIN)
    world.services.agents.stop("web", ADMIN)
    world.services.agents.remove("web", ADMIN)
    told("remove")

    events = client.call("GET", "/events?agent=web")[1]["data"]

    actions = [event["action"] for event in events]
    assert actions[:3] == ["create", "start", "ready"]
    assert [action for action in actions[3:] if action != "ready"] == ["pause", "unpause", "stop", "remove"]
    assert events[0]["details"] == {"image": "echo"}
    assert {event["agent"] for event in events} == {"web"}


def test_queued_requests_that_were_delivered_are_told_once(client, world, told):
    agent = world.deploy()
    for number in range(3):
        world.queue(agent, f"/{number}")
    world.services.agents.start("web", ADMIN, wait_s=5)
    told("replay")

    [event] = client.call("GET", "/events?action=replay")[1]["data"]

    assert event["details"] == {"delivered": 3, "failed": 0}


def test_a_list_is_narrowed_and_goes_on_from_an_id(client, world, told):
    world.up()
    told("ready")

    [created] = client.call("GET", "/events?action=create")[1]["data"]
    after = client.call("GET", f"/events?since={created['id']}&limit=1")[1]["data"]

    assert [event["action"] for event in after] == ["start"]
    assert client.call("GET", "/events?since=1h&action=create,ready")[1]["data"][0] == created
    assert client.call("GET", "/events?agent=nobody")[1]["data"] == []


@pytest.mark.parametrize(
    ("accept", "lead", "read"),
    [
        ("text/event-stream", b"id: ", lambda text: json.loads(text.split(b"data: ")[1])),
        ("application/x-ndjson", b"{", json.loads),
    ],
)
def test_streams(world, told, accept, lead, read):
    world.up()
    told("ready")
    answered = world.client().get("/events?follow=true&since=1h", headers={"Accept": accept}, buffered=False)

    first = next(piece for piece in answered.iter_encoded() if piece.startswith(lead) and b"create" in piece)

    assert answered.mimetype == accept
    assert read(first)["action"] == "create"
    answered.close()


def test_a_stream_goes_on_from_the_last_event_that_was_seen(world, told):
    world.up()
    told("ready")
    [created] = world.client().call("GET", "/events?action=create")[1]["data"]
    answered = world.client().get(
        "/events", headers={"Accept": "text/event-stream", "Last-Event-ID": created["id"]}, buffered=False
    )

    first = next(piece for piece in answered.iter_encoded() if piece.startswith(b"id: "))

    assert b"event: start\n" in first
    answered.close()


@pytest.mark.parametrize(
    ("path", "headers"),
    [("/events?action=explode", {}), ("/events?since=yesterday", {}), ("/events", {"Last-Event-ID": "x"})],
)
def test_what_can_never_be_right_is_400(client, path, headers):
    assert client.call("GET", path, headers=headers)[0] == 400
