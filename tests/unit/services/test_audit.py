"""The audit log: one entry for each mutation, on disk before it is answered; one and a count for failures."""

import json
import os
import time

import gevent
import pytest

from agentainerd.errors import NotFound, Unavailable
from agentainerd.model.audit import AuditFilter
from agentainerd.services.audit import (
    EXPIRE_S,
    MAX_SOURCES,
    MAX_TEXT_CHARS,
    SUMMARY_S,
    Actor,
    AuditLimits,
    AuditService,
)
from agentainerd.store import audit as store
from agentainerd.store.audit import AuditFile
from agentainerd.supervisor import Supervisor

ALICE = Actor("unix:1000(alice)/pid 7", "unix", "r-1")
NOBODY = Actor("anonymous", "192.0.2.1")


@pytest.fixture
def audit(tmp_path):
    supervisor = Supervisor()
    service = AuditService(AuditFile(str(tmp_path), max_file_bytes=1 << 30), supervisor.spawn)
    yield service
    supervisor.stop(1.0)
    service.close()


@pytest.fixture
def lines(tmp_path):
    def read():
        path = tmp_path / "audit.log"
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    return read


def test_a_mutation_is_one_entry_when_it_has_ended(audit, lines):
    with audit.mutation(ALICE, "start_agent", "web") as entry:
        assert lines() == []
        entry.target = "agent-1"

    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert (len(line.pop("mac")), line.pop("prev")) == (32, "")
    assert line == {
        "seq": 1, "actor": "unix:1000(alice)/pid 7", "address": "unix", "action": "start_agent", "resource": "agent-1",
        "result": "ok", "request_id": "r-1",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("error", "result"), [(NotFound("agent", "web"), "AGENT_NOT_FOUND"), (RuntimeError("secret"), "INTERNAL")]
)
def test_one_that_fails_has_the_code_and_goes_on_failing(audit, lines, error, result):
    with pytest.raises(type(error)), audit.mutation(ALICE, "start_agent", "web"):
        raise error

    assert [line["result"] for line in lines()] == [result]
    assert "secret" not in str(lines())


def test_one_whose_client_leaves_is_written_too(audit, lines, eventually):
    def work():
        with audit.mutation(ALICE, "start_agent", "web"):
            gevent.sleep(60)

    worker = gevent.spawn(work)
    gevent.sleep(0)
    worker.kill()

    eventually(lambda: [line["result"] for line in lines()] == ["INTERRUPTED"])


def test_an_entry_is_synced_before_the_mutation_is_answered(audit, monkeypatch):
    happened = []
    real = os.fdatasync
    monkeypatch.setattr(store.os, "fdatasync", lambda descriptor: real(descriptor) or happened.append("synced"))

    with audit.mutation(ALICE, "start_agent", "web"):
        happened.append("done")
    happened.append("answered")

    assert happened == ["done", "synced", "answered"]


def test_concurrent_mutations_share_a_sync(audit, lines, monkeypatch):
    synced = []
    real = os.fdatasync

    def slow(descriptor):
        real(descriptor)
        synced.append(1)

    monkeypatch.setattr(store.os, "fdatasync", slow)
    workers = [gevent.spawn(audit.record, ALICE, "x", str(number)) for number in range(200)]
    gevent.joinall(workers, raise_error=True)

    assert len(lines()) == 200
    assert len(synced) <= 3


def test_many_at_once_are_whole_and_in_one_chain(audit, lines):
    workers = [gevent.spawn(lambda: [audit.record(ALICE, "x", "y" * 200) for _ in range(50)]) for _ in range(8)]
    gevent.joinall(workers, raise_error=True)

    assert [line["seq"] for line in lines()] == list(range(1, 401))
    assert audit.verify().fault_count == 0


def test_texts_are_cut_and_lines_stay_lines(audit, lines):
    audit.record(Actor("x" * 1000, "s\nforged"), "deploy_agent", "a\n{}" + "y" * 1000)
    audit.record(ALICE, "deploy_agent", "half \udcff \ud800 \u2028")

    first, second = lines()
    assert (len(first["actor"]), len(first["resource"])) == (MAX_TEXT_CHARS, MAX_TEXT_CHARS)
    assert first["address"] == "s\nforged"
    assert second["resource"] == "half \\udcff \\ud800 \u2028"
    assert audit.verify().fault_count == 0


def test_the_first_refusal_of_a_source_is_an_entry_and_the_rest_a_count(audit, lines, eventually):
    for _ in range(100):
        audit.refuse(NOBODY, "log_in", now=1000.0)
    audit.refuse(Actor("anonymous", "192.0.2.2"), "log_in", now=1000.0)
    eventually(lambda: [line["address"] for line in lines()] == ["192.0.2.1", "192.0.2.2"])

    assert audit.flush(1000.0 + SUMMARY_S - 1) == 0
    assert audit.flush(1000.0 + SUMMARY_S) == 1

    eventually(lambda: lines()[-1]["resource"] == "99 more")
    assert lines()[-1]["result"] == "refused"
    assert audit.flush(1000.0 + 3 * SUMMARY_S) == 0  # nothing came since
    audit.refuse(NOBODY, "log_in", now=2000.0)
    eventually(lambda: len(lines()) == 4)


