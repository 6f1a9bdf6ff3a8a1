import time

import gevent
import pytest

from agentainerd.errors import TooManyRequests, Unavailable
from agentainerd.model.requests import (
    KeyVerdict,
    Outcome,
    Reason,
    ReplayPolicy,
    RequestState,
)
from tests.fakes.stores import AGENT, ANSWERED, COMPLETED, INTERRUPTED

pytestmark = pytest.mark.redis

PENDING, PROCESSING = RequestState.PENDING, RequestState.PROCESSING
DONE, FAILED = RequestState.COMPLETED, RequestState.FAILED


# ---- live requests


def test_begun_request_is_processing_until_it_is_settled(store):
    record = store.begin()
    assert store.state(record) == (PROCESSING, Reason.LIVE)

    store.settle(record)

    assert store.state(record) == (DONE, Reason.ANSWERED)
    assert store.requests.counts(AGENT).processing == 0


def test_completed_live_request_leaves_only_its_summary(store):
    record = store.begin(body=b"x" * 100)

    store.settle(record, COMPLETED)

    detail = store.requests.detail(AGENT, record.id)
    assert (detail.head, detail.body, detail.response) == (b"", b"", None)
    summary = detail.summary
    assert (summary.method, summary.target, summary.request_bytes) == ("POST", "/agent/web/do", 100)
    assert (summary.status, summary.response_bytes, summary.duration_s) == (200, 5, 0.01)
    assert summary.finished_at >= summary.received_at
    assert store.client.call("KEYS", "agentainer:r:*") == []


def test_failed_live_request_becomes_a_dead_letter_with_its_body(store):
    record = store.begin(body=b"order 66")

    store.settle(record, INTERRUPTED)

    detail = store.requests.detail(AGENT, record.id)
    assert (detail.summary.state, detail.summary.reason) == (FAILED, Reason.INTERRUPTED)
    assert detail.summary.error == "the client left"
    assert (detail.head, detail.body) == (record.head, b"order 66")


def test_failed_live_request_whose_body_was_not_kept_keeps_its_head(store):
    record = store.begin(body_bytes=-1)

    store.settle(record, Outcome(FAILED, Reason.OUTCOME_UNKNOWN))

    detail = store.requests.detail(AGENT, record.id)
    assert (detail.head, detail.body, detail.summary.request_bytes) == (record.head, b"", -1)


def test_many_live_requests_of_several_agents_share_batches_and_are_all_settled(store):
    agents = [f"agent-{number:016x}" for number in range(5)]

    def exchange(number):
        record = store.record(agents[number % 5])
        write = store.journal.begin(record)
        gevent.sleep(0)
        write.wait()
        assert write.done
        store.journal.settle(record, COMPLETED)

    gevent.joinall([gevent.spawn(exchange, number) for number in range(400)], raise_error=True)
    store.flush()

    assert [store.requests.counts(agent).completed for agent in agents] == [80] * 5
    assert int(store.client.call("HGET", "agentainer:batch", "number")) < 400


def test_history_is_capped(store):
    for _ in range(1300):
        store.journal.settle(store.record(), COMPLETED)
    store.flush()

    assert 1000 <= store.requests.counts(AGENT).completed <= 1128 + 128


# ---- accepting


def test_accepted_request_is_pending_and_whole(store):
    record = store.accept(body=b"later")

    detail = store.requests.detail(AGENT, record.id)
    assert (detail.summary.state, detail.summary.reason) == (PENDING, Reason.QUEUED)
    assert (detail.head, detail.body, detail.summary.attempts) == (record.head, b"later", 0)
    counts = store.requests.counts(AGENT)
    assert (counts.pending, counts.pending_bytes) == (1, len(record.head) + 5)
    assert counts.oldest_pending_at == record.received_at


def test_live_request_moves_when_it_is_accepted(store):
    record = store.begin(body=b"x")

    store.journal.accept(record)

    assert store.state(record) == (PENDING, Reason.QUEUED)
    assert store.requests.counts(AGENT).processing == 0


def test_reserved_request_moves_when_it_is_accepted(store):
    record = store.record(key="k")
    store.journal.reserve(record)

    store.journal.accept(record)

    assert store.state(record) == (PENDING, Reason.QUEUED)
    [claimed] = store.claim()
    assert claimed.key == record.key


