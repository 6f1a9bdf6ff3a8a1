"""The checker of the journal's invariants finds what it is for, on the real Redis."""

import time

import pytest

from agentainerd.model.requests import Outcome, Reason, RequestState
from tests.fakes.invariants import violations
from tests.fakes.redis import PREFIX
from tests.fakes.stores import ANSWERED

pytestmark = pytest.mark.redis


@pytest.fixture
def filled(own_store):
    """A journal with a request in every place, and a way to damage it."""
    store = own_store
    for _ in range(6):
        store.journal.accept(store.record("agent-a", body=b"b" * 10))
    answered, failed, retried, held = store.claim(4, agent_id="agent-a")
    store.journal.settle(answered, ANSWERED)
    store.journal.settle(failed, Outcome(RequestState.FAILED, Reason.ATTEMPTS, status=503))
    store.journal.retry(retried, due_at=time.time() + 100, error="busy")
    store.journal.begin(store.record("agent-a"))
    store.flush()
    assert violations(store.client.url) == []
    return store, {"completed": answered.id, "failed": failed.id, "later": retried.id, "held": held.id}


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (("HSET", "r:{held}", "state", "lost"), "is lost and in the index lease"),
        (("HSET", "r:{held}", "owner", "0"), "is held by epoch 0"),
        (("ZADD", "q:agent-a", "1", "{held}"), "is in"),
        (("ZREM", "dead:agent-a", "{failed}"), "is failed and in no index"),
        (("UNLINK", "r:{failed}"), "has no record"),
        (("HDEL", "r:{completed}", "result"), "completed without a result"),
        (("HDEL", "r:{failed}", "finished"), "failed without"),
        (("ZREM", "x", "{later}"), "without a deadline"),
        (("ZADD", "x", "1", "{held}"), "deadlines, and"),
        (("HSET", "live:agent-a", "{held}", "x"), "is in"),
        (("HINCRBY", "n:agent-a", "pending", "1"), "pending is counted as"),
        (("UNLINK", "n:agent-a"), "is not counted"),
        (("ZADD", "q:agent-b", "1", "{failed}"), "is in"),
        (("HSET", "r:{later}", "seq", "1"), ""),
    ],
)
def test_damage_is_named(filled, damage, said):
    store, ids = filled
    command, key, *rest = [each.format(**ids) for each in damage]
    if not said:  # two of one seq
        said = "share the seq"
        rest[-1] = store.client.call("HGET", f"{PREFIX}r:{ids['held']}", "seq").decode()

    store.client.call(command, PREFIX + key, *rest)

    assert any(said in each for each in violations(store.client.url)), violations(store.server.url)
    store.client.call("FLUSHALL")  # the fixture looks at it too