def test_many_sources_share_one_count(audit, lines, eventually):
    for number in range(MAX_SOURCES + 50):
        audit.refuse(Actor("anonymous", f"10.0.{number // 250}.{number % 250}"), "log_in", now=1000.0)

    eventually(lambda: len(lines()) == MAX_SOURCES + 1)
    assert lines()[-1]["address"] != "others"  # the first of them is told with its own address
    assert audit.flush(1000.0 + SUMMARY_S) == 1
    eventually(lambda: (lines()[-1]["address"], lines()[-1]["resource"]) == ("others", "49 more"))


def test_a_flood_of_guesses_from_everywhere_fills_no_disk(audit, tmp_path, eventually):
    """An hour of a million guesses a minute, each from another address."""
    for minute in range(60):
        for number in range(1000):
            audit.refuse(Actor("anonymous", f"2001:db8:{minute:x}:{number:x}::1"), "log_in", now=60.0 * minute)
        audit.flush(60.0 * (minute + 1))
    eventually(lambda: not audit._is_writing)

    assert (tmp_path / "audit.log").stat().st_size < 60 * 2.5 * MAX_SOURCES * 300


def test_nothing_is_changed_while_it_cannot_be_recorded(audit, lines, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "audit.log").mkdir()
    with pytest.raises(Unavailable, match=r"start_agent of 'web' was done, but is not on record: Is a directory"):
        audit.record(ALICE, "start_agent", "web")
    begun = []
    for _ in range(3):
        with (
            pytest.raises(Unavailable, match="nothing is changed while changes can't be recorded") as failure,
            audit.mutation(ALICE, "stop_agent", "web"),
        ):
            begun.append(1)
    assert failure.value.code == "AUDIT_UNAVAILABLE"
    assert begun == []
    assert caplog.text.count("the audit log cannot be written") == 1
    assert "cannot be written" in audit.trouble

    (tmp_path / "audit.log").rmdir()
    with audit.mutation(ALICE, "restart_agent", "web"):
        pass

    assert audit.trouble == ""
    assert [line["action"] for line in lines()] == ["start_agent", "restart_agent"]
    assert "is written again" in caplog.text


def test_a_change_that_failed_keeps_its_own_error(audit, tmp_path):
    (tmp_path / "audit.log").mkdir()
    with pytest.raises(NotFound), audit.mutation(ALICE, "start_agent", "web"):
        raise NotFound("agent", "web")


def test_a_refusal_never_waits_and_never_fails(audit, tmp_path):
    (tmp_path / "audit.log").mkdir()

    audit.refuse(NOBODY, "log_in")


def test_what_is_too_much_or_too_old_is_removed_now_and_then(audit, tmp_path, caplog):
    caplog.set_level("INFO")
    now = time.time()
    audit.limits = AuditLimits(file_bytes=2000, keep_bytes=6000, keep_s=3600.0)
    audit.expire(now)  # a new size of files holds from here on
    for number in range(60):
        audit.record(ALICE, "x", str(number))
    assert audit.expire(now + EXPIRE_S - 1) == 0

    assert audit.expire(now + EXPIRE_S) > 3

    assert sum(path.stat().st_size for path in tmp_path.glob("audit.log*")) < 6500
    assert audit.verify().fault_count == 0
    assert audit.expire(now + 2 * EXPIRE_S + 7200) >= 1  # everything that is full is older than an hour then
    assert [path.name for path in tmp_path.glob("audit.log.*")] == []
    said = [record for record in caplog.records if "audit log is at entry" in record.message]
    assert [record.seal for record in said][-1] == audit._file.head.mac


def test_what_cannot_be_removed_is_an_error_of_the_loop(audit, monkeypatch):
    monkeypatch.setattr(audit._file, "expire", lambda *_: (_ for _ in ()).throw(OSError(13, "Permission denied")))

    with pytest.raises(Unavailable, match="Permission denied"):
        audit.expire(time.time())


def test_what_waits_is_written_before_the_file_is_closed(audit, lines):
    audit.refuse(NOBODY, "log_in")
    assert lines() == []

    audit.close()

    assert [line["action"] for line in lines()] == ["log_in"]


def test_a_start_after_a_crash_says_what_it_found(tmp_path, caplog):
    supervisor = Supervisor()
    for _ in range(2):
        audit = AuditService(AuditFile(str(tmp_path), max_file_bytes=1 << 30), supervisor.spawn)
        audit.open()
        audit.record(ALICE, "x", "y")
        audit.close()
        with (tmp_path / "audit.log").open("ab") as log:
            log.write(b'{"seq":')

    assert "was not written to its end" in caplog.text


def test_entries_are_read_newest_first(audit):
    for number in range(5):
        audit.record(ALICE, "x", str(number))

    found, cursor = audit.page(AuditFilter(), 2)
    rest, end = audit.page(AuditFilter(), 10, cursor)

    assert [entry.resource for entry in [*found, *rest]] == ["4", "3", "2", "1", "0"]
    assert end == ""


def test_a_log_that_cannot_be_read_is_told(audit, tmp_path):
    (tmp_path / "audit.log").mkdir()

    for read in (audit.verify, lambda: audit.page(AuditFilter(), 1)):
        with pytest.raises(Unavailable, match="can't be read"):
            read()
