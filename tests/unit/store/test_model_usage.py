"""What models used, in Redis: added once, kept while Redis is away, refused to who has lost the journal."""

import gevent
import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.model_usage import Usage
from agentainerd.services.model_usage import ModelUsageService
from agentainerd.store.connection import RedisClient
from agentainerd.store.model_usage import ModelUsageStore, Spent

pytestmark = pytest.mark.redis
DAY = "2026-11-21"
CALL = Usage(1, 0, 100, 10, 5, 2, cost_nano=123_456_789)
AGENT = "agent-0123456789abcdef"


@pytest.fixture
def client(flushed_redis):
    made = RedisClient(flushed_redis.url)
    yield made
    made.close()


def test_a_batch_is_added_once_however_often_it_is_sent(client):
    store = ModelUsageStore(client)
    spent = [
        Spent(DAY, AGENT, "p/a", CALL, "run-1", "s-1"),
        Spent(DAY, AGENT, "p/a", CALL),
        Spent(DAY, AGENT, "p/b", CALL),
    ]

    store.add("1:1", spent)
    store.add("1:1", spent)

    assert store.days([DAY, "2026-11-20"]) == [
        Spent(DAY, AGENT, "p/a", CALL.plus(CALL)), Spent(DAY, AGENT, "p/b", CALL),
    ]  # fmt: skip
    assert store.run("run-1") == store.session("s-1") == CALL
    assert store.run("run-2") == Usage()
    store.add("1:2", spent[:1])
    assert store.run("run-1") == CALL.plus(CALL)


def test_what_is_kept_is_not_kept_for_ever(client):
    ModelUsageStore(client).add("1:1", [Spent(DAY, AGENT, "p/a", CALL, "run-1", "s-1")])

    for key in ("spent:" + DAY, "spent-run:run-1", "spent-session:s-1"):
        assert client.call("TTL", "agentainer:" + key) > 29 * 86400


def test_who_has_lost_the_journal_adds_nothing(client):
    client.call("SET", "agentainer:epoch", "7")
    client.epoch = 6

    with pytest.raises(Unavailable) as refused:
        ModelUsageStore(client).add("1:1", [Spent(DAY, AGENT, "p/a", CALL)])

    assert refused.value.code == "JOURNAL_FENCED"
    assert ModelUsageStore(client).days([DAY]) == []


def test_what_ends_while_redis_is_away_is_stored_when_it_is_back(redis_server, eventually):
    client = RedisClient(redis_server.url)
    usage = ModelUsageService(
        ModelUsageStore(client), lambda name, function, *arguments: gevent.spawn(function, *arguments)
    )
    redis_server.kill()

    for _ in range(250):  # more than a batch
        usage.add(Spent(DAY, AGENT, "p/a", CALL, "run-1"))
    with pytest.raises(Unavailable):
        usage.of_run("run-1")
    redis_server.start()

    eventually(lambda: usage.store.run("run-1").calls == 250, limit_s=15)
    assert usage.of_run("run-1").cost_nano == 250 * CALL.cost_nano
    assert usage.totals[AGENT, "p/a"].calls == 250
    client.close()
