import errno
from pathlib import Path

import pytest

from agentainerd.errors import Failed, Unavailable
from agentainerd.store import marks
from agentainerd.store.marks import Mark

JOURNAL = "0123456789abcdef" * 2


def test_mark_is_read_as_it_was_written(tmp_path):
    marks.write(tmp_path, Mark(JOURNAL, 7, 123_456))

    assert marks.read(tmp_path) == Mark(JOURNAL, 7, 123_456)
    assert [path.name for path in tmp_path.iterdir()] == ["journal.id"]


def test_folder_without_a_mark_never_had_a_journal(tmp_path):
    assert marks.read(tmp_path) is None


def test_mark_of_an_earlier_version_has_the_id_alone(tmp_path):
    marks.path(tmp_path).write_text(JOURNAL + "\n")

    assert marks.read(tmp_path) == Mark(JOURNAL, 0, 0)


@pytest.mark.parametrize("text", ["", "\0" * 50, "nonsense", JOURNAL + "\nepoch x batch 1", JOURNAL[:-1]])
def test_file_that_is_no_mark_is_damage(tmp_path, text):
    marks.path(tmp_path).write_text(text)

    with pytest.raises(Failed) as error:
        marks.read(tmp_path)

    assert error.value.code == "JOURNAL_DAMAGED"
    assert f"agentainerd --state-dir {tmp_path} --accept-journal-loss" in error.value.hint


def test_full_disk_leaves_the_mark_as_it_was(tmp_path, monkeypatch):
    marks.write(tmp_path, Mark(JOURNAL, 1, 1))

    def full(*ignored):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)

    with pytest.raises(Unavailable) as error:
        marks.write(tmp_path, Mark(JOURNAL, 2, 2))

    assert error.value.code == "STATE_NOT_WRITABLE"
    assert marks.read(tmp_path) == Mark(JOURNAL, 1, 1)
