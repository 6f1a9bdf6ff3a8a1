"""The audit log on disk: crashes, full disks, rotation, and what somebody does to its files."""

import json
import os
import subprocess
import sys

import gevent
import pytest
from gevent import monkey

from agentainerd import offload
from agentainerd.model import audit as model
from agentainerd.model.audit import AuditEntry, AuditFilter
from agentainerd.store import audit as module
from agentainerd.store.audit import AuditFile

EVERYTHING = AuditFilter()
LARGE = 1 << 30


def draft(action: str = "start_agent", resource: str = "web", time: str = "2026-11-20T10:00:00.000Z") -> AuditEntry:
    return AuditEntry(time=time, actor="token:ci", action=action, resource=resource)


@pytest.fixture
def opened(tmp_path):
    files = []

    def build(max_file_bytes: int = LARGE) -> AuditFile:
        files.append(AuditFile(str(tmp_path), max_file_bytes=max_file_bytes))
        return files[-1]

    yield build
    for file in files:
        file.close()


@pytest.fixture
def file(opened):
    return opened()


def check(file: AuditFile):
    with file.view() as view:
        return view.check()


def actions(file: AuditFile, limit: int = 1000) -> list[str]:
    """Oldest first."""
    with file.view() as view:
        return [entry.action for entry in view.page(EVERYTHING, limit, "")[0]][::-1]


def lines(folder, name: str = "audit.log") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_entries_are_lines_in_order_and_closed_to_others(file, tmp_path):
    file.append([draft("one"), draft("two")])
    file.append([draft("three")])

    assert [(line["seq"], line["action"]) for line in lines(tmp_path)] == [(1, "one"), (2, "two"), (3, "three")]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {
        "audit.log": "0o600", "audit.key": "0o600", "audit.head": "0o600",
    }  # fmt: skip
    assert check(file).fault_count == 0


def test_an_append_is_on_disk_when_it_returns_with_one_sync(file, monkeypatch):
    file.append([])
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(
        module.os, "fdatasync", lambda descriptor: synced.append(os.fstat(descriptor).st_size) or real(descriptor)
    )

    file.append([draft() for _ in range(10)])

    assert len(synced) == 1
    assert synced[0] == os.stat(file._path).st_size


def test_a_disk_that_does_not_answer_keeps_one_thread_busy(file, monkeypatch, eventually):
    """There are ten, for all that is done in threads."""
    file.append([])
    answers = monkey.get_original("threading", "Event")()
    real = os.fdatasync
    monkeypatch.setattr(module.os, "fdatasync", lambda descriptor: answers.wait(20) and real(descriptor))
    writer = gevent.spawn(file.append, [draft()])
    gevent.sleep(0)
    readers = [gevent.spawn(check, file) for _ in range(30)]
    gevent.sleep(0)

    try:
        with gevent.Timeout(5):
            assert offload.run(lambda: "free") == "free"
    finally:
        answers.set()
    gevent.joinall([writer, *readers], raise_error=True, timeout=10)


def test_the_chain_goes_on_after_a_restart(opened, tmp_path):
    opened().append([draft("one")])
    opened().append([draft("two")])

    assert [line["seq"] for line in lines(tmp_path)] == [1, 2]
    assert check(opened()).fault_count == 0


TORN = [b'{"seq":3,"time":"2026', b"\0\0\0\0", b'{"seq":3}', b"x" * 200_000]


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_line_is_ended_and_noted(opened, tmp_path, caplog, torn):
    opened().append([draft("one"), draft("two")])
    with (tmp_path / "audit.log").open("ab") as log:
        log.write(torn)

    again = opened()
    again.append([draft("three")])

    found = check(again)
    assert (found.fault_count, found.torn, found.entries) == (0, 1, 4)
    assert actions(again) == ["one", "two", model.NOTE_TORN, "three"]
    assert f"({len(torn)} bytes)" in caplog.text


@pytest.mark.parametrize("cut", range(1, 250, 7))
def test_a_line_cut_anywhere_is_noted_and_only_where_something_is_missing(opened, tmp_path, cut):
    opened().append([draft("one"), draft("two")])
    log = tmp_path / "audit.log"
    log.write_bytes(log.read_bytes()[:-cut])
    # A loss of power takes the same from both: the head is never newer than the log.
    first = lines_that_are_whole(log)
    (tmp_path / "audit.head").unlink()

    again = opened()
    again.append([draft("three")])

    found = check(again)
    assert found.fault_count == 0
    assert [action for action in actions(again) if not action.startswith("note_")] == [*first, "three"]


def lines_that_are_whole(path) -> list[str]:
    return [entry.action for line in path.read_bytes().split(b"\n") if (entry := model.parse(line))]


