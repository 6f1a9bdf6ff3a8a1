"""Who is let in by which door."""

import pytest
from werkzeug.test import EnvironBuilder

from agentainerd.api import access
from agentainerd.api.access import AccessOptions, Door, admit
from agentainerd.api.exchange import ApiRequest
from agentainerd.errors import Forbidden, TooManyRequests, Unauthorized
from agentainerd.model.tokens import Scope
from agentainerd.proxy.origins import Origins
from agentainerd.services.audit import Actor
from agentainerd.services.tokens import MAX_FAILURES

OPTIONS = AccessOptions(Origins().judge)


def asked(path="/agents", *, peer=None, **headers) -> ApiRequest:
    fields = {
        "Host": "localhost",
        "X-Forwarded-For": "192.0.2.7",
        **{name.replace("_", "-"): v for name, v in headers.items()},
    }
    environ = EnvironBuilder(path=path, headers=fields).get_environ()
    if peer:
        environ[access.PEER] = peer
    return ApiRequest(environ)


def enter(
    request, world, door=Door.GATEWAY, options=OPTIONS, *, is_public=False, is_probe=False, needed=Scope.ADMIN
) -> ApiRequest:
    admit(request, door, world.services.tokens, options, needed=None if is_public else needed, is_probe=is_probe)
    return request


@pytest.fixture
def bearer(world):
    return "Bearer " + (world.state_dir / "token").read_text().strip()


def test_whoever_opens_the_control_socket_is_an_administrator_by_name(world):
    request = enter(asked(peer=(4242, 0, 0)), world, Door.CONTROL)

    assert (request.scope, request.is_local) == (Scope.ADMIN, True)
    assert (request.actor.name, request.actor.source) == ("unix:0(root)/pid 4242", "unix")


def test_a_user_without_a_name_is_told_by_number(world):
    assert enter(asked(peer=(1, 54321, 0)), world, Door.CONTROL).actor.name == "unix:54321(?)/pid 1"


def test_on_the_control_socket_neither_host_nor_origin_matter(world):
    enter(asked(peer=(1, 0, 0), Host="evil.example", Origin="http://evil.example"), world, Door.CONTROL)


def test_a_token_makes_an_administrator_who_is_not_local(world, bearer):
    request = enter(asked(Authorization=bearer), world)

    assert (request.scope, request.is_local, request.actor.name, request.actor.source) == (
        Scope.ADMIN,
        False,
        "token",
        "192.0.2.7",
    )


@pytest.mark.parametrize("door", [Door.GATEWAY])
def test_without_a_token_only_what_is_public_is_served_and_to_nobody(world, door):
    with pytest.raises(Unauthorized):
        enter(asked(), world, door)

    request = enter(asked(), world, door, is_public=True)
    assert (request.scope, request.actor.name) == (None, "anonymous")


def test_a_wrong_token_on_a_public_path_is_no_obstacle_and_makes_no_administrator(world):
    assert not enter(asked(Authorization="Bearer wrong"), world, is_public=True).may(Scope.READ)


def test_a_right_token_on_a_public_path_makes_an_administrator(world, bearer):
    assert enter(asked(Authorization=bearer), world, is_public=True).may(Scope.ADMIN)


def test_a_strange_name_is_refused_before_the_token_is_looked_at(world):
    for _ in range(3 * MAX_FAILURES):
        with pytest.raises(Forbidden) as failure:
            enter(asked(Host="evil.example", Authorization="Bearer wrong"), world)
        assert failure.value.code == "HOST_NOT_ALLOWED"
        assert "server.allowed_hosts" in (failure.value.hint or "")

    with pytest.raises(Unauthorized):  # and not TooManyRequests: nothing was guessed
        enter(asked(Authorization="Bearer wrong"), world)


def test_probes_are_asked_under_any_name(world):
    enter(asked("/livez", Host="10.0.0.1.nip.io"), world, is_public=True, is_probe=True)


def test_until_it_is_told_otherwise_no_name_is_ours(world, bearer):
    with pytest.raises(Forbidden):
        enter(asked(Authorization=bearer), world, options=AccessOptions())


def test_one_source_that_is_wrong_too_often_is_slowed_down_and_the_right_token_is_not(world, bearer):
    refusals = []
    for number in range(2 * MAX_FAILURES):
        with pytest.raises((Unauthorized, TooManyRequests)) as failure:
            enter(asked(Authorization=f"Bearer wrong-{number}"), world)
        refusals.append(type(failure.value))
        assert enter(asked(Authorization=bearer), world).may(Scope.ADMIN)  # from the same source

    assert refusals[: MAX_FAILURES - 1] == [Unauthorized] * (MAX_FAILURES - 1)
    assert set(refusals[MAX_FAILURES:]) == {TooManyRequests}
    with pytest.raises(Unauthorized):
        enter(asked(Authorization="Bearer wrong", X_Forwarded_For="192.0.2.8"), world)


@pytest.mark.parametrize(
    ("chain", "source"),
    [
        ("198.51.100.9", "198.51.100.9"),
        ("198.51.100.9, 127.0.0.1", "198.51.100.9"),  # 127.0.0.1 is a proxy that is trusted
        ("6.6.6.6, 198.51.100.9, 127.0.0.1", "198.51.100.9"),  # what the client says of itself is not believed
        ("", "unknown"),
    ],
)
def test_the_source_is_the_last_that_somebody_trusted_saw(world, bearer, chain, source):
    assert enter(asked(Authorization=bearer, X_Forwarded_For=chain), world).actor.source == source


