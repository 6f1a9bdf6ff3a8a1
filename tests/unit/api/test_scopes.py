"""What each route asks of its caller: every one says it, and says no more and no less."""

import re

import pytest

from agentainerd.api.access import Door
from agentainerd.api.app import ROUTES
from agentainerd.api.scopes import LOCAL, PROBES, PUBLIC, SCOPES, needed
from agentainerd.model.tokens import Scope
from tests.fakes.world import ADMIN

HANDLERS = {rule.endpoint for rule in ROUTES}
REQUESTS = [
    (method, re.sub("<[^>]*>", "nothing", rule.rule), rule.endpoint)
    for rule in ROUTES
    for method in sorted(rule.methods - {"HEAD", "OPTIONS"})
]


def test_every_route_declares_what_it_needs_and_nothing_else_is_declared():
    assert set(SCOPES) | PUBLIC | LOCAL == HANDLERS
    assert not set(SCOPES) & (PUBLIC | LOCAL)
    assert PROBES <= PUBLIC


def test_a_route_that_nobody_thought_of_is_for_administrators():
    assert needed(lambda request, services: None) is Scope.ADMIN


@pytest.mark.parametrize(("method", "path", "handler"), REQUESTS)
def test_who_may_only_read_changes_nothing(method, path, handler):
    if handler in SCOPES and method != "GET":
        assert SCOPES[handler] is not Scope.READ


@pytest.fixture
def tokens(world):
    made = world.services.named_tokens
    return {scope: made.create(ADMIN, scope.replace(":", "-"), [scope], 0.0)[1] for scope in (*Scope, "agent:web")}


def test_each_route_lets_those_in_that_it_says(world, tokens):
    """Every route with a token of each kind: 403 SCOPE_MISSING where it is not enough, anything else where it is."""
    door = world.client(Door.GATEWAY)
    wrong = []
    for method, path, handler in REQUESTS:
        if handler in PUBLIC or handler in LOCAL:
            continue
        for have, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            with door.open(f"{path}?none=1", method=method, headers=headers, data="{") as answer:
                is_refused = answer.status_code == 403 and b"SCOPE_MISSING" in answer.get_data()
            may = have in tuple(Scope) and Scope(have).covers(SCOPES[handler])
            if is_refused is may or answer.status_code == 401:
                wrong.append((method, path, have, answer.status_code))

    assert wrong == []


def test_without_a_token_only_what_is_public_answers(world):
    door = world.client(Door.GATEWAY)
    for method, path, handler in REQUESTS:
        with door.open(path, method=method) as answer:
            assert (answer.status_code == 401) == (handler not in PUBLIC), path
