"""Named tokens: made once, kept as digests, rotated with grace, revoked at once."""

import hashlib
import time

import msgspec
import pytest

from agentainerd.errors import Conflict, Forbidden, InvalidParameter, NotFound, Unauthorized, Unavailable
from agentainerd.model.tokens import Scope, new_token
from agentainerd.services import named_tokens as module
from agentainerd.services.tokens import MAX_FAILURES
from tests.fakes.world import ADMIN

HERE = "192.0.2.1"


@pytest.fixture
def named(world):
    return world.services.named_tokens


@pytest.fixture
def verify(world):
    return lambda token: world.services.tokens.verify(token, HERE)


def in_redis(world) -> bytes:
    return b"".join(world.redis.call("HVALS", "agentainer:tokens"))


def age(named, name: str, **fields) -> None:
    """Change what is kept of a token, as time would."""
    token = named.get(name)
    named._put(msgspec.structs.replace(token, **fields))


def test_a_token_opens_with_its_name_and_scope(named, verify):
    made, token = named.create(ADMIN, "ci", ["operate"], 3600.0)

    caller = verify(token)

    assert (caller.name, caller.level) == ("token:ci", Scope.OPERATE)
    assert made.expires_at == pytest.approx(time.time() + 3600, abs=5)


def test_only_a_digest_is_kept(world, named):
    _, token = named.create(ADMIN, "ci", ["read"], 0.0)

    kept = in_redis(world) + world.log_of("audit.log").encode()
    assert b'"ci"' in kept
    assert token.encode() not in kept
    assert token.split("_")[2].encode() not in kept


def test_tokens_are_there_after_a_restart(make_world, named, world):
    _, token = named.create(ADMIN, "ci", ["read"], 0.0)

    again = make_world()

    assert again.services.tokens.verify(token, HERE).name == "token:ci"
    assert [each.name for each in again.services.named_tokens.all()] == ["ci"]


def test_a_secret_of_another_token_does_not_open(named, verify):
    made, _ = named.create(ADMIN, "ci", ["read"], 0.0)

    with pytest.raises(Unauthorized):
        verify(new_token(made.id))
    with pytest.raises(Unauthorized):
        verify(new_token("x" * 8))


def test_names_are_unique_and_ids_are_names_too(named):
    made, _ = named.create(ADMIN, "ci", ["read"], 0.0)

    with pytest.raises(Conflict) as failure:
        named.create(ADMIN, "ci", ["admin"], 0.0)
    assert failure.value.code == "TOKEN_NAME_TAKEN"
    assert named.get(made.id).name == "ci"


@pytest.mark.parametrize(("name", "scopes"), [("CI", ["read"]), ("ci", []), ("ci", ["root"])])
def test_what_cannot_be_right_is_refused(named, name, scopes):
    with pytest.raises(InvalidParameter):
        named.create(ADMIN, name, scopes, 0.0)
    assert named.all() == []


def test_there_are_not_endlessly_many(named, monkeypatch):
    monkeypatch.setattr(module, "MAX_TOKENS", 2)
    for name in ("a", "b"):
        named.create(ADMIN, name, ["read"], 0.0)

    with pytest.raises(Conflict) as failure:
        named.create(ADMIN, "c", ["read"], 0.0)
    assert failure.value.code == "TOO_MANY_TOKENS"


def test_a_revoked_token_is_refused_at_once(world, named, verify):
    _, token = named.create(ADMIN, "ci", ["read"], 0.0)

    named.revoke(ADMIN, "ci")

    with pytest.raises(Unauthorized):
        verify(token)
    assert in_redis(world) == b""
    with pytest.raises(NotFound) as failure:
        named.revoke(ADMIN, "ci")
    assert failure.value.code == "TOKEN_NOT_FOUND"


def test_it_is_refused_even_where_it_cannot_be_forgotten_and_that_can_be_done_later(named, verify, monkeypatch):
    _, token = named.create(ADMIN, "ci", ["read"], 0.0)
    monkeypatch.setattr(named._store, "remove", lambda _: (_ for _ in ()).throw(Unavailable("Redis is away")))

    with pytest.raises(Unavailable) as failure:
        named.revoke(ADMIN, "ci")

    assert failure.value.code == "TOKEN_NOT_FORGOTTEN"
    with pytest.raises(Unauthorized):
        verify(token)
    monkeypatch.undo()
    named.revoke(ADMIN, "ci")
    assert named.all() == []


def test_a_token_that_cannot_be_stored_is_not_made(named, monkeypatch):
    monkeypatch.setattr(named._store, "put", lambda _: (_ for _ in ()).throw(Unavailable("Redis is away")))

    with pytest.raises(Unavailable):
        named.create(ADMIN, "ci", ["read"], 0.0)

    assert named.all() == []


def test_after_a_rotation_the_old_one_is_good_for_its_grace_only(named, verify):
    _, old = named.create(ADMIN, "ci", ["read"], 3600.0)

    made, new = named.rotate(ADMIN, "ci", 600.0)

    assert verify(old).name == verify(new).name == "token:ci"
    assert made.old_until == pytest.approx(time.time() + 600, abs=5)
    age(named, "ci", old_until=time.time() - 1)
    verify(new)
    with pytest.raises(Unauthorized):
        verify(old)