def test_a_token_in_the_query_is_taken_only_where_that_is_allowed(world, bearer):
    path = "/agents?token=" + bearer.removeprefix("Bearer ")
    with pytest.raises(Unauthorized):
        enter(asked(path), world)

    assert enter(asked(path), world, options=AccessOptions(Origins().judge, allow_query_token=True)).may(Scope.ADMIN)


@pytest.mark.parametrize(
    ("have", "need", "is_let_in"), [("read", "read", True), ("operate", "admin", False), ("agent:web", "read", False)]
)
def test_a_named_token_is_let_in_where_its_scope_is_enough(world, have, need, is_let_in, eventually):
    _, token = world.services.named_tokens.create(Actor("tester"), "ci", [have], 0.0)
    request = asked("/agents", Authorization=f"Bearer {token}")

    if is_let_in:
        assert enter(request, world, needed=Scope(need)).actor.name == "token:ci"
        return
    with pytest.raises(Forbidden) as failure:
        enter(request, world, needed=Scope(need))
    assert failure.value.code == "SCOPE_MISSING"
    eventually(lambda: '"token:ci"' in world.log_of("audit.log"))


def test_a_named_token_on_a_public_route_says_who_asks(world):
    _, token = world.services.named_tokens.create(Actor("tester"), "ci", ["read"], 0.0)

    request = enter(asked(Authorization=f"Bearer {token}"), world, is_public=True)

    assert (request.actor.name, request.may(Scope.READ), request.may(Scope.OPERATE)) == ("token:ci", True, False)


OPEN = AccessOptions(Origins().judge, open_prefixes=("/api/v1", "/api/agents"))


@pytest.mark.parametrize("path", ["/api/v1", "/api/v1/agents", "/api/agents/web/start"])
@pytest.mark.parametrize("source", ["127.0.0.1", "127.8.8.8", "::1"])
def test_open_paths_need_no_token_on_this_machine(world, path, source):
    request = enter(asked(path, X_Forwarded_For=source), world, options=OPEN, needed=Scope.OPERATE)

    assert (request.scope, request.actor.name, request.actor.source) == (Scope.OPERATE, "anonymous", source)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/agents", {"X_Forwarded_For": "127.0.0.1"}),
        ("/api/v1x", {"X_Forwarded_For": "127.0.0.1"}),
        ("/api/v2/agents", {"X_Forwarded_For": "127.0.0.1"}),
        ("/api/v1/agents", {"X_Forwarded_For": "172.18.0.5"}),
        ("/api/v1/agents", {"X_Forwarded_For": "203.0.113.5, 127.0.0.1"}),
        ("/api/v1/agents", {"X_Forwarded_For": "127.0.0.1, 127.0.0.1"}),
        ("/api/v1/agents", {"X_Forwarded_For": "unknown"}),
        ("/api/v1/agents", {"X_Forwarded_For": ""}),
    ],
)
def test_other_paths_and_other_machines_do(world, path, fields):
    with pytest.raises(Unauthorized):
        enter(asked(path, **fields), world, options=OPEN)


@pytest.mark.parametrize(
    "fields",
    [
        {"Sec_Fetch_Site": "same-origin"},
        {"Origin": "http://localhost:8081"},
        {"Origin": "http://127.0.0.1:8081"},
        {"Origin": "http://web.localhost:8081"},
    ],
)
def test_pages_that_agents_serve_do_not_come_in_by_open_paths(world, fields):
    asked_for = {"Host": "localhost:8081", "X_Forwarded_For": "127.0.0.1", **fields}
    with pytest.raises(Unauthorized):
        enter(asked("/api/v1/agents", **asked_for), world, options=OPEN)


@pytest.mark.parametrize(
    "fields", [{"Origin": "http://localhost:3000"}, {"Sec_Fetch_Site": "same-site", "Origin": "http://localhost"}]
)
def test_pages_of_other_programs_of_this_machine_do(world, fields):
    asked_for = {"Host": "localhost:8081", "X_Forwarded_For": "127.0.0.1", **fields}

    assert enter(asked("/api/v1/agents", **asked_for), world, options=OPEN, needed=Scope.READ).scope is Scope.READ


def test_a_wrong_token_is_wrong_on_an_open_path_too(world):
    with pytest.raises(Unauthorized):
        enter(asked("/api/v1/agents", X_Forwarded_For="127.0.0.1", Authorization="Bearer nope"), world, options=OPEN)


@pytest.mark.parametrize(
    ("fields", "code"),
    [({"Origin": "https://evil.example"}, "ORIGIN_NOT_ALLOWED"), ({"Host": "evil.example"}, "HOST_NOT_ALLOWED")],
)
def test_pages_of_other_sites_do_not_come_in_by_open_paths(world, fields, code):
    with pytest.raises(Forbidden) as caught:
        enter(asked("/api/v1/agents", X_Forwarded_For="127.0.0.1", **fields), world, options=OPEN)

    assert caught.value.code == code
