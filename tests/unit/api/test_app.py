"""The API as a client meets it, over WSGI: who is let in, what is refused, and in which words."""

import json

import pytest
from werkzeug.test import Client

from agentainerd.api.access import AccessOptions, Door
from agentainerd.api.app import App
from agentainerd.proxy.origins import Names, Origins

JUDGE = Origins(Names(hosts=("agents.example",))).judge
PEER = {"agentainer.peer": (4242, 0, 0)}


@pytest.fixture
def control(world):
    return Client(App(world.services, door=Door.CONTROL))


@pytest.fixture
def gateway(world):
    return Client(App(world.services, door=Door.GATEWAY, options=AccessOptions(judge=JUDGE)))


@pytest.fixture
def token(world):
    return (world.state_dir / "token").read_text().strip()


def ask(client, path, method="GET", **options):
    headers = {"Host": "localhost:8081", "X-Forwarded-For": "10.0.0.9", **options.pop("headers", {})}
    answer = client.open(path, method=method, headers=headers, environ_overrides=PEER, **options)
    return answer.status_code, answer.get_json(silent=True), answer.headers


def test_the_control_socket_needs_no_token(control):
    assert ask(control, "/agents")[0] == 200


@pytest.mark.parametrize("value", ["Bearer {}", "bearer {}", "BEARER   {}", "{}"])
def test_over_tcp_the_token_opens(gateway, token, value):
    assert ask(gateway, "/agents", headers={"Authorization": value.format(token)})[0] == 200


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"Authorization": "Bearer nope"}]
)
def test_over_tcp_nothing_else_does(gateway, headers):
    status, said, fields = ask(gateway, "/agents", headers=headers)

    assert (status, said["success"], said["code"]) == (401, False, "UNAUTHORIZED")
    assert "Bearer" in fields["WWW-Authenticate"]


def test_a_token_in_the_address_is_not_taken_unless_allowed(world, gateway, token):
    assert ask(gateway, f"/agents?token={token}")[0] == 401

    open_door = Client(App(world.services, door=Door.GATEWAY, options=AccessOptions(JUDGE, allow_query_token=True)))
    assert ask(open_door, f"/version?token={token}")[0] == 200


def test_wrong_tokens_are_slowed_down_and_the_right_one_never(gateway, token):
    statuses = [ask(gateway, "/agents", headers={"Authorization": f"Bearer wrong{n}"})[0] for n in range(15)]

    assert set(statuses) == {401, 429}
    assert statuses[0] == 401
    assert ask(gateway, "/agents", headers={"Authorization": f"Bearer {token}"})[0] == 200


@pytest.mark.parametrize("path", ["/health", "/livez"])
def test_health_is_public(gateway, path):
    assert ask(gateway, path)[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "", "agentainer"])
def test_a_strange_host_is_refused(gateway, token, host):
    status, said, _ = ask(gateway, "/agents", headers={"Host": host, "Authorization": f"Bearer {token}"})

    assert (status, said["code"]) == (403, "HOST_NOT_ALLOWED")


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1:8081", "[::1]:8081", "host.docker.internal:8081", "agents.example"]
)
def test_our_own_hosts_are_taken(gateway, token, host):
    assert ask(gateway, "/agents", headers={"Host": host, "Authorization": f"Bearer {token}"})[0] == 200


