"""What the journal does when Redis dies, hangs, fills up, or belongs to somebody else: really, on a server of its own."""

import shutil
import time
from contextlib import suppress

import gevent
import pytest

from agentainerd import defaults
from agentainerd.errors import AgentainerError, Failed, Unavailable
from agentainerd.model.requests import Outcome, Reason, RequestState
from agentainerd.store import operations, scripts
from tests.fakes.stores import AGENT, ANSWERED, COMPLETED, INTERRUPTED

pytestmark = pytest.mark.redis


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(defaults, "JOURNAL_TIMEOUT_S", 1.0)


def keep_accepting(store, number, until, accepted, refused):
    while not until.is_set():
        record = store.record(f"agent-{number % 4:016x}", max_pending=10**6)
        try:
            store.journal.accept(record)
            accepted.add(record.id)
        except Unavailable:
            refused.add(record.id)
            gevent.sleep(0.005)


def test_no_accepted_request_is_lost_when_redis_is_killed_under_load(own_store, eventually):
    store, stop = own_store, gevent.event.Event()
    accepted, refused = set(), set()
    writers = [gevent.spawn(keep_accepting, store, number, stop, accepted, refused) for number in range(16)]

    for number in range(5):
        before = len(accepted)
        eventually(lambda count=before: len(accepted) > count + 200, what="load")
        if number == 4:
            break
        if number % 2:
            store.client.call("BGREWRITEAOF")
        store.server.kill()
        store.server.start()
    stop.set()
    gevent.joinall(writers, raise_error=True)

    store.flush()
    agents = [f"agent-{number:016x}" for number in range(4)]
    stored = {summary_id for agent in agents for summary_id in everything(store, agent)}
    assert accepted <= stored, f"{len(accepted - stored)} of {len(accepted)} lost"
    assert not refused & stored, "what was refused must not be delivered"
    assert store.journal.available


def everything(store, agent):
    cursor = ""
    while cursor is not None:
        page, cursor = store.requests.page(agent, limit=1000, cursor=cursor)
        yield from (summary.id for summary in page)


def test_batches_whose_connection_breaks_run_once(own_store, eventually):
    store, stop = own_store, gevent.event.Event()
    done = []

    def exchange():
        while not stop.is_set():
            record = store.record()
            write = store.journal.begin(record)
            gevent.sleep(0)
            with suppress(Unavailable):
                write.wait()
            store.journal.settle(record, COMPLETED)
            done.append(record.id)

    workers = [gevent.spawn(exchange) for _ in range(8)]
    while len(done) < 800:
        before = len(done)
        eventually(lambda count=before: len(done) > count + 20, what="load")
        store.client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    stop.set()
    gevent.joinall(workers, raise_error=True)
    store.flush()

    assert len(done) < defaults.HISTORY_LENGTH
    assert store.requests.counts(AGENT).completed == len(done)
    assert store.requests.counts(AGENT).processing == 0


def test_batch_that_is_sent_again_gets_the_same_answer_and_changes_nothing(store):
    script = scripts.load("batch")
    epoch = int(store.client.call("GET", "agentainer:epoch"))
    store.journal.close()
    record, live = store.record(key="k"), store.record()
    record.seq, live.seq = 1, 2
    ops = [
        operations.begin(live),
        operations.reserve(record, 60.0),
        operations.accept(record, Reason.QUEUED, 0.0),
        operations.claim(AGENT, limit=5, now=time.time(), until=time.time() + 30, ordered=False),
        operations.end(live, COMPLETED, time.time()),
    ]
    arguments = [word for op in ops for word in unpacked(op)]

    first = store.client.run(script, epoch, 100, *arguments)
    again = store.client.run(script, epoch, 100, *arguments)

    assert first == again
    assert first[:2] == [b"new " + record.id.encode(), b"ok"]
    assert store.summary(record).attempts == 1
    assert store.requests.counts(AGENT).completed == 1
    with pytest.raises(Exception, match="STALE"):
        store.client.run(script, epoch, 99, *arguments)