def test_a_crash_between_a_torn_line_and_its_note_is_no_fault(opened, tmp_path):
    opened().append([draft("one")])
    with (tmp_path / "audit.log").open("ab") as log:
        log.write(b'{"seq":2,"ti\n')

    again = opened()
    again.append([draft("two")])

    assert (check(again).fault_count, check(again).torn) == (0, 1)


KILLED = """
import os, signal, sys
from gevent import monkey
monkey.patch_all()
from agentainerd.model.audit import AuditEntry
from agentainerd.store.audit import AuditFile
file = AuditFile(sys.argv[1], max_file_bytes=20000)
number = 0
while True:
    number += 1
    file.append([AuditEntry(time="2026-11-20T10:00:00.000Z", actor="x", action="a", resource=str(number))])
    print(number, flush=True)
"""


@pytest.mark.parametrize("after", [3, 57, 140, 333])
def test_what_was_answered_before_a_sigkill_is_there_and_the_chain_is_whole(opened, tmp_path, after):
    program = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE)
    answered = 0
    while answered < after:
        answered = int(program.stdout.readline())
    program.kill()
    answered = max([answered, *map(int, program.stdout.read().split())])
    program.wait()
    program.stdout.close()

    again = opened()
    again.append([draft("after")])

    found = check(again)
    assert found.fault_count == 0
    with again.view() as view:
        kept = [int(entry.resource) for entry in view.page(AuditFilter(actions=("a",)), 10_000, "")[0]]
    assert kept[::-1] == list(range(1, len(kept) + 1))
    assert len(kept) >= answered


def test_a_full_disk_loses_nothing(file, tmp_path, monkeypatch):
    file.append([draft("one")])
    real = os.write
    room = [100]

    def write(descriptor, data):
        if not room[0]:
            raise OSError(28, "No space left on device")
        taken, room[0] = data[: room[0]], 0
        return real(descriptor, taken)

    monkeypatch.setattr(module.os, "write", write)
    for action in ("two", "three"):
        with pytest.raises(OSError, match="No space"):
            file.append([draft(action)])
    with pytest.raises(OSError, match="No space"):
        file.append([])
    monkeypatch.undo()
    file.append([draft("four")])

    assert [action for action in actions(file) if action != model.NOTE_TORN] == ["one", "two", "three", "four"]
    assert check(file).fault_count == 0


def test_what_was_written_before_the_sync_failed_is_not_written_twice(file, monkeypatch):
    file.append([draft("one")])
    monkeypatch.setattr(module.os, "fdatasync", lambda _: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):
        file.append([draft("two"), draft("three")])
    monkeypatch.undo()

    file.append([draft("four")])

    assert actions(file) == ["one", "two", "three", "four"]
    assert check(file).fault_count == 0


