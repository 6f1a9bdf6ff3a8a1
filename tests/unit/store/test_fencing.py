"""A daemon whose journal was taken over: nothing that it still wants to write happens, whatever it is."""

import time

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.agents import Agent, AgentSpec
from agentainerd.model.requests import Reason, RequestState
from agentainerd.model.tokens import NamedToken
from agentainerd.store.agents import AgentStore
from agentainerd.store.connection import RedisClient
from agentainerd.store.requests import RequestStore
from agentainerd.store.tokens import TokenStore
from tests.fakes.redis import PREFIX
from tests.fakes.stores import AGENT, ANSWERED, COMPLETED

pytestmark = pytest.mark.redis


TOKEN = NamedToken(id="a", name="a", scopes=("read",), digest="d", created_at=1.0)


def agent(name="web"):
    return Agent(
        id=f"agent-{name:0>16}",
        spec=AgentSpec(name=name, image="python:3.12", port=8000),
        created_at=100.0,
        updated_at=100.0,
    )


@pytest.fixture
def taken_over(store):
    """The store of a daemon that did not notice yet that the next one began: pending, delayed, claimed, live, dead."""
    AgentStore(store.client).create(agent())
    store.pending, store.claimed_one, store.dead = store.accept(), store.accept(), store.accept(key="dead")
    claimed = {record.id: record for record in store.claim()}
    store.journal.give_back(claimed[store.pending.id])
    store.claimed = claimed[store.claimed_one.id]
    store.journal.give_back(claimed[store.dead.id])
    store.flush()
    store.requests.cancel(AGENT, store.dead.id)
    store.live = store.begin()
    store.client.call("INCR", f"{PREFIX}epoch")
    store.client.call("DEL", f"{PREFIX}batch")
    return store


def content(client):
    """Everything in Redis."""
    keys = sorted(client.call("KEYS", "*"))
    return dict(zip(keys, client.calls([("DUMP", key) for key in keys]), strict=True))


WRITES = {
    "begin": lambda store: store.journal.begin(store.record()).wait(),
    "reserve": lambda store: store.journal.reserve(store.record(key="new")),
    "accept": lambda store: store.accept(),
    "accept of a live one": lambda store: store.journal.accept(store.live),
    "claim": lambda store: store.claim(),
    "settle of a live one": lambda store: store.settle(store.live, COMPLETED),
    "settle of a claimed one": lambda store: store.settle(store.claimed, ANSWERED),
    "renew": lambda store: (store.journal.renew([store.claimed], 100.0), store.flush()),
    "retry": lambda store: (store.journal.retry(store.claimed, due_at=0.0, error=""), store.flush()),
    "give back": lambda store: (store.journal.give_back(store.claimed), store.flush()),
    "named tokens": lambda store: TokenStore(store.client).put([TOKEN]),
    "revocation": lambda store: TokenStore(store.client).remove("a"),
    "cancel": lambda store: store.requests.cancel(AGENT, store.pending.id),
    "requeue": lambda store: store.requests.requeue(AGENT, store.dead.id),
    "discard": lambda store: store.requests.discard(AGENT, store.dead.id),
    "purge": lambda store: store.requests.purge(AGENT, state=RequestState.FAILED),
    "sweep": lambda store: store.requests.sweep(time.time() + 10**6),
    "forget": lambda store: store.requests.forget_agent(AGENT),
    "create an agent": lambda store: AgentStore(store.client).create(agent("other")),
    "put an agent": lambda store: AgentStore(store.client).put(agent()),
    "remove an agent": lambda store: AgentStore(store.client).remove(agent().id),
}


@pytest.mark.parametrize("write", WRITES)
def test_nothing_is_written_after_a_takeover(taken_over, write):
    before = content(taken_over.client)

    with pytest.raises(Unavailable) as error:
        WRITES[write](taken_over)

    assert error.value.code == "JOURNAL_FENCED"
    assert content(taken_over.client) == before


@pytest.mark.parametrize("write", ["begin", "accept", "claim", "renew", "settle of a live one"])
def test_writing_to_a_journal_that_was_taken_over_ends_the_daemon_once(taken_over, write, eventually):
    for _ in range(2):
        with pytest.raises(Unavailable):
            WRITES[write](taken_over)

    eventually(lambda: taken_over.fenced, what="on_fenced")
    assert taken_over.fenced == [True]
    assert not taken_over.journal.available


def test_reading_goes_on_after_a_takeover(taken_over):
    assert taken_over.requests.counts(AGENT).pending == 1
    assert [one.name for one in AgentStore(taken_over.client).all()] == ["web"]
    assert taken_over.requests.due(time.time()) == [AGENT]


def test_next_daemon_settles_what_the_one_before_held_and_writes(taken_over):
    stale = taken_over.journal
    client = RedisClient(taken_over.server.url)
    taken_over.client, sleeping = client, taken_over.client
    taken_over.requests = RequestStore(client, taken_over.spool)
    taken_over.journal = taken_over.open()
    try:
        assert (taken_over.recovered.interrupted, taken_over.recovered.retried) == (1, 1)
        assert taken_over.state(taken_over.live) == (RequestState.FAILED, Reason.INTERRUPTED)
        stale.renew([taken_over.claimed], 10**6)
        stale.settle(taken_over.claimed, ANSWERED)
        taken_over.requests.cancel(AGENT, taken_over.pending.id)
        taken_over.requests.sweep(time.time())
        assert taken_over.state(taken_over.claimed) == (RequestState.PENDING, Reason.RETRY_WAIT)
        with pytest.raises(Unavailable):
            RequestStore(sleeping, taken_over.spool).cancel(AGENT, taken_over.claimed.id)
    finally:
        sleeping.close()