def unpacked(op):
    words = []
    while op:
        head, _, rest = op.partition(b"\r\n")
        size = int(head[1:])
        words.append(rest[:size])
        op = rest[size + 2 :]
    return words


def test_while_redis_is_away_live_requests_go_on_and_are_recorded_later(own_store, eventually):
    store = own_store
    before = store.begin()
    store.server.kill()

    store.journal.settle(before, COMPLETED)
    during = store.record(body=b"x")
    write = store.journal.begin(during)
    with pytest.raises(Unavailable) as error:
        write.wait()
    assert error.value.code == "JOURNAL_UNAVAILABLE"
    assert not store.journal.available
    quick = store.journal.begin(store.record())
    assert quick.done, "nobody waits for a Redis that is known to be away"
    with pytest.raises(Unavailable):
        store.accept()
    store.server.start()

    eventually(lambda: store.journal.available, what="the journal")
    assert store.summary(before).state is RequestState.COMPLETED
    assert store.state(during) == (RequestState.PROCESSING, Reason.LIVE)
    store.settle(during, COMPLETED)
    assert store.requests.counts(AGENT).completed == 2


def test_what_is_kept_while_redis_is_away_is_bounded(own_store, eventually, monkeypatch):
    monkeypatch.setattr(defaults, "JOURNAL_BACKLOG", 50)
    store = own_store
    held = store.begin()
    store.server.kill()
    with pytest.raises(Unavailable):
        store.journal.begin(store.record()).wait()

    records = [store.record() for _ in range(200)]
    for record in records:
        store.journal.begin(record)
    for record in records:
        store.journal.settle(record, COMPLETED)
    store.journal.settle(held, COMPLETED)
    store.server.start()
    eventually(lambda: store.journal.available, what="the journal")

    counts = store.requests.counts(AGENT)
    assert 1 <= counts.completed <= 101
    assert store.summary(held).state is RequestState.COMPLETED, "the end of a recorded request is never dropped"
    assert counts.processing == 1, "only the request that was begun when Redis died is still open"


def test_idle_journal_reconnects_without_an_error(own_store):
    store = own_store
    store.begin()
    store.server.kill()
    store.server.start()

    store.journal.begin(store.record()).wait()

    store.accept()


def test_request_refused_while_redis_hung_is_never_delivered(own_store, eventually, monkeypatch):
    monkeypatch.setattr(defaults, "JOURNAL_WAIT_S", 0.5)
    store = own_store
    new, live, reserved = store.record(), store.begin(), store.record(key="k")
    store.server.freeze()

    asked = [
        gevent.spawn(attempt, store.journal.accept, new),
        gevent.spawn(attempt, store.journal.accept, live),
        gevent.spawn(attempt, store.journal.reserve, reserved),
    ]
    gevent.joinall(asked, raise_error=True)
    assert [one.value for one in asked] == ["JOURNAL_UNAVAILABLE"] * 3
    store.server.thaw()
    eventually(lambda: store.journal.available, what="the journal")
    store.flush()

    assert store.requests.counts(AGENT).pending == 0
    assert store.claim() == []
    assert store.journal.reserve(store.record(key="k")).verdict == "new"
    store.settle(live, COMPLETED)
    assert store.summary(live).state is RequestState.COMPLETED


def attempt(function, *arguments):
    try:
        function(*arguments)
    except AgentainerError as error:
        return error.code
    return ""


def test_request_that_waited_through_a_short_hang_is_accepted(own_store):
    store = own_store
    store.server.freeze()
    waiting = gevent.spawn(attempt, store.accept)
    gevent.spawn_later(1.5, store.server.thaw)

    assert waiting.get(timeout=10) == ""
    assert store.requests.counts(AGENT).pending == 1


