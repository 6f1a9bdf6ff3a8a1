"""Where volumes are written to: what is free, what fits, and what is never touched."""

import os

import pytest

from agentainerd.errors import Conflict
from agentainerd.model.backups import Entry, EntryKind, Omissions
from agentainerd.services.backup_places import LiveFile, LiveFolder, NewFolder, free_bytes, is_free

ROOT = Entry(path="", kind=EntryKind.FOLDER, mode=0o755, uid=os.geteuid(), gid=os.getegid())
ALONE = Entry(path="", kind=EntryKind.FILE, mode=0o600, uid=os.geteuid(), gid=os.getegid(), size=1)


def test_what_is_free(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("empty")

    free = [name for name in ("nothing", "empty", "file", "link", ".") if is_free(str(tmp_path / name))]

    assert free == ["nothing", "empty"]


def test_room_is_that_of_the_file_system_where_it_will_be(tmp_path):
    assert free_bytes(str(tmp_path / "a/b/c"))[0] == os.stat(tmp_path).st_dev


def test_a_new_folder_replaces_an_empty_one(tmp_path):
    (tmp_path / "to").mkdir(mode=0o700)
    place = NewFolder(str(tmp_path / "to"), "m", Omissions())

    place.receive(ROOT, iter(()))
    place.commit()

    assert os.stat(tmp_path / "to").st_mode & 0o777 == 0o755
    assert os.listdir(tmp_path) == ["to"]


def test_a_new_folder_is_made_with_those_above_it(tmp_path):
    place = NewFolder(str(tmp_path / "a/b/to"), "m", Omissions())

    place.receive(ROOT, iter(()))
    place.commit()

    assert (tmp_path / "a/b/to").is_dir()


@pytest.mark.parametrize("entry", [ROOT, ALONE])
def test_a_new_place_that_is_taken_stays_as_it_is(tmp_path, entry):
    place = NewFolder(str(tmp_path / "to"), "m", Omissions())
    place.receive(entry, iter([b"x"]))
    (tmp_path / "to").write_text("mine")

    with pytest.raises(Conflict):
        place.commit()
    place.abandon()

    assert (tmp_path / "to").read_text() == "mine"
    assert os.listdir(tmp_path) == ["to"]


@pytest.mark.parametrize("kind", [LiveFolder, LiveFile])
def test_a_folder_does_not_become_a_file_nor_the_other_way(tmp_path, kind):
    path = tmp_path / "to"
    path.mkdir() if kind is LiveFolder else path.touch()
    place = kind(str(path), "m", Omissions())

    with pytest.raises(Conflict):
        place.receive(ALONE if kind is LiveFolder else ROOT, iter(()))
    place.abandon()

    assert os.listdir(tmp_path) == ["to"]


def test_what_an_earlier_restore_left_is_removed(tmp_path):
    staging = tmp_path / ".agentainer-restore-m" / "new"
    staging.mkdir(parents=True)
    (staging / "half").touch()
    (tmp_path / "old").touch()
    place = LiveFolder(str(tmp_path), "m", Omissions())

    place.receive(ROOT, iter(()))
    place.commit()

    assert os.listdir(tmp_path) == []