def test_begin_and_accept_in_one_batch_leave_one_record(store):
    record = store.record()
    store.journal.begin(record)
    store.journal.accept(record)

    assert store.ids() == [record.id]


def test_accepting_twice_makes_one_request(store):
    record = store.accept()
    store.journal.accept(record)

    assert store.requests.counts(AGENT).pending == 1


def test_accept_after_the_end_is_refused(store):
    record = store.record(key="k")
    store.journal.reserve(record)
    store.journal.settle(record, ANSWERED)

    with pytest.raises(Unavailable) as error:
        store.journal.accept(record)

    assert error.value.code == "REQUEST_ENDED"
    assert store.state(record)[0] is DONE


def test_accept_with_a_due_time_waits_for_it(store):
    record = store.record()
    store.journal.accept(record, due_at=time.time() + 100)

    assert store.state(record) == (PENDING, Reason.RETRY_WAIT)
    assert store.summary(record).next_attempt_at > time.time() + 90
    assert store.claim() == []
    assert [one.id for one in store.claim(now=time.time() + 101)] == [record.id]


def test_reached_request_counts_as_an_attempt(store):
    record = store.begin()
    record.maybe_duplicate = True
    store.journal.accept(record)

    [claimed] = store.claim()

    assert (claimed.attempt, claimed.maybe_duplicate) == (2, True)


def test_full_queue_refuses_and_leaves_the_live_record_as_it_was(store):
    store.accept(max_pending=2)
    store.accept(max_pending=2)
    record = store.begin(max_pending=2)

    with pytest.raises(TooManyRequests) as error:
        store.journal.accept(record)

    assert (error.value.code, error.value.retry_after_s) == ("QUEUE_FULL", 10)
    assert store.state(record) == (PROCESSING, Reason.LIVE)
    assert store.requests.counts(AGENT).pending == 2


def test_queue_is_bounded_in_bytes(store):
    store.accept(body=b"x" * 600, max_pending_bytes=1000)

    with pytest.raises(TooManyRequests):
        store.accept(body=b"x" * 600, max_pending_bytes=1000)


def test_accept_says_which_agent_has_something_to_do(store):
    told = []
    store.journal.on_pending = told.append

    store.accept()

    assert told == [AGENT]
    assert store.requests.due(time.time()) == [AGENT]


def test_accept_without_disk_space_is_refused_before_anything_is_written(store):
    journal = store.open(min_free_bytes=2**60)
    record = store.record()

    with pytest.raises(Unavailable) as error:
        journal.accept(record)

    assert error.value.code == "NO_SPACE"
    assert store.ids() == []
    with pytest.raises(Unavailable):
        journal.spool("some-id")
    journal.begin(record).wait()
    journal.settle(record, COMPLETED)


def test_accept_whose_body_is_gone_from_the_spool_is_refused(store):
    with pytest.raises(Unavailable) as error:
        store.accept(spool="gone.body", body_bytes=100_000)

    assert error.value.code == "SPOOL_FAILED"


def test_nothing_of_a_removed_agent_comes_back(store):
    live, late = store.begin(), store.begin()
    store.requests.forget_agent(AGENT)

    store.settle(live, COMPLETED)
    store.settle(late, INTERRUPTED)
    store.journal.begin(store.record()).wait()
    with pytest.raises(Unavailable) as accepted:
        store.accept()
    with pytest.raises(Unavailable) as reserved:
        store.journal.reserve(store.record(key="k"))

    assert {accepted.value.code, reserved.value.code} == {"AGENT_REMOVED"}
    left = {key.decode() for key in store.client.call("KEYS", "agentainer:*")}
    assert left == {f"agentainer:{name}" for name in ("install_id", "schema", "epoch", "batch", "gone")}


# ---- claims


def test_claims_are_in_order_of_arrival(store):
    first = store.begin()
    second, third = store.accept(), store.accept()
    store.journal.accept(first)

    claimed = store.claim(limit=2) + store.claim(limit=2)

    assert [one.id for one in claimed] == [first.id, second.id, third.id]
    assert all(store.state(one) == (PROCESSING, Reason.REPLAY) for one in claimed)


