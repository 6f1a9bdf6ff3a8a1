"""Logins are good once, sessions until their time is over, and neither for anything else than their port."""

import pytest

from agentainerd.proxy.port_access import LOGIN_S, SESSION_S, PortAccess

AGENT = "agent-0123456789abcdef"
OTHER = "agent-fedcba9876543210"


@pytest.fixture
def access():
    made = PortAccess()
    made.key = b"k" * 32
    return made


def test_a_login_opens_its_port_once(access):
    word = access.login(AGENT, "gui", 1000.0)

    assert not access.redeem(word, OTHER, "gui", 1000.0)
    assert not access.redeem(word, AGENT, "jupyter", 1000.0)
    assert access.redeem(word, AGENT, "gui", 1000.0)
    assert not access.redeem(word, AGENT, "gui", 1000.0)
    assert not access.redeem("", AGENT, "gui", 1000.0)


def test_a_login_is_over_after_its_time(access):
    word = access.login(AGENT, "gui", 1000.0)
    assert not access.redeem(word, AGENT, "gui", 1000.0 + LOGIN_S)


def test_logins_that_nobody_uses_are_bounded(access):
    first = access.login(AGENT, "gui", 1000.0)
    for _ in range(10_000):
        last = access.login(AGENT, "gui", 1000.0)
    assert not access.redeem(first, AGENT, "gui", 1000.0)
    assert access.redeem(last, AGENT, "gui", 1000.0)


def test_a_session_says_by_which_token_and_until_when(access):
    value = access.session(AGENT, "gui", b"\x01\xff", 1000.0)
    assert access.holder(value, AGENT, "gui", 1000.0) == b"\x01\xff"
    assert access.holder(value, AGENT, "gui", 999.0 + SESSION_S) == b"\x01\xff"
    assert access.holder(value, AGENT, "gui", 1000.0 + SESSION_S) is None
    assert access.holder(access.session(AGENT, "gui", b"", 1000.0), AGENT, "gui", 1000.0) == b""


def test_a_session_is_for_nothing_else_and_can_not_be_changed(access):
    value = access.session(AGENT, "gui", b"\x01", 1000.0)
    until, by, mac = value.split(b".")
    assert access.holder(value, OTHER, "gui", 1000.0) is None
    assert access.holder(value, AGENT, "jupyter", 1000.0) is None
    for wrong in (
        b"", b"..", b"a.b.c", b".".join([until, by, b""]), b".".join([b"9" + until, by, mac]), b".".join([until, b"", mac]),
        b".".join([until, by, mac[:-1] + b"\xff"]), b".".join([b"9" * 400, by, mac]), b"\xff.\xff.\xff", value + b".",
    ):  # fmt: skip
        assert access.holder(wrong, AGENT, "gui", 1000.0) is None, wrong
    access.key = b"o" * 32
    assert access.holder(value, AGENT, "gui", 1000.0) is None


def test_each_port_of_each_agent_is_shown_a_token_of_its_own(access):
    tokens = {access.token(agent, port) for agent in (AGENT, OTHER) for port in ("gui", "jupyter")}
    assert len(tokens) == 4
    assert access.token(AGENT, "gui") in tokens