def test_without_grace_it_is_refused_at_once_and_its_time_begins_anew(named, verify):
    _, old = named.create(ADMIN, "ci", ["read"], 3600.0)
    age(named, "ci", created_at=time.time() - 3000, expires_at=time.time() + 600)

    made, new = named.rotate(ADMIN, "ci", 0.0)

    assert made.expires_at == pytest.approx(time.time() + 3600, abs=5)
    verify(new)
    with pytest.raises(Unauthorized):
        verify(old)


def test_one_that_expired_is_told_so_and_is_good_again_after_a_rotation(named, verify, world, eventually):
    _, old = named.create(ADMIN, "ci", ["read"], 3600.0)
    age(named, "ci", created_at=time.time() - 7200, expires_at=time.time() - 3600)

    with pytest.raises(Unauthorized) as failure:
        verify(old)
    assert failure.value.code == "TOKEN_EXPIRED"
    eventually(lambda: '"expired"' in world.log_of("audit.log"))

    _, new = named.rotate(ADMIN, "ci", 3600.0)
    verify(new)
    with pytest.raises(Unauthorized):
        verify(old)  # it was over already: no grace brings it back


def test_an_expired_token_is_no_guess_and_a_right_one_is_never_slowed_down(named, verify):
    _, expired = named.create(ADMIN, "old", ["read"], 3600.0)
    _, good = named.create(ADMIN, "ci", ["read"], 3600.0)
    age(named, "old", expires_at=1.0)
    for _ in range(3 * MAX_FAILURES):
        with pytest.raises(Unauthorized):
            verify(expired)
        verify(good)


def test_the_last_use_is_known_at_once_and_kept_to_the_minute(world, named, verify):
    _, token = named.create(ADMIN, "ci", ["read"], 0.0)
    assert named.get("ci").used_at == 0.0

    verify(token)

    used_at = named.get("ci").used_at
    assert used_at == pytest.approx(time.time(), abs=5)
    assert named.flush(used_at + 1) == 1
    verify(token)
    assert named.flush(time.time()) == 0
    assert named._store.all()[0].used_at == used_at


def test_what_is_over_is_forgotten(named):
    named.create(ADMIN, "ci", ["read"], 0.0)
    named.rotate(ADMIN, "ci", 600.0)

    assert named.flush(time.time()) == 0
    assert named.flush(time.time() + 601) == 1
    assert named.get("ci").old_digest == ""


def test_no_agent_ever_sees_a_named_token(world, named):
    def is_known(token: str) -> bool:
        return hashlib.sha256(token.encode()).digest() in world.routes.control_token_digests

    _, old = named.create(ADMIN, "ci", ["read"], 0.0)
    _, new = named.rotate(ADMIN, "ci", 600.0)
    assert is_known(old) and is_known(new)

    named.revoke(ADMIN, "ci")

    assert not is_known(old) and not is_known(new)
    assert len(world.routes.control_token_digests) == 1


def test_the_data_plane_knows_which_agents_a_token_is_for_and_until_when(world, named):
    def passes(token: str):
        return world.routes.agent_passes.get(hashlib.sha256(token.encode()).digest())

    _, reader = named.create(ADMIN, "reader", ["read"], 0.0)
    _, old = named.create(ADMIN, "app", ["agent:web", "agent:api"], 3600.0)
    _, new = named.rotate(ADMIN, "app", 60.0)
    app = named.get("app")

    assert passes(reader) is None
    assert (passes(new).agents, passes(new).until) == (frozenset({"web", "api"}), app.expires_at)
    assert passes(old).until == app.old_until
    named.revoke(ADMIN, "app")
    assert world.routes.agent_passes == {}


def test_guesses_at_an_agents_token_are_audited_and_slowed_down(world, eventually):
    waits = [world.routes.on_token_refused("192.0.2.9", "web", True) for _ in range(MAX_FAILURES + 1)]

    assert waits[0] == 0 and waits[-1] > 0
    assert world.routes.on_token_refused("192.0.2.9", "web", False) == 0  # none at all is no guess
    eventually(lambda: '"use_agent"' in world.log_of("audit.log"))


def test_a_token_that_opened_an_agents_path_was_used(world, named):
    made, _ = named.create(ADMIN, "app", ["agent:web"], 0.0)

    world.routes.on_token_used(made.id)

    assert named.get("app").used_at == pytest.approx(time.time(), abs=5)


def test_every_change_is_in_the_audit_log(world, named):
    named.create(ADMIN, "ci", ["read", "agent:web"], 0.0)
    named.rotate(ADMIN, "ci", 0.0)
    named.revoke(ADMIN, "ci")

    lines = [msgspec.json.decode(line) for line in world.log_of("audit.log").splitlines()]
    assert [(line["action"], line["resource"]) for line in lines] == [
        ("create_token", "ci (agent:web, read)"), ("rotate_token", "ci"), ("revoke_token", "ci"),
    ]  # fmt: skip


def test_a_scope_that_is_missing_is_refused_and_audited(world, eventually):
    tokens = world.services.tokens

    with pytest.raises(Forbidden) as failure:
        tokens.refuse_scope(ADMIN, "POST /agents", Scope.READ, Scope.ADMIN)

    assert failure.value.code == "SCOPE_MISSING"
    assert "this needs the scope admin; tester has the scope read" in failure.value.message
    eventually(lambda: '"use_token"' in world.log_of("audit.log"))
