"""What the journal does while its disk is slow: Redis is stopped and goes on, as it does in an fsync that takes seconds."""

import logging
import time

import gevent
import pytest

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.requests import RequestState
from agentainerd.store import committer
from tests.fakes.stores import AGENT, COMPLETED

pytestmark = pytest.mark.redis


@pytest.fixture
def slow_store(own_store, monkeypatch):
    monkeypatch.setattr(defaults, "JOURNAL_BACKLOG", 20)
    monkeypatch.setattr(defaults, "COMMIT_BATCH", 5)
    monkeypatch.setattr(committer, "SLOW_S", 0.2)
    own_store.begin()
    return own_store


def attempt(store, answers):
    record = store.record()
    try:
        store.journal.accept(record)
        answers[record.id] = ""
    except Unavailable as error:
        answers[record.id] = error.code


def freeze(store, eventually):
    """Stop Redis with a batch in flight that is out for too long."""
    store.server.freeze()
    store.journal.begin(store.record())
    since = time.monotonic()
    eventually(lambda: time.monotonic() - since > 0.25, what="a slow batch")


def test_waiting_for_a_slow_disk_is_bounded_and_what_is_refused_is_never_delivered(slow_store, eventually):
    store, answers = slow_store, {}
    freeze(store, eventually)

    waiting = [gevent.spawn(attempt, store, answers) for _ in range(60)]
    eventually(lambda: answers, what="the first refusal")
    gevent.sleep(0)
    refused = set(answers)
    assert set(answers.values()) == {"JOURNAL_SLOW"}
    assert len(refused) == 60 - 20, "twenty wait"
    store.server.thaw()
    gevent.joinall(waiting, raise_error=True)

    accepted = {one for one, answer in answers.items() if answer == ""}
    assert accepted == set(answers) - refused
    assert set(store.ids(RequestState.PENDING)) == accepted
    attempt(store, answers)
    assert list(answers.values())[-1] == ""


def test_live_requests_go_on_unrecorded_and_settles_are_kept_while_the_disk_is_slow(slow_store, eventually):
    store = slow_store
    open_before = [store.begin() for _ in range(30)]
    freeze(store, eventually)
    writes = [store.journal.begin(store.record()) for _ in range(60)]

    assert [write.done for write in writes].count(True) == 40, "nobody waits who finds no room"
    for record in open_before:
        store.journal.settle(record, COMPLETED)
    store.server.thaw()
    store.flush()

    assert store.requests.counts(AGENT).completed == 30


def test_slow_disk_is_told_once_a_minute(slow_store, eventually, caplog):
    caplog.set_level(logging.WARNING)
    store, answers = slow_store, {}
    for _ in range(3):
        freeze(store, eventually)
        waiting = [gevent.spawn(attempt, store, answers) for _ in range(40)]
        eventually(lambda: "JOURNAL_SLOW" in answers.values(), what="a refusal")
        store.server.thaw()
        gevent.joinall(waiting, raise_error=True)

    told = [record.getMessage() for record in caplog.records if "is slow" in record.getMessage()]
    assert len(told) == 1, told


def test_batch_that_takes_longer_than_redis_is_waited_for_is_accepted_or_refused_and_never_both(own_store, monkeypatch):
    monkeypatch.setattr(defaults, "JOURNAL_TIMEOUT_S", 0.2)
    monkeypatch.setattr(defaults, "JOURNAL_WAIT_S", 1.0)
    store, answers = own_store, {}
    store.journal.close()
    store.journal = store.open()
    for seconds in (0.5, 1.5):
        store.server.freeze()
        waiting = [gevent.spawn(attempt, store, answers) for _ in range(20)]
        gevent.spawn_later(seconds, store.server.thaw)
        gevent.joinall(waiting, raise_error=True)
        while not store.journal.available:
            gevent.sleep(0.01)
        store.flush()

    accepted = {one for one, answer in answers.items() if answer == ""}
    assert set(store.ids(RequestState.PENDING)) == accepted
    assert len(accepted) == 20, "the first wait was short enough"
    assert set(answers.values()) == {"", "JOURNAL_UNAVAILABLE"}
