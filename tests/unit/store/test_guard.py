"""What the start does with a journal that is not what this state folder had last: really, on the daemon's own server."""

import shutil

import pytest

from agentainerd.errors import Unavailable
from agentainerd.model.requests import RequestState
from agentainerd.store import aof, journal, keys, marks
from agentainerd.store.connection import RedisClient

pytestmark = pytest.mark.redis


def accepted(store, count):
    return {store.accept(body=b"x" * 100).id for _ in range(count)}


def test_what_was_accepted_is_there_again(host):
    ids = accepted(host.start(), 5)
    host.stop()

    assert set(host.start().ids(RequestState.PENDING)) == ids


def test_old_copy_of_an_earlier_start_is_refused(host):
    accepted(host.start(), 3)
    host.stop()
    shutil.copytree(host.journal_dir, host.state / "copy")
    lost = accepted(host.start(), 3)
    host.stop()
    shutil.rmtree(host.journal_dir)
    (host.state / "copy").rename(host.journal_dir)

    error = host.refused()

    assert error.code == "JOURNAL_LOST"
    assert "old copy" in error.message
    assert host.refused().message == error.message, "looking changed nothing"
    assert lost


def test_what_a_later_version_wrote_is_refused_and_left_as_it_is(host, monkeypatch):
    monkeypatch.setattr(keys, "SCHEMA", keys.SCHEMA + 1)
    ids = accepted(host.start(), 3)
    host.stop()
    monkeypatch.undo()

    error = host.refused(hint="start the version that ran here last")

    assert (error.code, "written by a later version" in error.message) == ("JOURNAL_TOO_NEW", True)
    monkeypatch.setattr(keys, "SCHEMA", keys.SCHEMA + 1)
    later = host.start()
    assert set(later.ids(RequestState.PENDING)) == ids
    assert later.client.call("GET", keys.EPOCH) == b"2", "the refused start took none"


def test_old_copy_of_the_same_start_is_refused(host, monkeypatch, eventually):
    monkeypatch.setattr(journal, "MARK_INTERVAL_S", 0.02)
    store = host.start()
    accepted(store, 2)
    shutil.copytree(host.journal_dir, host.state / "copy")
    accepted(store, 3)
    eventually(lambda: marks.read(host.state).batch == 6, what="the mark")
    store.server.stop()
    host.stop()
    shutil.rmtree(host.journal_dir)
    (host.state / "copy").rename(host.journal_dir)

    error = host.refused()

    assert error.code == "JOURNAL_LOST"
    assert "it ends with batch 3 of start 1, and was written up to batch 6 of start 1 at least" in error.message


def test_mark_is_never_ahead_of_what_is_durable(host, monkeypatch):
    monkeypatch.setattr(journal, "MARK_INTERVAL_S", 0.001)
    for _ in range(4):
        store = host.start()
        accepted(store, 30)
        host.kill(store)

    host.start()


def test_journal_whose_files_are_gone_is_refused_until_the_loss_is_accepted(host):
    accepted(host.start(), 3)
    host.stop()
    shutil.rmtree(host.journal_dir)

    assert host.refused().code == "JOURNAL_LOST"
    [said] = host.accept_loss()

    assert "takes the journal that it finds" in said
    assert host.start().ids() == []
    assert [path.name[-10:] for path in (host.state / "journal.damaged").iterdir()] == ["journal.id"]


def test_loss_of_the_newest_requests_keeps_the_older_ones(host):
    kept = accepted(host.start(), 3)
    host.stop()
    shutil.copytree(host.journal_dir, host.state / "copy")
    accepted(host.start(), 3)
    host.stop()
    shutil.rmtree(host.journal_dir)
    (host.state / "copy").rename(host.journal_dir)
    assert host.refused().code == "JOURNAL_LOST"

    said = host.accept_loss()

    assert "the journal can be read: 0 agents, 3 requests that wait for delivery" in said
    assert set(host.start().ids()) == kept


def test_damage_in_the_middle_is_refused_until_the_loss_is_accepted(host):
    store = host.start()
    ids = accepted(store, 20)
    host.stop()
    last = next(aof.folder(host.journal_dir).glob("*.incr.aof"))
    data = bytearray(last.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 200] = b"?" * 200
    last.write_bytes(data)

    assert host.refused().code == "JOURNAL_DAMAGED"
    assert last.read_bytes() == data, "nothing was changed"
    said = host.accept_loss()

    assert "bytes at the end of" in said[0]
    left = set(host.start().ids())
    assert 0 < len(left) < 20
    assert left < ids
    copies = [path for path in (host.state / "journal.damaged").iterdir() if path.is_dir()]
    assert [(copy / last.name).read_bytes() for copy in copies] == [data]


@pytest.mark.parametrize("pattern", ["*.manifest", "*.base.rdb", "*.incr.aof"])
def test_lost_file_is_refused_until_the_loss_is_accepted(host, pattern):
    accepted(host.start(), 3)
    host.stop()
    next(aof.folder(host.journal_dir).glob(pattern)).unlink()

    assert host.refused().code == "JOURNAL_DAMAGED"
    said = host.accept_loss()

    assert "can't be read" in said[0]
    assert host.start().ids() == []
    assert any(path.name.endswith("appendonlydir") for path in (host.state / "journal.damaged").iterdir())


def test_whole_journal_loses_nothing_by_accepting(host):
    ids = accepted(host.start(), 3)
    host.stop()

    assert len(host.accept_loss()) == 2
    assert set(host.start().ids()) == ids


def test_torn_tail_is_no_loss(host):
    ids = accepted(host.start(), 3)
    host.stop()
    last = next(aof.folder(host.journal_dir).glob("*.incr.aof"))
    with last.open("ab") as file:
        file.write(b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\nx\r\n$10" + bytes(5000))

    assert set(host.start().ids()) == ids


def test_tail_that_lacks_what_was_answered_is_refused(host, caplog):
    accepted(host.start(), 3)
    host.stop()
    last = next(aof.folder(host.journal_dir).glob("*.incr.aof"))
    with last.open("r+b") as file:
        file.truncate(last.stat().st_size - 100)

    assert host.refused().code == "JOURNAL_LOST"
    assert "bytes off the end of" in caplog.text


def test_daemon_that_slept_through_a_takeover_finds_itself_refused(store, monkeypatch, eventually):
    monkeypatch.setattr(journal, "MARK_INTERVAL_S", 0.02)
    first = store.journal
    other = RedisClient(store.server.url)
    try:
        other.call("INCR", "agentainer:epoch")

        eventually(lambda: store.fenced, what="the end of the idle daemon")

        with pytest.raises(Unavailable) as error:
            first.accept(store.record())
        assert error.value.code == "JOURNAL_FENCED"
    finally:
        other.close()


def test_mark_that_can_not_be_written_stops_nothing_and_is_told_once(store, monkeypatch, eventually, caplog):
    monkeypatch.setattr(journal, "MARK_INTERVAL_S", 0.005)
    store.journal.close()
    store.journal = store.open()
    (store.folder / "journal.tmp").mkdir()
    store.accept()
    eventually(lambda: "could not be noted" in caplog.text, what="the warning")
    for _ in range(20):
        store.accept()

    (store.folder / "journal.tmp").rmdir()
    eventually(lambda: marks.read(store.folder).batch > 20, what="the mark")
    assert caplog.text.count("could not be noted") == 1


def test_stale_daemon_does_not_touch_the_mark_of_the_next(store):
    first = store.journal
    store.journal = store.open()

    first.close()

    assert marks.read(store.folder).epoch == 2
