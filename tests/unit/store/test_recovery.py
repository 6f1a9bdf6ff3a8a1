import time

import pytest

from agentainerd.model.requests import KeyVerdict, Reason, ReplayPolicy, RequestState
from agentainerd.store import marks
from agentainerd.store.marks import Mark
from tests.fakes.stores import AGENT, ANSWERED

pytestmark = pytest.mark.redis


def test_first_start_makes_the_journal_and_its_id(store):
    assert store.recovered.epoch == 1
    first = marks.read(store.folder)
    assert first == Mark(store.client.call("GET", "agentainer:install_id").decode(), 1, 0)

    store.restart()

    assert store.recovered.epoch == 2
    assert marks.read(store.folder) == Mark(first.journal, 2, 0)


def test_live_requests_of_a_dead_daemon_are_interrupted(store):
    records = [store.begin(body=b"b%d" % number) for number in range(250)]
    other = store.begin(agent_id="agent-other")

    recovered = store.restart()

    assert (recovered.interrupted, recovered.retried, recovered.unknown) == (251, 0, 0)
    assert store.requests.counts(AGENT).processing == 0
    assert store.requests.counts(AGENT).failed == 250
    assert store.state(other) == (RequestState.FAILED, Reason.INTERRUPTED)
    detail = store.requests.detail(AGENT, records[7].id)
    assert (detail.body, detail.head) == (b"b7", records[7].head)


def test_live_request_whose_body_was_on_its_way_is_not_replayable_afterwards(store):
    record = store.begin(body_bytes=70_000)

    store.restart()

    assert store.summary(record).request_bytes == -1


def test_keyed_live_request_is_interrupted_and_its_key_free(store):
    record = store.record(key="k")
    store.journal.reserve(record)

    assert store.restart().interrupted == 1

    assert store.state(record) == (RequestState.FAILED, Reason.INTERRUPTED)
    assert store.journal.reserve(store.record(key="k")).verdict is KeyVerdict.NEW


def test_live_request_under_at_least_once_is_sent_again(store):
    record = store.record(policy=ReplayPolicy.AT_LEAST_ONCE, body=b"again")
    store.journal.reserve(record)

    assert store.restart().retried == 1

    [claimed] = store.claim()
    assert (claimed.id, claimed.attempt, claimed.maybe_duplicate, claimed.body) == (record.id, 2, True, b"again")


def test_replay_in_flight_is_sent_again_first_and_marked(store):
    first, second = store.accept(), store.accept()
    [stale] = store.claim(1, lease_s=1000)
    assert stale.id == first.id

    assert store.restart().retried == 1

    claimed = store.claim()
    assert [one.id for one in claimed] == [first.id, second.id]
    assert [(one.attempt, one.maybe_duplicate) for one in claimed] == [(2, True), (1, False)]


def test_word_of_the_dead_daemon_about_its_replay_changes_nothing(store):
    store.accept()
    old = store.journal
    [stale] = store.claim(1)
    store.journal = store.open()

    old.settle(stale, ANSWERED)
    store.flush()

    assert store.state(stale) == (RequestState.PENDING, Reason.RETRY_WAIT)


@pytest.mark.parametrize(
    ("method", "key", "expected"),
    [
        (b"POST", None, (RequestState.FAILED, Reason.OUTCOME_UNKNOWN)),
        (b"PUT", None, (RequestState.PENDING, Reason.RETRY_WAIT)),
        (b"POST", "k", (RequestState.PENDING, Reason.RETRY_WAIT)),
    ],
)
def test_replay_in_flight_under_the_policy_safe(store, method, key, expected):
    record = store.accept(policy=ReplayPolicy.SAFE, method=method, key=key)
    store.claim()

    store.restart()

    assert store.state(record) == expected


def test_what_was_pending_or_done_stays_as_it_was(store):
    pending, delayed, dead, done = (store.accept() for _ in range(4))
    claimed = {record.id: record for record in store.claim()}
    store.journal.give_back(claimed[pending.id])
    store.journal.retry(claimed[delayed.id], due_at=time.time() + 60, error="busy")
    store.settle(claimed[done.id], ANSWERED)
    store.journal.give_back(claimed[dead.id])
    store.flush()
    store.requests.cancel(AGENT, dead.id)

    recovered = store.restart()

    assert (recovered.interrupted, recovered.retried, recovered.unknown) == (0, 0, 0)
    assert [store.state(record)[1] for record in (pending, delayed, dead, done)] == [
        Reason.QUEUED,
        Reason.RETRY_WAIT,
        Reason.CANCELLED,
        Reason.REPLAY,
    ]


def test_order_of_arrival_goes_on_over_a_restart(store):
    first = store.accept()
    store.restart()
    second = store.accept()

    assert [one.id for one in store.claim()] == [first.id, second.id]