def test_pages_of_other_sites_are_refused(gateway, token):
    headers = {"Authorization": f"Bearer {token}", "Origin": "https://evil.example"}
    status, said, fields = ask(gateway, "/agents", headers=headers)

    assert (status, said["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert "Access-Control-Allow-Origin" not in fields


def test_the_token_is_told_over_the_unix_socket_only(control, gateway, token):
    assert ask(gateway, "/token", headers={"Authorization": f"Bearer {token}"})[0] == 403
    assert ask(gateway, "/token/rotate", "POST", headers={"Authorization": f"Bearer {token}"})[0] == 403
    assert ask(control, "/token")[1]["data"]["token"] == token


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"name": "web", "ima', 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b'{"name": "web"}', 400),
        (b'{"name": 7, "image": "echo"}', 400),
        (b'{"name": "web", "image": "echo", "nmae": 1}', 400),
        (b'{"name": "web", "image": "echo", "max_pending": -1}', 400),
        (b'{"name": "web", "image": "echo", "cpu_limit": "1"}', 400),
        (b'{"name": "a/b", "image": "echo"}', 400),
        (b'{"name": "web", "image": "echo", "volumes": [{"host_path": "/", "container_path": "/x"}]}', 400),
        (b'{"a":' * 100 + b"1" + b"}" * 100, 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
    ],
)
def test_a_body_that_is_wrong_is_a_clear_error(control, world, body, status):
    got, said, _ = ask(control, "/agents", "POST", data=body, content_type="application/json")

    assert got == status
    assert said["code"].isupper()
    assert said["message"]
    assert "Traceback" not in json.dumps(said)
    assert world.agents.all() == []


def test_an_unknown_field_is_named(control):
    body = {"name": "web", "image": "echo", "nmae": 1}

    assert "nmae" in ask(control, "/agents", "POST", json=body)[1]["message"]


def test_a_giant_body_is_413_and_not_read(control):
    body = b'{"name": "' + b"x" * 20_000_000 + b'"}'

    assert ask(control, "/agents", "POST", data=body, content_type="application/json")[0] == 413


def test_what_is_not_json_is_415(control):
    assert ask(control, "/agents", "POST", data=b"name=web", content_type="application/x-www-form-urlencoded")[0] == 415


def test_an_unknown_path_is_404_and_a_wrong_method_405(control):
    status, said, _ = ask(control, "/nothing/here")
    assert (status, said["code"]) == (404, "ROUTE_NOT_FOUND")

    status, said, fields = ask(control, "/agents", "PATCH")
    assert status == 405
    assert {"GET", "POST"} <= set(fields["Allow"].replace(" ", "").split(","))


@pytest.mark.parametrize("ref", ["nobody", "..", "%2e%2e", "a%2fb", "x" * 300, "%00", "web;x"])
def test_an_unknown_agent_is_404_on_every_route(control, ref):
    for method, path in (
        ("GET", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"), ("POST", "/restart"), ("POST", "/pause"),
        ("POST", "/resume"), ("GET", "/logs"), ("GET", "/requests"),
    ):  # fmt: skip
        status, said, _ = ask(control, f"/agents/{ref}{path}", method)
        assert status in (404, 405), (method, path)
        assert said["success"] is False


def test_a_bug_tells_nothing_of_the_inside(control, world, monkeypatch):
    def broken():
        raise RuntimeError("secret inside")

    monkeypatch.setattr(type(world.services.system), "info", lambda self: broken())

    status, said, _ = ask(control, "/system/info")

    assert (status, said["code"]) == (500, "INTERNAL")
    assert "secret" not in json.dumps(said)


def test_a_ticket_opens_its_own_request_only(gateway, world):
    agent = world.deploy()
    record = world.record(agent, "/x")
    world.journal.accept(record)
    ticket = world.services.tokens.ticket(record.id)

    assert ask(gateway, f"/requests/{record.id}?t={ticket}")[1]["data"]["status"] == "pending"
    assert ask(gateway, f"/requests/{record.id}?t={ticket[:-1]}x")[0] == 404
    assert ask(gateway, f"/requests/{record.id}")[0] in (400, 404)
    assert ask(gateway, f"/requests/{record.id}/response?t={ticket}")[0] == 409
    assert ask(gateway, f"/requests/{record.id}?t={ticket}", "DELETE")[0] == 200
    assert ask(gateway, f"/requests/{record.id}?t={ticket}")[1]["data"]["status"] == "failed"


def test_the_life_of_an_agent(control):
    status, said, _ = ask(control, "/agents", "POST", json={"name": "web", "image": "echo"})
    assert (status, said["message"]) == (201, "Agent deployed successfully")
    assert ask(control, "/agents", "POST", json={"name": "web", "image": "echo"})[0] == 409
    assert ask(control, "/agents/web/start?wait=5", "POST")[1]["data"]["ready"] is True
    assert ask(control, "/agents/web/resume", "POST")[0] == 409
    assert ask(control, "/agents/web/pause", "POST")[1]["data"]["status"] == "paused"
    assert ask(control, "/agents/web/restart", "POST")[0] == 409
    assert ask(control, "/agents/web/resume?wait=5", "POST")[1]["data"]["status"] == "running"
    assert ask(control, "/agents/web/stop", "POST")[1]["data"]["status"] == "stopped"
    assert ask(control, "/agents/web", "DELETE")[0] == 200
    assert ask(control, "/agents/web")[0] == 404


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=100000", "status=odd", "unknown=1"])
def test_queries_that_are_wrong_are_told(control, query):
    assert ask(control, f"/agents?{query}")[0] == 400