def test_claimed_record_is_whole(store):
    record = store.accept(body=b"body", client="10.0.0.1", policy=ReplayPolicy.SAFE, method=b"PUT")

    [claimed] = store.claim()

    for field in ("id", "agent_id", "head", "body", "method", "target", "client", "policy", "received_at", "seq"):
        assert getattr(claimed, field) == getattr(record, field), field
    assert claimed.expires_at == pytest.approx(record.expires_at, abs=0.001)
    assert (claimed.attempt, claimed.maybe_duplicate, claimed.body_bytes) == (1, False, 4)


def test_a_record_is_claimed_once(store):
    for _ in range(30):
        store.accept()

    claims = [gevent.spawn(store.claim, 7) for _ in range(6)]
    gevent.joinall(claims, raise_error=True)

    ids = [one.id for claim in claims for one in claim.value]
    assert len(ids) == len(set(ids)) == 30


def test_settled_replay_is_completed_and_its_answer_kept(store):
    store.accept(body=b"question")
    [claimed] = store.claim()

    store.settle(claimed, ANSWERED)

    detail = store.requests.detail(AGENT, claimed.id)
    assert (detail.summary.state, detail.summary.reason) == (DONE, Reason.REPLAY)
    assert detail.response == ANSWERED.response
    assert detail.body == b""
    assert store.ids(DONE) == [claimed.id]


def test_retried_record_waits_and_keeps_its_place_and_error(store):
    first, second = store.accept(), store.accept()
    [claimed] = store.claim(1)
    claimed.maybe_duplicate = True

    store.journal.retry(claimed, due_at=time.time() + 50, error="503 from the agent")
    store.flush()

    summary = store.summary(first)
    assert (summary.state, summary.reason, summary.attempts) == (PENDING, Reason.RETRY_WAIT, 1)
    assert (summary.error, summary.maybe_duplicate) == ("503 from the agent", True)
    assert [one.id for one in store.claim(now=time.time() + 51)] == [first.id, second.id]


def test_attempt_that_never_reached_the_agent_does_not_count(store):
    store.accept()
    for _ in range(3):
        [claimed] = store.claim(now=time.time() + 5)
        assert claimed.attempt == 1
        store.journal.retry(claimed, due_at=time.time() + 1, error="refused", count_attempt=False)


def test_given_back_record_is_as_if_it_had_not_been_claimed(store):
    first, _second = store.accept(), store.accept()
    [claimed] = store.claim(1)

    store.journal.give_back(claimed)
    store.flush()

    assert store.state(first) == (PENDING, Reason.QUEUED)
    [again] = store.claim(1)
    assert (again.id, again.attempt, again.maybe_duplicate) == (first.id, 1, False)


def test_lease_that_passed_makes_the_record_pending_and_marked(store):
    record = store.accept()
    [claimed] = store.claim(lease_s=0.001)
    later = time.time() + 1

    assert store.requests.due(later) == [AGENT]
    [again] = store.claim(now=later)

    assert (again.id, again.attempt, again.maybe_duplicate) == (record.id, 2, True)
    store.settle(claimed, ANSWERED)
    assert store.state(record) == (PROCESSING, Reason.REPLAY), "a late word of the first holder changes nothing"
    store.settle(again, ANSWERED)
    assert store.state(record)[0] is DONE


def test_renewed_lease_lasts(store):
    store.accept()
    [claimed] = store.claim(lease_s=0.001)

    store.journal.renew([claimed], 60.0)
    store.flush()

    assert store.claim(now=time.time() + 1) == []


def test_claim_buries_what_is_past_its_deadline(store):
    stale = store.accept(expires_at=time.time() + 10)
    fresh = store.accept()

    claimed = store.claim(now=time.time() + 11)

    assert [one.id for one in claimed] == [fresh.id]
    assert store.state(stale) == (FAILED, Reason.EXPIRED)


def test_ordered_agent_gets_one_at_a_time(store):
    first, second = store.accept(), store.accept()

    [claimed] = store.claim(10, ordered=True)
    assert claimed.id == first.id
    assert store.claim(10, ordered=True) == []
    store.settle(claimed, ANSWERED)

    assert [one.id for one in store.claim(10, ordered=True)] == [second.id]


