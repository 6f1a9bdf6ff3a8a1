"""Requests as their handlers are: for administrators, and for those who hold a ticket."""

import pytest

from agentainerd.api.access import Door
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN

UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def client(world):
    return world.client()


@pytest.fixture
def public(world):
    return world.client(Door.GATEWAY)


def ticket(world, request_id):
    return world.services.tokens.ticket(request_id)


def test_a_list_a_detail_a_cancel_and_a_purge(client, world):
    agent = world.deploy()
    one, two = world.queue(agent, "/one"), world.queue(agent, "/two")

    assert [line["id"] for line in client.call("GET", "/agents/web/requests")[1]["data"]["requests"]] == [one, two]
    assert client.call("GET", f"/agents/web/requests/{one}")[1]["data"]["path"] == "/agent/web/one"
    assert client.call("DELETE", f"/agents/web/requests/{one}")[1]["data"] == {"request_id": one}
    assert client.call("DELETE", "/agents/web/requests?state=pending")[1]["data"] == {"removed": 1}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/agents/web/requests?state=odd", 400),
        ("GET", "/agents/web/requests?limit=x", 400),
        ("GET", "/agents/web/requests?cursor=x", 400),
        ("DELETE", "/agents/web/requests", 400),
        ("DELETE", "/agents/web/requests?state=completed", 400),
        ("GET", "/agents/web/requests/nope", 404),
        ("GET", f"/agents/web/requests/{UNKNOWN}", 404),
        ("GET", f"/agents/web/requests/{UNKNOWN.upper()}x", 404),
        ("DELETE", f"/agents/web/requests/{UNKNOWN}", 404),
        ("POST", f"/agents/web/requests/{UNKNOWN}/replay", 404),
        ("POST", f"/agents/web/requests/{UNKNOWN}/replay?wait=1h", 400),
        ("GET", "/agents/nobody/requests", 404),
    ],
)
def test_what_is_wrong_is_told(client, world, method, path, status):
    world.deploy()

    assert client.call(method, path)[0] == status


def test_a_replay_says_what_became_of_it(client, world):
    agent = world.deploy()
    request_id = world.queue(agent)

    status, said = client.call("POST", f"/agents/web/requests/{request_id}/replay?wait=0")
    assert (status, said["data"]["status"]) == (202, "pending")
    assert "when the agent starts" in said["message"]

    client.call("DELETE", f"/agents/web/requests/{request_id}")
    world.services.agents.start("web", ADMIN, wait_s=5)
    status, said = client.call("POST", f"/agents/web/requests/{request_id}/replay?wait=5")
    assert (status, said["message"], said["data"]["status_code"]) == (200, "Request replayed successfully", 200)


def test_the_holder_of_a_ticket_sees_state_and_answer_and_nobody_else_does(public, world):
    answer = Answer(
        201, b"<made>", (("Content-Type", "text/html"), ("Set-Cookie", "s=1"), ("X-Own", "1"), ("Alt-Svc", "x"))
    )
    world.engine.add_image("made", Program(http(lambda request, run: answer)))
    agent = world.deploy(image="made")
    request_id = world.queue(agent)
    t = ticket(world, request_id)

    status, said = public.call("GET", f"/requests/{request_id}?t={t}")
    assert (status, said["data"]["status"]) == (200, "pending")
    assert public.open(f"/requests/{request_id}?t={t}").headers["Retry-After"] == "2"
    assert public.call("GET", f"/requests/{request_id}/response?t={t}")[0] == 409
    for wrong in ("", "?t=", f"?t={t[:-1]}x", f"?t={ticket(world, UNKNOWN)}"):
        for path in (f"/requests/{request_id}", f"/requests/{request_id}/response"):
            assert public.call("GET", path + wrong)[0] == 404
    assert public.call("GET", f"/requests/{UNKNOWN}?t={ticket(world, UNKNOWN)}")[0] == 404

    world.services.agents.start("web", ADMIN, wait_s=5)
    world.wait_request(request_id, "completed")
    with public.open(f"/requests/{request_id}/response?t={t}") as stored:
        assert (stored.status_code, stored.get_data(), stored.headers["X-Own"]) == (201, b"<made>", "1")
        assert stored.headers["X-Content-Type-Options"] == "nosniff"
        assert not {"Set-Cookie", "Alt-Svc"} & set(stored.headers.keys())


def test_the_holder_of_a_ticket_cancels_what_waits(public, world):
    request_id = world.queue(world.deploy())

    assert public.call("DELETE", f"/requests/{request_id}")[0] == 404
    assert public.call("DELETE", f"/requests/{request_id}?t={ticket(world, request_id)}")[0] == 200
    assert world.summary(request_id).reason == "cancelled"


def test_an_administrator_needs_no_ticket(client, world):
    request_id = world.queue(world.deploy())

    assert client.call("GET", f"/requests/{request_id}")[0] == 200
