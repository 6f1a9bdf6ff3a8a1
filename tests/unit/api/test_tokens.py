"""`/token` as its handlers are."""

import pytest

from agentainerd.api.access import Door


@pytest.fixture
def client(world):
    return world.client()


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


def test_a_rotated_token_opens_and_the_old_one_does_not(client, world):
    old = client.call("GET", "/token")[1]["data"]["token"]

    new = client.call("POST", "/token/rotate")[1]["data"]["token"]

    door = world.client(Door.GATEWAY)
    assert door.call("GET", "/agents", headers=bearer(new))[0] == 200
    assert door.call("GET", "/agents", headers=bearer(old))[0] == 401
    assert client.call("GET", "/token")[1]["data"]["token"] == new


def test_neither_works_over_tcp_not_even_with_the_token(client, world):
    door, token = world.client(Door.GATEWAY), client.call("GET", "/token")[1]["data"]["token"]

    for method, path in (("GET", "/token"), ("POST", "/token/rotate")):
        status, said = door.call(method, path, headers=bearer(token))
        assert (status, said["code"]) == (403, "LOCAL_ONLY")
    assert client.call("GET", "/token")[1]["data"]["token"] == token


def test_a_configured_token_is_not_rotated(make_world):
    client = make_world(security={"default_token": "configured-token"}).client()

    assert client.call("POST", "/token/rotate")[0] == 409


def test_answers_are_not_kept_by_anybody(client):
    with client.open("/token") as answer:
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("method", "path"), [("GET", "/token?x=1"), ("POST", "/token/rotate?x=1")])
def test_parameters_are_refused(client, method, path):
    assert client.call(method, path)[0] == 400
