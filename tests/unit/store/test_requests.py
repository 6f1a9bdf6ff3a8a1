import os
import time

import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.requests import KeyVerdict, Outcome, Reason, RequestState
from agentainerd.store.requests import Counts, RequestStore
from tests.fakes.stores import AGENT, ANSWERED, COMPLETED, INTERRUPTED

pytestmark = pytest.mark.redis

PENDING, PROCESSING = RequestState.PENDING, RequestState.PROCESSING
DONE, FAILED = RequestState.COMPLETED, RequestState.FAILED


def dead_letter(store, **options):
    record = store.begin(**options)
    store.settle(record, INTERRUPTED)
    return record


def pages(store, limit, state=None):
    found, cursor = [], ""
    while cursor is not None:
        page, cursor = store.requests.page(AGENT, state=state, limit=limit, cursor=cursor)
        assert len(page) <= limit
        found.append([summary.id for summary in page])
    return found


# ---- lists


def test_agent_without_requests_has_empty_lists(store):
    assert store.requests.page(AGENT) == ([], None)
    assert store.requests.counts(AGENT) == Counts()
    assert store.requests.counts_of([]) == {}


def test_pending_is_listed_as_it_will_be_sent(store):
    records = [store.accept() for _ in range(6)]
    late, soon = store.claim(2)
    store.journal.retry(late, due_at=time.time() + 200, error="busy")
    store.journal.retry(soon, due_at=time.time() + 100, error="busy")
    store.flush()

    expected = [record.id for record in records[2:]] + [soon.id, late.id]
    for limit in (1, 2, 3, 4, 5, 6, 7):
        assert sum(pages(store, limit, PENDING), []) == expected


def test_failed_is_listed_newest_first_also_where_many_failed_at_once(store):
    for _ in range(25):
        store.accept()
    store.requests.purge(AGENT, state=PENDING)
    newest = dead_letter(store)

    listed = sum(pages(store, 4, FAILED), [])

    assert listed[0] == newest.id
    assert len(listed) == len(set(listed)) == 26


def test_processing_is_listed_live_or_leased(store):
    live = [store.begin() for _ in range(3)]
    store.accept()
    [leased] = store.claim()

    listed = sum(pages(store, 2, PROCESSING), [])

    assert sorted(listed) == sorted([record.id for record in live] + [leased.id])


def test_completed_is_listed_newest_first(store):
    records = [store.begin() for _ in range(5)]
    for record in records:
        store.settle(record)

    assert pages(store, 2, DONE) == [
        [records[4].id, records[3].id],
        [records[2].id, records[1].id],
        [records[0].id],
    ]


def test_list_of_all_states_has_each_request_once(store):
    live, done = store.begin(), store.begin()
    store.settle(done)
    pending, dead = store.accept(), dead_letter(store)

    for limit in (1, 2, 3, 4, 100):
        assert sum(pages(store, limit), []) == [live.id, pending.id, dead.id, done.id]


def test_page_goes_on_where_it_was_though_requests_come_and_go(store):
    records = [store.accept() for _ in range(4)]
    first, cursor = store.requests.page(AGENT, state=PENDING, limit=2)
    store.requests.cancel(AGENT, records[1].id)
    added = store.accept()

    rest, _ = store.requests.page(AGENT, state=PENDING, limit=10, cursor=cursor)

    assert [summary.id for summary in first] == [record.id for record in records[:2]]
    assert [summary.id for summary in rest] == [records[2].id, records[3].id, added.id]


@pytest.mark.parametrize("cursor", ["x", "z:1", "q:", "q:abc,id", "f:nan,id", "c:1"])
def test_foreign_cursor_is_refused(store, cursor):
    with pytest.raises(InvalidParameter):
        store.requests.page(AGENT, state=PENDING, cursor=cursor)


def test_counts_of_several_agents_come_in_one_round_trip(store):
    store.accept(body=b"x" * 10)
    first = store.accept(agent_id="agent-b")
    store.accept(agent_id="agent-b")
    store.begin(agent_id="agent-b")
    dead_letter(store, agent_id="agent-b")
    store.journal.settle(store.record("agent-b"), COMPLETED)
    store.flush()

    counts = store.requests.counts_of([AGENT, "agent-b", "agent-c"])

    assert counts[AGENT].pending_bytes == len(first.head) + 10
    assert counts["agent-b"] == Counts(
        pending=2,
        processing=1,
        completed=1,
        failed=1,
        pending_bytes=2 * len(first.head),
        oldest_pending_at=first.received_at,
    )
    assert counts["agent-c"] == Counts()


def test_due_names_the_agents_that_have_something_to_send(store):
    store.accept()
    later = store.record("agent-b")
    store.journal.accept(later, due_at=time.time() + 50)

    assert store.requests.due(time.time()) == [AGENT]
    assert sorted(store.requests.due(time.time() + 51)) == [AGENT, "agent-b"]
    store.claim()
    assert store.requests.due(time.time()) == []


# ---- one request


