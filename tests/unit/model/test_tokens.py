"""Named tokens: how they are written and what they may do."""

import re

import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.model.tokens import (
    NamedToken,
    Scope,
    check_name,
    check_scopes,
    digest_of,
    id_of,
    new_id,
    new_secret,
    new_token,
)


def named(**fields) -> NamedToken:
    return NamedToken(
        **{"id": "a" * 8, "name": "ci", "scopes": ("read",), "digest": "d", "created_at": 100.0, **fields}
    )


def test_a_token_is_written_so_that_scanners_find_it_and_the_daemon_its_record():
    token = new_token("abcd1234")

    assert re.fullmatch(r"agt_abcd1234_[0-9A-Za-z]{43}_[0-9A-Za-z]{6}", token)
    assert id_of(token) == "abcd1234"


def test_tokens_are_random():
    assert len({new_token("a" * 8) for _ in range(200)}) == 200
    assert len({new_id() for _ in range(200)}) == 200
    assert len({new_secret() for _ in range(200)}) == 200


def test_every_typing_mistake_is_seen():
    token = new_token("abcd1234")
    for place in range(len(token)):
        assert id_of(token[:place] + ("x" if token[place] != "x" else "y") + token[place + 1 :]) == ""
        assert id_of(token[:place] + token[place + 1 :]) == ""


@pytest.mark.parametrize(
    "text", ["", "agt_", "agt_" + "0" * 43, "x" * 8000, "agt_abcd1234__", "\udcff", "agt_ébcd1234_x_y"]
)
def test_what_is_none_of_ours_has_no_id(text):
    assert id_of(text) == ""
    assert len(digest_of(text)) == 64


@pytest.mark.parametrize(
    ("have", "need", "is_enough"),
    [
        ("read", "read", True), ("read", "operate", False), ("read", "admin", False),
        ("operate", "read", True), ("operate", "operate", True), ("operate", "admin", False),
        ("admin", "read", True), ("admin", "operate", True), ("admin", "admin", True),
    ],
)  # fmt: skip
def test_a_scope_includes_those_below_it(have, need, is_enough):
    assert Scope(have).covers(Scope(need)) is is_enough


def test_a_token_has_a_level_and_agents():
    token = named(scopes=("agent:web", "agent:api", "operate", "read"))

    assert (token.level, token.agents) == (Scope.OPERATE, ("web", "api"))
    assert named(scopes=("agent:web",)).level is None
    assert named().agents == ()


def test_a_token_expires_to_the_moment_or_never():
    assert not named(expires_at=200.0).is_expired(199.9)
    assert named(expires_at=200.0).is_expired(200.0)
    assert not named().is_expired(1e12)


def test_the_old_one_is_good_until_its_grace_is_over():
    token = named(digest="new", old_digest="old", old_until=200.0)

    assert token.digests(199.9) == ("new", "old")
    assert token.digests(200.0) == ("new",)


def test_scopes_are_each_there_once_and_in_order():
    assert check_scopes(["read", "agent:web", "read"]) == ("agent:web", "read")


@pytest.mark.parametrize(
    "scopes",
    [
        [],
        [""],
        ["write"],
        ["Read"],
        ["agent:"],
        ["agent:*"],
        ["agent:-x"],
        ["agent:a/b"],
        [f"agent:a{n}" for n in range(33)],
    ],
)
def test_what_is_no_scope_is_refused(scopes):
    with pytest.raises(InvalidParameter):
        check_scopes(scopes)


@pytest.mark.parametrize("name", ["", "CI", "-x", "a b", "a/b", "x" * 64, "ünï", "a\n"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidParameter):
        check_name(name)


def test_names():
    assert check_name("ci.deploy_2-x") == "ci.deploy_2-x"
