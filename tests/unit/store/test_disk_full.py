"""A disk that has no room left, at each write: the spool, the append-only file, its rewrite, the mark.

The state folder is on a tmpfs of 32 MiB, which only root may mount: without, these tests are skipped.
"""

import os
import subprocess
from contextlib import contextmanager

import pytest

from agentainerd.errors import AgentainerError, Unavailable
from agentainerd.model.requests import RequestState
from agentainerd.store import redis_process, redis_server
from tests.fakes.stores import AGENT, COMPLETED

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount the small disk that is filled"),
]


@pytest.fixture
def small_host(host, monkeypatch):
    """A host whose state folder is on a disk of its own."""
    monkeypatch.setattr(redis_process, "MAX_RESTART_S", 0.2)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(host.state)], check=True)
    yield host
    host.stop()
    subprocess.run(["umount", "--lazy", str(host.state)], check=True)


@contextmanager
def full(host, *, but_bytes=0):
    """Fill the disk but for so many bytes, and make room again."""
    filler = host.state / "filler"
    found = os.statvfs(host.state)
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - but_bytes)
    try:
        yield
    finally:
        filler.unlink()


def attempt(function, *arguments):
    try:
        function(*arguments)
    except AgentainerError as error:
        return error.code
    return ""


def accept_until_refused(store):
    """Accept what there is room for; return the ids, and the one that was refused with its code."""
    accepted = set()
    while True:
        record = store.record(body=b"x" * 20_000)
        if code := attempt(store.journal.accept, record):
            return accepted, record.id, code
        accepted.add(record.id)


def test_full_append_only_file_refuses_and_loses_nothing(small_host, eventually, caplog):
    store = small_host.start()
    held = store.begin()
    with full(small_host, but_bytes=300_000):
        accepted, refused, code = accept_until_refused(store)
        assert code == "JOURNAL_UNAVAILABLE"
        assert 0 < len(accepted) < 16
        store.journal.settle(held, COMPLETED)
        for _ in range(3):
            with pytest.raises(Unavailable):
                store.accept(body=b"x" * 20_000)

    assert "ended with exit 1 and is started again" in caplog.text
    eventually(lambda: store.journal.available and not attempt(store.accept), limit_s=20, what="the journal")
    store.flush()
    pending = set(store.ids(RequestState.PENDING))
    assert accepted <= pending
    assert refused not in pending
    assert store.summary(held).state is RequestState.COMPLETED
    small_host.stop()
    assert pending <= set(small_host.start().ids())


def test_low_space_refuses_what_would_be_queued_and_lets_the_rest_go_on(small_host):
    store = small_host.start()
    store.journal.close()
    store.journal = store.open(min_free_bytes=8 * 1024 * 1024)
    store.accept()
    [claimed], live = store.claim(), store.begin()
    with full(small_host, but_bytes=4 * 1024 * 1024):
        store.journal._free_space._asked_at = -10.0  # it asks every two seconds
        for refused in (store.accept, lambda: store.journal.spool("new"), lambda: store.journal.accept(live)):
            assert attempt(refused) == "NO_SPACE"
        store.settle(live, COMPLETED)
        store.settle(claimed, COMPLETED)
        store.settle(store.begin(), COMPLETED)
        assert store.requests.counts(AGENT).completed == 3
        assert store.requests.purge(AGENT, state=RequestState.FAILED) == 0


def test_full_spool_keeps_no_half_of_a_body(small_host):
    store = small_host.start()
    record = store.record(body_bytes=3_000_000)
    with full(small_host, but_bytes=1_000_000):
        file = store.journal.spool(record.id)
        with pytest.raises(Unavailable) as error:
            for _ in range(30):
                file.write(b"x" * 100_000)
        assert error.value.code == "NO_SPACE"
        assert list(store.spool.folder.iterdir()) == []

    again = store.journal.spool(record.id)
    again.write(b"x" * 3_000_000)
    record.spool = again.seal()
    store.journal.accept(record)
    assert store.ids(RequestState.PENDING) == [record.id]


def test_rewrite_that_finds_no_room_harms_nothing(small_host, eventually):
    store = small_host.start()
    accepted = {store.accept(body=os.urandom(15_000)).id for _ in range(100)}
    with full(small_host, but_bytes=1_000_000):
        store.client.call("BGREWRITEAOF")
        eventually(lambda: store.client.info("persistence")["aof_last_bgrewrite_status"] == "err", what="the failure")
        accepted.add(store.accept(body=b"x" * 1000).id)

    store.client.call("BGREWRITEAOF")
    eventually(lambda: store.client.info("persistence")["aof_last_bgrewrite_status"] == "ok", what="the rewrite")
    accepted.add(store.accept().id)
    small_host.stop()
    assert set(small_host.start().ids()) == accepted


def test_rewrite_is_not_begun_where_it_has_no_room(small_host, monkeypatch, eventually, caplog):
    monkeypatch.setattr(redis_process, "CHECK_INTERVAL_S", 0.02)
    store = small_host.start()
    with full(small_host, but_bytes=1_000_000):
        accepted = {store.accept(body=os.urandom(15_000)).id for _ in range(40)}
        monkeypatch.setattr(redis_server, "REWRITE_AT_BYTES", 100_000)
        eventually(lambda: "no room to rewrite" in caplog.text, what="the warning")
        checks = eventually(lambda: store.accept(), what="more")
        before = times_looked(store)
        eventually(lambda: times_looked(store) > before + 10, what="more looks at the size")
        assert caplog.text.count("no room to rewrite") == 1
        assert int(store.client.info("persistence")["aof_rewrites"]) == 0

    eventually(lambda: int(store.client.info("persistence")["aof_rewrites"]) > 0, what="the rewrite")
    assert accepted | {checks.id} == set(store.ids())


def times_looked(store):
    """How often the size of the files was asked for, beside by us."""
    told = store.client.info("commandstats")["cmdstat_info"]
    store.looks = getattr(store, "looks", 0) + 1
    return int(told.partition("calls=")[2].partition(",")[0]) - store.looks


def test_start_on_a_full_disk_says_so_and_the_next_one_works(small_host):
    ids = {small_host.start().accept().id}
    small_host.stop()
    with full(small_host):
        with pytest.raises(AgentainerError) as error:
            small_host.start()
        small_host.stop()
        assert error.value.code in ("STATE_NOT_WRITABLE", "REDIS_UNAVAILABLE", "REDIS_START_FAILED")

    assert set(small_host.start().ids()) == ids
