"""Named tokens in Redis."""

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.tokens import NamedToken
from agentainerd.store.tokens import TokenStore

pytestmark = pytest.mark.redis


def named(token_id: str, at: float = 100.0, **fields) -> NamedToken:
    return NamedToken(id=token_id, name=token_id, scopes=("read", "agent:web"), digest="d", created_at=at, **fields)


@pytest.fixture
def tokens(store):
    return TokenStore(store.client)


def test_tokens_come_back_as_they_were_oldest_first(tokens):
    late, early = named("late", 200.0, expires_at=300.0, old_digest="o", old_until=5.0), named("early")

    tokens.put([late, early])

    assert tokens.all() == [early, late]


def test_one_is_overwritten_and_one_is_removed(tokens):
    tokens.put([named("a"), named("b")])
    tokens.put([named("a", used_at=7.0)])
    tokens.remove("b")
    tokens.remove("never")
    tokens.put([])

    assert tokens.all() == [named("a", used_at=7.0)]


def test_a_daemon_whose_journal_was_taken_over_changes_none(tokens, store):
    tokens.put([named("a")])
    store.client.call("INCR", "agentainer:epoch")

    for change in (lambda: tokens.put([named("b")]), lambda: tokens.remove("a")):
        with pytest.raises(Unavailable) as failure:
            change()
        assert failure.value.code == "JOURNAL_FENCED"
    assert tokens.all() == [named("a")]