def test_full_redis_refuses_what_is_new_and_goes_on_with_the_rest(own_store):
    store = own_store
    large = store.begin(body=b"z" * 30_000)
    claimed_later = store.accept(body=b"q" * 1000)
    used = int(store.client.info("memory")["used_memory"])
    store.client.call("CONFIG", "SET", "maxmemory", used + 2_000_000)

    accepted = []
    with pytest.raises(Unavailable) as error:
        while True:
            accepted.append(store.accept(body=b"y" * 30_000).id)
    assert error.value.code == "JOURNAL_FULL"
    assert error.value.retry_after_s == 30
    used = int(store.client.info("memory")["used_memory"])
    store.client.call("CONFIG", "SET", "maxmemory", used - 500_000)  # what Redis gives back by itself makes no room
    assert not store.journal.available
    with pytest.raises(Unavailable):
        store.journal.begin(store.record(body=b"y" * 30_000)).wait()
    with pytest.raises(Unavailable):
        store.journal.reserve(store.record(key="k", body=b"y" * 30_000))

    store.settle(large, COMPLETED)
    [claimed] = store.claim(1)
    assert claimed.id == claimed_later.id
    store.settle(claimed, ANSWERED)
    assert set(store.ids(RequestState.PENDING)) == set(accepted)
    assert store.requests.purge(AGENT, state=RequestState.PENDING) == len(accepted)
    assert store.requests.purge(AGENT, state=RequestState.FAILED) == len(accepted)

    store.accept(body=b"y" * 30_000)
    assert store.journal.available


def test_one_batch_may_hold_both_what_is_refused_and_what_is_not(own_store):
    store = own_store
    live = [store.begin() for _ in range(20)]
    store.client.call("CONFIG", "SET", "maxmemory", 1)

    for record in live:
        store.journal.settle(record, COMPLETED)
    new = store.record()
    write = store.journal.begin(new)
    asked = gevent.spawn(attempt, store.accept)

    assert asked.get(timeout=5) == "JOURNAL_FULL"
    with pytest.raises(Unavailable) as error:
        write.wait()
    assert error.value.code == "JOURNAL_FULL"
    store.client.call("CONFIG", "SET", "maxmemory", 0)
    counts = store.requests.counts(AGENT)
    assert (counts.completed, counts.processing, counts.pending) == (20, 0, 0)


def test_all_that_frees_memory_or_keeps_a_promise_works_while_redis_is_full(own_store):
    store, now = own_store, time.time()
    expired = store.accept(expires_at=now + 1)
    dead = [store.accept() for _ in range(3)]
    for record in dead[:2]:
        store.requests.cancel(AGENT, record.id)
    live, claimed = store.begin(), store.claim(1)[0]
    assert claimed.id == expired.id
    store.journal.give_back(claimed)
    other = store.accept(agent_id="agent-other")
    store.client.call("CONFIG", "SET", "maxmemory", 1)

    assert store.requests.sweep(now + 2) == 1
    assert store.state(expired) == (RequestState.FAILED, Reason.EXPIRED)
    store.requests.discard(AGENT, dead[0].id)
    store.requests.cancel(AGENT, dead[2].id)
    [taken] = store.claim(agent_id="agent-other")
    store.journal.renew([taken], 60.0)
    store.journal.retry(taken, due_at=0.0, error="busy")
    store.settle(live, INTERRUPTED)
    assert store.claim(agent_id="agent-other")[0].id == other.id
    assert store.requests.purge(AGENT, state=RequestState.FAILED) == 4
    assert store.requests.forget_agent("agent-other") == 1
    assert store.restart().epoch == 2
    assert attempt(store.accept) == "JOURNAL_FULL"
    store.client.call("CONFIG", "SET", "maxmemory", 0)
    store.accept()