def test_ordered_agent_waits_for_the_retry_of_the_first(store):
    first, second = store.accept(), store.accept()
    [claimed] = store.claim(ordered=True)
    store.journal.retry(claimed, due_at=time.time() + 50, error="busy")

    assert store.claim(ordered=True) == []

    later = time.time() + 51
    [again] = store.claim(now=later, ordered=True)
    assert again.id == first.id
    store.settle(again, ANSWERED)
    assert [one.id for one in store.claim(now=later, ordered=True)] == [second.id]


def test_live_requests_do_not_block_an_ordered_agent(store):
    store.journal.reserve(store.record(key="k"))
    record = store.accept()

    assert [one.id for one in store.claim(ordered=True)] == [record.id]


def test_large_body_stays_in_the_spool_until_the_request_is_done(store, eventually):
    record = store.record(body_bytes=50_000)
    writer = store.journal.spool(record.id)
    writer.write(b"x" * 50_000)
    record.spool = writer.seal()
    store.journal.accept(record)

    [claimed] = store.claim()
    assert b"".join(store.spool.pieces(claimed.spool)) == b"x" * 50_000
    store.settle(claimed, ANSWERED)

    eventually(lambda: not store.spool.exists(record.spool), what="removal of the body")
    assert store.requests.detail(AGENT, record.id).spool == ""


# ---- keys


def test_key_is_reserved_once(store):
    record = store.record(key="k")

    assert store.journal.reserve(record).verdict is KeyVerdict.NEW
    known = store.journal.reserve(store.record(key="k"))

    assert (known.verdict, known.request_id) == (KeyVerdict.IN_FLIGHT, record.id)
    assert store.state(record) == (PROCESSING, Reason.LIVE)


def test_key_of_a_queued_request_answers_pending(store):
    record = store.record(key="k")
    store.journal.reserve(record)
    store.journal.accept(record)

    known = store.journal.reserve(store.record(key="k"))

    assert (known.verdict, known.request_id) == (KeyVerdict.PENDING, record.id)


def test_key_of_an_answered_request_gives_its_answer(store):
    record = store.record(key="k")
    store.journal.reserve(record)
    store.settle(record, ANSWERED)

    known = store.journal.reserve(store.record(key="k"))

    assert (known.verdict, known.request_id, known.response) == (KeyVerdict.DONE, record.id, ANSWERED.response)
    assert 0 < store.client.call("PTTL", "agentainer:idem:scope-k") <= 24 * 3600 * 1000


def test_key_of_an_answer_that_is_not_stored_any_more_does_not_run_again(store):
    record = store.record(key="k")
    store.journal.reserve(record)
    store.settle(record, ANSWERED)
    store.requests.sweep(time.time() + 25 * 3600)

    known = store.journal.reserve(store.record(key="k"))

    assert (known.verdict, known.request_id) == (KeyVerdict.FAILED, record.id)


def test_key_with_another_request_does_not_match(store):
    record = store.record(key="k")
    store.journal.reserve(record)

    known = store.journal.reserve(store.record(key="k", fingerprint="other"))

    assert (known.verdict, known.request_id) == (KeyVerdict.MISMATCH, record.id)


def test_failed_request_frees_its_key_for_the_next_try(store):
    record = store.record(key="k")
    store.journal.reserve(record)
    store.settle(record, INTERRUPTED)

    assert store.journal.reserve(store.record(key="k")).verdict is KeyVerdict.NEW
    assert store.state(record) == (FAILED, Reason.INTERRUPTED)


def test_key_is_raced_by_many_and_won_by_one(store):
    answers = [gevent.spawn(store.journal.reserve, store.record(key="k")) for _ in range(50)]
    gevent.joinall(answers, raise_error=True)

    verdicts = [answer.value.verdict for answer in answers]
    assert sorted(verdicts) == [KeyVerdict.IN_FLIGHT] * 49 + [KeyVerdict.NEW]


def test_reserve_without_a_key_is_always_new(store):
    assert store.journal.reserve(store.record()).verdict is KeyVerdict.NEW
    assert store.journal.reserve(store.record()).verdict is KeyVerdict.NEW
    assert store.requests.counts(AGENT).processing == 2


def test_reserved_request_is_settled_even_if_it_was_sent_twice(store):
    record = store.record(key="k")
    store.journal.reserve(record)
    record.attempt = 2

    store.settle(record, COMPLETED)

    assert store.state(record) == (DONE, Reason.ANSWERED)
    assert store.summary(record).attempts == 2
