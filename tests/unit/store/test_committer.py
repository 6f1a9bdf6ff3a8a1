"""How operations become batches: on a real server, whose statistics say how many it was sent."""

import gevent
import pytest

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.model.requests import Reason
from agentainerd.store import operations
from agentainerd.store.committer import Batch, Call, refusal
from tests.fakes.stores import AGENT

pytestmark = pytest.mark.redis


@pytest.fixture
def committer(store):
    store.flush()
    return store.journal._committer


def batches(store):
    """How many scripts the server has run."""
    return int(store.client.info("commandstats")["cmdstat_evalsha"].partition("calls=")[2].partition(",")[0])


def op(store):
    record = store.record()
    record.seq = 1
    return operations.begin(record)


def test_what_is_appended_together_is_sent_together(store, committer):
    before, number = batches(store), committer.durable

    appended = {committer.append(op(store)) for _ in range(100)}
    [batch] = appended
    batch.wait()

    assert batches(store) == before + 1
    assert (batch.number, committer.durable, committer.in_flight) == (number + 1, number + 1, 0)
    assert store.requests.counts(AGENT).processing == 100


def test_batches_and_what_was_in_them_are_counted(store, committer):
    journal = store.journal
    counted, operations_before, seconds = journal.latency.count, journal.operations, journal.latency.seconds

    for _ in range(100):
        batch = committer.append(op(store))
    batch.wait()
    store.flush()

    assert journal.operations - operations_before >= 100
    assert 1 <= journal.latency.count - counted <= 5
    assert 0 < journal.latency.seconds - seconds < 5


def test_what_is_appended_meanwhile_goes_with_the_next_batch(store, committer):
    first = committer.append(op(store))
    gevent.sleep(0)
    assert committer.in_flight == (0 if first.done else first.number)  # Redis may have been quicker than this line

    second = committer.append(op(store))

    assert second is not first
    second.wait()
    assert first.done
    assert second.number == first.number + 1


def test_batch_is_bounded_in_number_and_size(store, committer, monkeypatch):
    monkeypatch.setattr(defaults, "COMMIT_BATCH", 10)
    sizes = [len(committer.append(op(store)).ops) for _ in range(25)]
    assert max(sizes) == 10

    monkeypatch.setattr(defaults, "COMMIT_BATCH_BYTES", 3000)
    for _ in range(40):
        assert committer.append(op(store)).size <= 3000
    store.flush()
    assert store.requests.counts(AGENT).processing == 65


def test_answers_come_to_those_who_asked_in_their_order(store, committer):
    records = [store.record(max_pending=2) for _ in range(4)]
    for number, record in enumerate(records, 1):
        record.seq = number
    committer.append(op(store))
    calls = [committer.call(operations.accept(record, Reason.QUEUED, 0.0)) for record in records]

    assert all(call.wait(5.0) for call in calls)

    assert [call.answer for call in calls] == [b"ok", b"ok", b"full", b"full"]


def test_call_that_is_withdrawn_before_it_was_sent_leaves_nothing(store, committer):
    record, other = store.record(), store.record()
    record.seq, other.seq = 1, 2
    call = committer.call(operations.accept(record, Reason.QUEUED, 0.0))
    kept = committer.call(operations.accept(other, Reason.QUEUED, 0.0))

    committer.withdraw(call, operations.revoke(record.id))

    assert kept.wait(5.0)
    assert not call.wait(0.0)
    assert store.ids() == [other.id]


def test_call_that_is_withdrawn_after_it_was_sent_is_undone_before_anything_else(store, committer):
    record, other = store.record(), store.record(max_pending=1)
    record.seq, other.seq = 1, 2
    store.server.freeze()  # its answer is not to come sooner
    try:
        call = committer.call(operations.accept(record, Reason.QUEUED, 0.0))
        gevent.sleep(0)
        assert call.batch.number

        after = committer.call(operations.accept(other, Reason.QUEUED, 0.0))
        committer.withdraw(call, operations.revoke(record.id))
    finally:
        store.server.thaw()

    assert after.wait(5.0)
    assert after.answer == b"ok", "its place in the queue is free again"
    assert store.ids() == [other.id]


def test_whoever_waits_for_a_batch_is_called_back_once_and_one_failure_harms_no_other(store, committer, caplog):
    told = []
    batch = committer.append(op(store))
    batch.then(lambda: told.append(1))
    batch.then(lambda: 1 / 0)
    batch.then(lambda: told.append(2))

    batch.wait()
    batch.release()

    assert told == [1, 2]
    assert "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize(("code", "seconds"), [("JOURNAL_UNAVAILABLE", 2), ("JOURNAL_SLOW", 2), ("JOURNAL_FULL", 30)])
def test_refusal_says_when_to_come_back(code, seconds):
    error = refusal(code)

    assert (error.code, error.retry_after_s) == (code, seconds)
    with pytest.raises(Unavailable):
        Batch(code).wait()
    assert Call(b"", Batch(), code).wait(0.0)
