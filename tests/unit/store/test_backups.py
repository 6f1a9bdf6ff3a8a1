"""Backups on disk: named when they are whole, and nothing but ids is ever a path."""

import os
import stat

import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, NotFound, Unavailable
from agentainerd.model.backups import FORMAT, Backup, Contents, Manifest
from agentainerd.store.backups import BackupFiles


@pytest.fixture
def files(tmp_path):
    return BackupFiles(tmp_path / "backups")


def backup(backup_id, name="daily", created_at=1.0):
    manifest = Manifest(format=FORMAT, id=backup_id, name=name, created_at=created_at, version="0", host="h")
    return Backup(manifest=manifest, contents=Contents(sha256="0" * 64), size=3)


def make(files, at=1763712345.0):
    made = backup(files.new_id(at), created_at=at)
    partial = files.create(made.id)
    partial.file.write(b"abc")
    partial.seal(made)
    partial.discard()
    return made


def test_a_backup_is_there_when_it_is_sealed(files):
    made = make(files)

    assert files.all() == [made]
    assert files.has(made.id)
    with files.open(made.id) as file:
        assert file.read() == b"abc"
    assert sorted(os.listdir(files.folder)) == [f"{made.id}.json", f"{made.id}.tar.gz"]


def test_only_its_owner_reads_it(files):
    made = make(files)

    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (files.folder, *files.folder.iterdir())]
    assert modes == [0o700, 0o600, 0o600]
    assert files.all() == [made]


def test_an_id_that_is_there_is_never_written_over(files):
    made = make(files)
    partial = files.create(files.new_id(1.0))
    partial.write(b"other")

    with pytest.raises(Conflict) as failure:
        partial.seal(made)
    partial.discard()

    assert failure.value.code == "BACKUP_EXISTS"
    with files.open(made.id) as file:
        assert file.read() == b"abc"
    assert len(os.listdir(files.folder)) == 2


def test_room_is_left_for_others(files, monkeypatch):
    partial = files.create(files.new_id(1.0))
    partial.write(b"x" * 2**20)
    monkeypatch.setattr(defaults, "MIN_FREE_DISK_BYTES", 2**60)

    with pytest.raises(Unavailable) as failure:
        for _ in range(64):
            partial.write(b"x" * 2**20)
    partial.discard()

    assert failure.value.code == "NO_SPACE"
    assert os.listdir(files.folder) == []


def test_two_in_one_second_have_two_ids(files):
    assert len({make(files).id for _ in range(20)}) == 20


def test_what_was_not_sealed_is_not_there(files):
    partial = files.create(files.new_id(1.0))
    partial.file.write(b"abc")
    partial.discard()

    assert files.all() == []
    assert os.listdir(files.folder) == []


def test_what_a_dead_daemon_left_is_tidied_up(files):
    made = make(files)
    partial = files.create(files.new_id(1.0))
    partial.file.close()

    assert files.tidy() == 1
    assert files.all() == [made]
    assert len(os.listdir(files.folder)) == 2


def test_an_archive_without_its_summary_is_found(files):
    made = make(files)
    (files.folder / f"{made.id}.json").write_text("{")

    assert files.all() == []
    assert files.unknown() == [made.id]
    files.note(made)
    assert (files.all(), files.unknown()) == ([made], [])


def test_a_summary_without_its_archive_is_not_listed(files):
    made = make(files)
    (files.folder / f"{made.id}.tar.gz").unlink()

    assert files.all() == []


def test_newest_first(files):
    old, new = make(files, 1763712345.0), make(files, 1763712999.0)

    assert files.all() == [new, old]


def test_removing_twice_is_fine(files):
    made = make(files)
    files.remove(made.id)
    files.remove(made.id)

    assert os.listdir(files.folder) == []


@pytest.mark.parametrize("ref", ["../x", "daily", "", "backup-1763712345-3fa91c/../x", "/etc/passwd"])
def test_no_other_path_is_ever_touched(files, ref):
    for verb in (files.open, files.remove, files.has, files.create):
        with pytest.raises(NotFound):
            verb(ref)


def test_a_folder_that_can_not_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable) as failure:
        BackupFiles(tmp_path / "file" / "backups").create("backup-1763712345-3fa91c")

    assert failure.value.code == "BACKUP_FOLDER"