def test_request_is_found_whatever_state_it_is_in(store):
    live, pending, dead, done = store.begin(), store.accept(), dead_letter(store), store.begin()
    store.settle(done)

    for record, state in ((live, PROCESSING), (pending, PENDING), (dead, FAILED), (done, DONE)):
        assert store.requests.detail(AGENT, record.id).summary.state is state
        assert store.requests.locate(record.id).summary.id == record.id


def test_unknown_request_or_one_of_another_agent_is_not_found(store):
    record, live = store.accept(), store.begin()

    for wrong in (("agent-other", record.id), ("agent-other", live.id), (AGENT, "nothing")):
        with pytest.raises(NotFound) as error:
            store.requests.detail(*wrong)
        assert error.value.code == "REQUEST_NOT_FOUND"
    with pytest.raises(NotFound):
        store.requests.locate("nothing")


def test_cancelled_request_is_a_dead_letter_and_is_not_sent(store):
    record = store.accept(body=b"keep")

    store.requests.cancel(AGENT, record.id)

    assert store.state(record) == (FAILED, Reason.CANCELLED)
    assert store.requests.detail(AGENT, record.id).body == b"keep"
    assert store.claim() == []


def test_only_what_is_pending_can_be_cancelled(store):
    live, dead, done = store.begin(), dead_letter(store), store.begin()
    store.settle(done)
    answered = store.accept()
    [claimed] = store.claim()
    store.settle(claimed, ANSWERED)

    for record, code in (
        (live, "REQUEST_IN_FLIGHT"),
        (dead, "REQUEST_ENDED"),
        (done, "REQUEST_ENDED"),
        (answered, "REQUEST_ENDED"),
    ):
        with pytest.raises(Conflict) as error:
            store.requests.cancel(AGENT, record.id)
        assert error.value.code == code
    with pytest.raises(NotFound):
        store.requests.cancel("agent-other", store.accept().id)


def test_dead_letter_is_sent_again_from_its_first_attempt(store):
    record = dead_letter(store, body=b"again", expires_at=time.time() - 1)

    store.requests.requeue(AGENT, record.id)

    assert store.state(record) == (PENDING, Reason.QUEUED)
    summary = store.summary(record)
    assert (summary.attempts, summary.finished_at, summary.error) == (0, 0.0, "")
    assert summary.expires_at > time.time() + 23 * 3600
    [claimed] = store.claim()
    assert (claimed.body, claimed.attempt, claimed.maybe_duplicate) == (b"again", 1, True)


def test_pending_request_that_waits_is_sent_at_once(store):
    record = store.record()
    store.journal.accept(record, due_at=time.time() + 100)

    store.requests.requeue(AGENT, record.id)

    assert [one.id for one in store.claim()] == [record.id]


def test_what_is_in_flight_answered_or_not_whole_is_not_sent_again(store):
    live, done = store.begin(), store.begin()
    store.settle(done)
    headless = dead_letter(store, body_bytes=-1)

    for record, code in (
        (live, "REQUEST_IN_FLIGHT"),
        (done, "REQUEST_ENDED"),
        (headless, "REQUEST_NOT_REPLAYABLE"),
    ):
        with pytest.raises(Conflict) as error:
            store.requests.requeue(AGENT, record.id)
        assert error.value.code == code
    with pytest.raises(NotFound):
        store.requests.requeue(AGENT, "nothing")


def test_only_a_dead_letter_can_be_discarded(store):
    dead, pending = dead_letter(store), store.accept()

    store.requests.discard(AGENT, dead.id)
    with pytest.raises(Conflict) as error:
        store.requests.discard(AGENT, pending.id)

    assert error.value.code == "REQUEST_PENDING"
    assert store.ids() == [pending.id]


# ---- many


def test_purge_of_pending_cancels_all_of_them(store):
    for _ in range(3):
        store.accept()
    delayed = store.record()
    store.journal.accept(delayed, due_at=time.time() + 60)

    assert store.requests.purge(AGENT, state=PENDING) == 4

    assert store.ids(PENDING) == []
    assert len(store.ids(FAILED)) == 4


def test_purge_of_failed_removes_all_of_them_and_their_bodies(store):
    record = store.record(body_bytes=40_000)
    writer = store.journal.spool(record.id)
    writer.write(b"x" * 40_000)
    record.spool = writer.seal()
    store.journal.accept(record)
    store.requests.cancel(AGENT, record.id)
    for _ in range(600):
        store.journal.settle(store.record(), INTERRUPTED)
    store.flush()

    assert store.requests.purge(AGENT, state=FAILED) == 601

    assert store.ids() == []
    assert not store.spool.exists(record.spool)


def test_only_pending_and_failed_can_be_purged(store):
    with pytest.raises(InvalidParameter):
        store.requests.purge(AGENT, state=DONE)


def test_forgotten_agent_leaves_nothing_but_its_tombstone(store):
    store.begin()
    store.accept()
    store.settle(store.begin())
    dead_letter(store)
    store.journal.reserve(store.record(key="k"))
    other = store.accept(agent_id="agent-other")

    assert store.requests.forget_agent(AGENT) == 3

    left = {key.decode().removeprefix("agentainer:") for key in store.client.call("KEYS", "*")}
    assert left == {
        "install_id",
        "schema",
        "epoch",
        "batch",
        "known",
        "gone",
        "x",
        "n:agent-other",
        "q:agent-other",
        f"r:{other.id}",
    }


