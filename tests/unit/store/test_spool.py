import gc
import os

import pytest

from agentainerd.errors import NotFound, Unavailable
from agentainerd.store.spool import Spool


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool")


def names(spool):
    return sorted(path.name for path in spool.folder.iterdir())


def test_sealed_body_has_its_name_and_is_private(spool):
    writer = spool.create("id-1")
    writer.write(b"abc")
    assert names(spool) == ["id-1.tmp"]

    assert writer.seal() == "id-1.body"

    assert names(spool) == ["id-1.body"]
    assert spool.path("id-1.body").stat().st_mode & 0o777 == 0o600
    assert spool.folder.stat().st_mode & 0o777 == 0o700
    assert b"".join(spool.pieces("id-1.body")) == b"abc"


def test_sealing_twice_is_one_seal(spool):
    writer = spool.create("id-1")

    assert writer.seal() == writer.seal() == "id-1.body"


def test_what_was_written_is_read_back_before_and_after_the_seal(spool):
    writer = spool.create("id-1")
    writer.write(b"a" * 600_000)
    writer.write(b"b")
    assert b"".join(writer.pieces()) == b"a" * 600_000 + b"b"

    writer.seal()

    assert b"".join(writer.pieces()) == b"a" * 600_000 + b"b"


def test_discarded_body_is_gone_sealed_or_not(spool):
    unsealed, sealed = spool.create("id-1"), spool.create("id-2")
    sealed.seal()

    for writer in (unsealed, sealed):
        writer.discard()
        writer.discard()

    assert names(spool) == []


def test_writer_that_is_forgotten_leaves_nothing(spool):
    writer = spool.create("id-1")
    writer.write(b"abc")
    del writer
    gc.collect()

    assert names(spool) == []


def test_full_disk_is_told_by_its_code_and_leaves_nothing(spool):
    (spool.folder / "id-1.tmp").symlink_to("/dev/full")
    writer = spool.create("id-1")

    with pytest.raises(Unavailable) as error:
        writer.write(b"abc")

    assert error.value.code == "NO_SPACE"
    assert names(spool) == []


def test_folder_that_can_not_be_written_is_told(spool):
    spool.folder.rmdir()
    spool.folder.write_text("a file")

    with pytest.raises(Unavailable) as error:
        spool.create("id-1")

    assert error.value.code == "SPOOL_FAILED"


@pytest.mark.parametrize("name", ["", "x", "../x.body", "a/b.body", "x.tmp", "x.body\n", "." * 70 + ".body"])
def test_name_that_is_not_of_the_spool_is_not_found(spool, name):
    assert not spool.exists(name)
    with pytest.raises(NotFound):
        spool.path(name)


def test_reading_what_is_not_there_is_not_found(spool):
    with pytest.raises(NotFound):
        next(spool.pieces("id-1.body"))


def test_removing_what_is_not_there_is_fine(spool):
    spool.create("id-1").seal()

    spool.remove(["id-1.body", "id-2.body"])

    assert names(spool) == []


def test_unclaimed_files_are_old_and_not_being_written(spool):
    written = spool.create("id-1")
    old = spool.create("id-2")
    old.seal()
    del old
    spool.create("id-3").seal()
    for name in ("id-1.tmp", "id-2.body"):
        os.utime(spool.folder / name, (1, 1))

    assert spool.unclaimed(60.0) == ["id-2.body"]

    spool.sweep(["id-2.body"])
    assert names(spool) == ["id-1.tmp", "id-3.body"]
    written.discard()
