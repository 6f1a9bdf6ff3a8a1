"""`/token` and `/tokens` as their handlers are."""

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


def test_neither_works_over_tcp_not_even_with_the_token(client, world, eventually):
    door, token = world.client(Door.GATEWAY), client.call("GET", "/token")[1]["data"]["token"]

    for method, path in (("GET", "/token"), ("POST", "/token/rotate")):
        status, said = door.call(method, path, headers=bearer(token))
        assert (status, said["code"]) == (403, "LOCAL_ONLY")
    eventually(lambda: '"use_token"' in world.log_of("audit.log"))
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


def make(client, **body):
    return client.call("POST", "/tokens", json={"name": "ci", "scopes": ["read"], **body})


def test_a_token_is_shown_once_and_opens_what_its_scope_says(client, world):
    status, said = make(client, scopes=["operate"])
    assert status == 201
    token = said["data"].pop("token")
    shown = client.call("GET", "/tokens/ci")[1]["data"]
    assert shown == {**said["data"], "last_used_at": None}
    assert token not in str(client.call("GET", "/tokens"))

    door = world.client(Door.GATEWAY)
    assert door.call("GET", "/agents", headers=bearer(token))[0] == 200
    assert door.call("POST", "/agents/nobody/stop", headers=bearer(token))[0] == 404
    status, said = door.call("DELETE", "/agents/nobody", headers=bearer(token))
    assert (status, said["code"]) == (403, "SCOPE_MISSING")
    assert client.call("GET", "/tokens/ci")[1]["data"]["last_used_at"]


def test_the_time_of_a_token_is_90_days_unless_it_is_said(client):
    assert make(client)[1]["data"]["expires_at"] > "2026"
    assert make(client, name="ever", expires_in_s=0)[1]["data"]["expires_at"] is None


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": []}, {"scopes": ["root"]}, {"name": "A"}, {"expires_in_s": -1}, {"expires_in_s": 1e12}, {"x": 1}, {"scopes": "read"},
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_right_is_refused(client, body):
    assert make(client, **body)[0] == 400


def test_a_rotated_token_is_good_beside_the_new_one_for_its_grace(client, world):
    old = make(client)[1]["data"]["token"]

    status, said = client.call("POST", "/tokens/ci/rotate", json={"grace_s": 60})

    assert (status, said["data"]["old_until"] is not None) == (200, True)
    door = world.client(Door.GATEWAY)
    for token in (old, said["data"]["token"]):
        assert door.call("GET", "/agents", headers=bearer(token))[0] == 200
    assert client.call("POST", "/tokens/ci/rotate", json={"grace_s": -1})[0] == 400


def test_a_revoked_token_is_refused_with_the_next_request(client, world):
    token = make(client)[1]["data"]["token"]
    door = world.client(Door.GATEWAY)
    assert door.call("GET", "/agents", headers=bearer(token))[0] == 200

    assert client.call("DELETE", "/tokens/ci")[1]["data"]["name"] == "ci"

    assert door.call("GET", "/agents", headers=bearer(token))[0] == 401
    assert client.call("GET", "/tokens/ci")[0] == 404


def test_tokens_are_managed_over_tcp_by_administrators_only(client, world):
    token = make(client, scopes=["operate"])[1]["data"]["token"]
    admin = make(client, name="boss", scopes=["admin"])[1]["data"]["token"]
    door = world.client(Door.GATEWAY)

    assert door.call("POST", "/tokens", json={"name": "x", "scopes": ["admin"]}, headers=bearer(token))[0] == 403
    assert door.call("POST", "/tokens", json={"name": "x", "scopes": ["read"]}, headers=bearer(admin))[0] == 201