def test_what_waits_for_the_disk_is_bounded_and_what_is_lost_is_counted(file, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_OWED", 3)
    (tmp_path / "audit.log").mkdir()
    for number in range(5):
        with pytest.raises(OSError, match="directory"):
            file.append([draft(f"a{number}")])
    (tmp_path / "audit.log").rmdir()

    file.append([draft("after")])

    assert actions(file) == ["a0", "a1", "a2", "after", model.NOTE_LOST]
    assert lines(tmp_path)[-1]["resource"].startswith("2 could not")


def test_a_link_in_its_place_is_not_followed(file, tmp_path):
    (tmp_path / "passwd").write_text("root\n")
    (tmp_path / "audit.log").symlink_to(tmp_path / "passwd")

    with pytest.raises(OSError):
        file.append([draft()])

    assert (tmp_path / "passwd").read_text() == "root\n"


def test_a_full_file_is_renamed_and_the_chain_goes_over_it(opened, tmp_path):
    file = opened(2000)
    for number in range(30):
        file.append([draft(f"a{number}")])

    full = sorted(path.name for path in tmp_path.glob("audit.log.*"))
    assert len(full) > 2
    assert full[0] == "audit.log.000000000001"
    assert all(lines(tmp_path, name)[0]["seq"] == int(name[-12:]) for name in full)
    assert actions(file) == [f"a{number}" for number in range(30)]
    assert check(file).fault_count == 0
    assert check(opened(2000)).fault_count == 0


def test_the_open_file_is_never_renamed_or_removed(opened, tmp_path, monkeypatch):
    """Whatever rotation and retention touch, no descriptor of ours is open on it."""
    touched = []

    def is_open(path) -> bool:
        there = os.stat(path)
        numbers = os.listdir("/proc/self/fd")
        return any(os.path.samestat(os.stat(f"/proc/self/fd/{number}"), there) for number in numbers if exists(number))

    def exists(number) -> bool:
        return os.path.exists(f"/proc/self/fd/{number}")

    for name in ("rename", "unlink"):
        real = getattr(os, name)
        monkeypatch.setattr(
            module.os, name, lambda path, *to, real=real: (touched.append(is_open(path)), real(path, *to))
        )
    file = opened(2000)
    for number in range(30):
        file.append([draft(f"a{number}")])
    file.expire(3000, "")

    assert len(touched) > 3
    assert not any(touched)


def test_a_full_file_that_cannot_be_set_aside_grows_and_is_told_once(opened, tmp_path, monkeypatch, caplog):
    """As where somebody made it append-only (chattr +a)."""
    file = opened(1000)
    monkeypatch.setattr(module.os, "rename", lambda *_: (_ for _ in ()).throw(OSError(1, "Operation not permitted")))
    for number in range(20):
        file.append([draft(f"a{number}")])
    assert [path.name for path in tmp_path.glob("audit.log*")] == ["audit.log"]
    assert caplog.text.count("can't be set aside: Operation not permitted") == 1
    monkeypatch.undo()

    file.append([draft("a20")])

    assert [path.name for path in tmp_path.glob("audit.log*")] == ["audit.log.000000000001"]
    assert actions(file) == [f"a{number}" for number in range(21)]
    assert check(file).fault_count == 0


def test_a_name_that_is_taken_is_not_written_over(opened, tmp_path, caplog):
    (tmp_path / "audit.log.000000000001").write_text("somebody's")
    file = opened(300)
    file.append([draft("one"), draft("two")])

    assert (tmp_path / "audit.log.000000000001").read_text() == "somebody's"
    assert "is there already" in caplog.text


def test_a_restart_between_closing_a_full_file_and_opening_the_next_one_changes_nothing(opened, tmp_path):
    opened(400).append([draft("one"), draft("two")])
    assert not (tmp_path / "audit.log").exists()

    again = opened()
    again.append([draft("three")])

    assert actions(again) == ["one", "two", "three"]
    assert check(again).fault_count == 0


def test_what_expires_is_the_oldest_and_is_not_missed(opened, tmp_path):
    file = opened(2000)
    for number in range(40):
        file.append([draft(f"a{number}")])
    full = sorted(path.name for path in tmp_path.glob("audit.log.*"))

    gone = file.expire(5000, "")

    assert gone == full[: len(gone)]
    assert 0 < len(gone) < len(full)
    assert sum(path.stat().st_size for path in tmp_path.glob("audit.log*")) < 5000 + 500
    found = check(file)
    assert (found.fault_count, found.first) == (0, lines(tmp_path, full[len(gone)])[0]["seq"])
    assert actions(file)[-1] == model.EXPIRE
    assert file.expire(5000, "") == []


def test_what_is_old_expires_and_the_open_file_never_does(opened):
    file = opened(2000)
    for number in range(20):
        file.append([draft(f"a{number}", time=f"2026-11-{number + 1:02d}T00:00:00.000Z")])

    assert file.expire(LARGE, "2026-11-01T00:00:00.000Z") == []
    file.expire(LARGE, "2026-11-10T00:00:00.000Z")
    assert actions(file)[0] <= "a9"
    file.expire(LARGE, "2027-01-01T00:00:00.000Z")
    file.expire(0, "2027-01-01T00:00:00.000Z")
    assert model.EXPIRE in actions(file)
    assert check(file).fault_count == 0


def test_a_crash_between_the_note_of_an_expiry_and_the_removal_is_no_fault(opened, tmp_path, monkeypatch):
    file = opened(2000)
    for number in range(30):
        file.append([draft(f"a{number}")])
    monkeypatch.setattr(module.os, "unlink", lambda _: (_ for _ in ()).throw(OSError(5, "killed here")))
    with pytest.raises(OSError, match="killed here"):
        file.expire(3000, "")
    monkeypatch.undo()

    again = opened(2000)

    assert check(again).fault_count == 0
    assert again.expire(3000, "")
    assert check(again).fault_count == 0


def test_an_entry_that_somebody_put_at_the_end_is_not_gone_on_from(opened, tmp_path):
    """Not its number either, which may be one behind which there is none."""
    opened().append([draft("one")])
    forged, line = model.seal(draft("forged"), model.Link(2**64 - 2, "0" * 32), b"x" * 32)
    with (tmp_path / "audit.log").open("ab") as log:
        log.write(line)

    again = opened()
    again.append([draft("two")])

    assert [line["seq"] for line in lines(tmp_path) if line["action"] == "two"] == [2]
    assert [(fault.line, fault.seq) for fault in check(again).faults][0] == (2, forged.seq)


def test_an_expiry_counts_only_what_is_sealed(opened, tmp_path):
    file = opened(2000)
    for number in range(30):
        file.append([draft(f"a{number}")])
    names = sorted(path.name for path in tmp_path.glob("audit.log.*"))
    oldest = tmp_path / names[0]
    last = lines(tmp_path, names[0])[-1]["seq"]
    oldest.write_bytes(oldest.read_bytes().replace(b'{"seq":%d,' % last, b'{"seq":20,'))

    file.expire(sum(path.stat().st_size for path in tmp_path.glob("audit.log*")) - 1, "")
    (tmp_path / names[1]).unlink()

    assert not oldest.exists()
    assert check(file).faults[0].reason.startswith(f"entries {last} to ")


def test_a_file_that_cannot_be_verified_goes_when_there_is_no_room_and_is_missed(opened, tmp_path):
    file = opened(2000)
    for number in range(30):
        file.append([draft(f"a{number}")])
    names = sorted(path.name for path in tmp_path.glob("audit.log.*"))
    (tmp_path / names[0]).write_bytes(b"x" * 2000 + b"\n")

    assert file.expire(LARGE, "2027-01-01T00:00:00.000Z") == []  # nothing says how old it is
    assert file.expire(2000 * (len(names) - 1), "") == names[:2]

    assert model.NOTE_REMOVED in actions(file)
    assert actions(file)[-1] == model.EXPIRE


def test_an_older_file_that_is_removed_by_hand_is_missed(opened, tmp_path):
    file = opened(2000)
    for number in range(30):
        file.append([draft(f"a{number}")])
    (tmp_path / "audit.log.000000000001").unlink()

    fault = check(file).faults[0]

    assert (fault.file, fault.line) == (sorted(path.name for path in tmp_path.glob("audit.log.*"))[0], 1)
    assert fault.reason.startswith("entries 1 to ")


def test_entries_cut_off_at_the_end_while_nothing_runs_are_missed(opened, tmp_path, caplog):
    file = opened()
    file.append([draft(f"a{number}") for number in range(5)])
    file.close()
    log = tmp_path / "audit.log"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:3]))

    again = opened()
    again.append([draft("after")])

    found = check(again)
    assert [(fault.line, fault.seq, fault.reason) for fault in found.faults] == [
        (4, 6, "entries 4 to 5 are missing before this one")
    ]
    assert "entries 4-5 are missing" in caplog.text
    assert actions(again)[3] == model.NOTE_MISSING