# ---- sweep


def test_request_past_its_deadline_has_failed(store):
    stale = store.accept(expires_at=time.time() + 5)
    fresh = store.accept()

    assert store.requests.sweep(time.time() + 6) == 1

    assert store.state(stale) == (FAILED, Reason.EXPIRED)
    assert store.ids(PENDING) == [fresh.id]


def test_deadline_does_not_touch_what_is_being_sent(store):
    record = store.accept(expires_at=time.time() + 5)
    store.claim()

    store.requests.sweep(time.time() + 6)

    assert store.state(record) == (PROCESSING, Reason.REPLAY)


def test_answers_and_dead_letters_are_kept_for_their_time(store):
    requests = RequestStore(store.client, store.spool, response_ttl_s=100, failed_ttl_s=200)
    store.accept()
    [answered] = store.claim()
    store.settle(answered, ANSWERED)
    dead = dead_letter(store)
    now = time.time()

    assert requests.sweep(now + 99) == 0
    assert requests.sweep(now + 101) == 1
    assert store.requests.detail(AGENT, answered.id).response is None, "the history still knows it"
    assert store.ids(FAILED) == [dead.id]
    assert requests.sweep(now + 201) == 1
    assert store.ids(FAILED) == []


def test_dead_letters_are_bounded_in_number_and_bytes(store, monkeypatch):
    records = [store.record(body=b"x" * 1000) for _ in range(40)]
    monkeypatch.setattr(defaults, "MAX_FAILED", 10)
    journal = store.open()

    for record in records:
        journal.settle(record, INTERRUPTED)
    journal.claim("agent-nobody", limit=1, now=1.0, lease_s=1.0)

    assert store.ids(FAILED) == [record.id for record in reversed(records[-10:])]


def test_stored_answers_are_bounded_in_bytes(store, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_COMPLETED_BYTES", 100)
    store.journal = store.open()
    for number in range(8):
        record = store.record(key=f"key{number}")
        store.journal.reserve(record)
        store.settle(record, ANSWERED)

    assert store.journal.reserve(store.record(key="key0")).verdict is KeyVerdict.FAILED
    assert store.journal.reserve(store.record(key="key7")).verdict is KeyVerdict.DONE
    assert int(store.client.call("HGET", f"agentainer:n:{AGENT}", "done_bytes")) <= 100


def test_answers_are_kept_shorter_where_redis_runs_out_of_memory(own_store):
    store = own_store
    store.accept()
    [answered] = store.claim()
    store.settle(answered, ANSWERED)
    dead_letter(store)

    assert store.requests.sweep(time.time()) == 0
    store.client.call("CONFIG", "SET", "maxmemory", 1_000_000)
    assert store.requests.sweep(time.time() + 1) == 1
    store.client.call("CONFIG", "SET", "maxmemory", 0)

    assert store.requests.detail(AGENT, answered.id).response is None
    assert len(store.ids(FAILED)) == 1


def test_files_that_nobody_names_are_removed_after_a_while(store):
    kept, live, orphan, young, unfinished = (store.record(body_bytes=40_000) for _ in range(5))
    writers = {}
    for record in (kept, live, orphan, young, unfinished):
        writers[record.id] = store.journal.spool(record.id)
        writers[record.id].write(b"x")
    for record in (kept, live, orphan, young):
        record.spool = writers[record.id].seal()
    store.journal.accept(kept)
    store.journal.begin(live).wait()
    written = writers.pop(unfinished.id)
    abandoned = store.spool.folder / "abandoned.tmp"
    abandoned.write_bytes(b"x")
    writers.clear()
    old = time.time() - 700
    for path in store.spool.folder.iterdir():
        if not path.name.startswith(young.id):
            os.utime(path, (old, old))

    assert store.requests.sweep(time.time()) == 2

    left = {path.name for path in store.spool.folder.iterdir()}
    assert left == {kept.spool, live.spool, young.spool, f"{unfinished.id}.tmp"}
    written.discard()


def test_tombstones_of_removed_agents_are_kept_for_a_day(store):
    store.accept()
    store.requests.forget_agent(AGENT)

    store.requests.sweep(time.time() + 3600)
    assert store.client.call("ZCARD", "agentainer:gone") == 1
    store.requests.sweep(time.time() + 25 * 3600)
    assert store.client.call("ZCARD", "agentainer:gone") == 0


def test_attempts_used_up_is_a_dead_letter_with_its_last_error(store):
    store.accept(body=b"poison")
    [claimed] = store.claim()

    store.settle(claimed, Outcome(FAILED, Reason.ATTEMPTS, status=503, error="8 attempts failed"))

    detail = store.requests.detail(AGENT, claimed.id)
    assert (detail.summary.reason, detail.summary.status) == (Reason.ATTEMPTS, 503)
    assert (detail.summary.error, detail.body) == ("8 attempts failed", b"poison")