def test_batch_that_ran_before_redis_was_full_keeps_its_promises(own_store):
    store = own_store
    live, queued = store.begin(), store.accept()
    store.cut(arrives=True, then=lambda: store.client.call("CONFIG", "SET", "maxmemory", 1))
    asked_for = store.record()
    asked = [gevent.spawn(attempt, store.journal.accept, one) for one in (asked_for, live)]
    claiming = gevent.spawn(store.claim, 1)
    gevent.joinall([*asked, claiming], raise_error=True)

    assert [one.value for one in asked] == ["", ""]
    assert [one.id for one in claiming.value] == [live.id], "the first that came"
    assert attempt(store.accept) == "JOURNAL_FULL"
    store.client.call("CONFIG", "SET", "maxmemory", 0)
    assert set(store.ids(RequestState.PENDING)) == {queued.id, asked_for.id}


def test_redis_that_comes_back_full_is_back(own_store, eventually):
    store = own_store
    store.server.kill()
    with pytest.raises(Unavailable):
        store.journal.begin(store.record()).wait()
    store.server.options["maxmemory"] = "1"
    store.server.start()

    eventually(lambda: attempt(store.accept) == "JOURNAL_FULL", what="an answer of Redis")

    store.client.call("CONFIG", "SET", "maxmemory", 0)
    store.accept()


def test_second_daemon_fences_the_first(store, eventually, caplog):
    first = store.journal
    record = store.begin()
    second = store.open()
    store.client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    with pytest.raises(Unavailable) as error:
        first.accept(store.record())

    assert error.value.code == "JOURNAL_FENCED"
    assert store.fenced == [True]
    assert "came back without" not in caplog.text
    assert not first.available
    first.settle(record, COMPLETED)
    first.begin(store.record())
    store.journal = second
    assert store.state(record) == (RequestState.FAILED, Reason.INTERRUPTED)
    store.accept()
    assert store.fenced == [True]


def test_journal_that_vanishes_while_it_is_used_ends_the_daemon(store):
    store.accept()
    store.client.call("FLUSHALL")

    with pytest.raises(Unavailable) as error:
        store.accept()

    assert error.value.code == "JOURNAL_LOST"
    assert store.fenced == [True]


def test_journal_that_is_not_ours_any_more_is_not_opened(store):
    store.journal.close()
    store.client.call("FLUSHALL")

    with pytest.raises(Failed) as error:
        store.open()

    assert error.value.code == "JOURNAL_LOST"
    assert f"agentainerd --state-dir {store.folder} --accept-journal-loss" in error.value.hint
    assert store.client.call("KEYS", "*") == []


def test_redis_that_comes_back_without_what_it_answered_is_told(own_store, caplog):
    store = own_store
    kept = store.accept()
    files = store.server.folder / "appendonlydir"
    shutil.copytree(files, store.server.folder / "copy")
    for _ in range(3):
        store.accept()
    store.server.kill()
    shutil.rmtree(files)
    (store.server.folder / "copy").rename(files)
    store.server.start()

    after = store.accept()

    assert set(store.ids()) == {kept.id, after.id}
    assert "Redis came back without the last 3 batches that it had answered" in caplog.text
    store.server.kill()
    store.server.start()
    store.accept()
    assert caplog.text.count("came back without") == 1


def test_bug_in_a_batch_is_not_repeated_for_ever(store):
    store.client.call("SET", f"agentainer:live:{AGENT}", "not a hash")

    with pytest.raises(Unavailable) as error:
        store.journal.begin(store.record()).wait()

    assert error.value.code == "JOURNAL_ERROR"
    store.client.call("DEL", f"agentainer:live:{AGENT}")
    store.begin()


def test_closing_writes_what_is_still_in_memory(store):
    record = store.begin()
    store.journal.settle(record, Outcome(RequestState.COMPLETED, Reason.ANSWERED, status=204))

    assert store.journal.close()

    assert store.summary(record).status == 204
    with pytest.raises(Unavailable) as error:
        store.accept()
    assert error.value.code == "JOURNAL_CLOSED"


def test_closing_while_redis_is_away_ends_in_time(own_store):
    store = own_store
    record = store.begin()
    store.server.kill()
    store.journal.settle(record, COMPLETED)

    assert not store.journal.close(0.3)

    store.server.start()