def test_entries_cut_off_while_it_runs_are_missed(file, tmp_path):
    file.append([draft(f"a{number}") for number in range(5)])
    with (tmp_path / "audit.log").open("r+b") as log:
        log.truncate(len(b"".join((tmp_path / "audit.log").read_bytes().splitlines(keepends=True)[:3])))

    assert check(file).faults[0].reason == "entries 4 to 5 are missing after this line, the last one"


def test_a_log_that_is_moved_away_while_it_runs_is_noted_and_missed(file, tmp_path, caplog):
    file.append([draft("one"), draft("two")])
    (tmp_path / "audit.log").rename(tmp_path / "elsewhere")

    file.append([draft("three")])

    assert model.NOTE_MOVED in actions(file)
    assert "moved away" in caplog.text
    assert check(file).faults[0].reason == "entries 1 to 2 are missing before this one"


def test_a_head_that_is_missing_or_forged_is_noted(opened, tmp_path):
    opened().append([draft("one")])
    (tmp_path / "audit.head").write_text(f"{1:012d} {'0' * 32} {'0' * 64}\n")

    again = opened()
    again.append([draft("two")])

    assert actions(again) == ["one", model.NOTE_MISSING, "two"]
    assert check(again).fault_count == 0


def test_a_key_that_was_replaced_is_noted_and_what_is_older_cannot_be_verified(opened, tmp_path):
    opened().append([draft("one")])
    (tmp_path / "audit.key").unlink()

    again = opened()
    again.append([draft("two")])

    found = check(again)
    assert [(fault.line, fault.seq) for fault in found.faults] == [(1, 1)]
    assert model.NOTE_KEY in actions(again)


def test_a_log_of_a_version_without_a_chain_is_kept_and_its_digest_is_in_the_chain(file, tmp_path):
    old = '{"time": "2026-01-01T00:00:00Z", "actor": "x", "source": "unix", "action": "a", "target": "", "result": "ok"}\n'
    (tmp_path / "audit.log").write_text(old * 3)

    file.append([draft("new")])

    assert (tmp_path / "audit.log.unchained").read_text() == old * 3
    assert actions(file) == [model.NOTE_OLDER, "new"]
    assert check(file).fault_count == 0


def test_a_first_line_that_somebody_broke_does_not_make_it_an_older_log(opened, tmp_path):
    opened().append([draft("one"), draft("two")])
    log = tmp_path / "audit.log"
    log.write_bytes(b"x" + log.read_bytes())

    again = opened()
    again.append([draft("three")])

    assert not (tmp_path / "audit.log.unchained").exists()
    assert check(again).faults[0].line == 1
