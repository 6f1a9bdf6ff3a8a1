"""Reading a folder into an archive and writing it out again: bit for bit, or said."""

import io
import os
import random
import subprocess
import sys
import threading

import pytest

from agentainerd.model.backups import FORMAT, BackedVolume, Manifest, Omissions
from agentainerd.services.backup_archive import ArchiveReader, ArchiveWriter
from agentainerd.services.backup_folders import FolderReader
from agentainerd.services.backup_progress import Watch
from agentainerd.services.backup_trees import TreeWriter
from tests.fakes.volumes import fill, look

SIGNS = [sign for sign in range(1, 256) if sign != ord("/")]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="owners are root's to set")


def pack(folder, watch=None):
    manifest = Manifest(
        format=FORMAT, id="backup-1763712345-3fa91c", name="x", created_at=0, version="0", host="", volumes=(BackedVolume("v"),)
    )  # fmt: skip
    out = io.BytesIO()
    archive = ArchiveWriter(out.write, manifest, watch or Watch())
    FolderReader(archive, 0, "v").read(str(folder))
    return out, archive.finish()


def unpack(out, folder):
    folder.mkdir()
    root = os.open(folder, os.O_RDONLY)
    out.seek(0)
    omissions = Omissions()
    tree = TreeWriter(root, omissions, "v")
    for _, entry, pieces in ArchiveReader(out, Watch()).entries():
        tree.add(entry, pieces)
    tree.finish()
    os.close(root)
    return omissions


def reasons(contents):
    return {each.path: each.reason for each in contents.omissions}


@as_root
def test_a_mix_of_everything_comes_back_bit_for_bit_or_is_named(tmp_path):
    fill(tmp_path / "from")

    out, contents = pack(tmp_path / "from")
    omissions = unpack(out, tmp_path / "to")

    assert look(tmp_path / "to") == look(tmp_path / "from")
    assert reasons(contents) == {"pipe": "a pipe (FIFO) is not kept", "socket": "a socket is not kept"}
    assert omissions.count == 0
    assert os.stat(tmp_path / "to/linked").st_ino == os.stat(tmp_path / "to/deep/er/linked, from below").st_ino


def test_a_million_bytes_of_names_come_back(tmp_path):
    """Names of every length, of any bytes but NUL and slash, in folders and folders of folders."""
    dice, total = random.Random(7), 0
    folder = os.fsencode(tmp_path / "from")
    os.mkdir(folder)
    folders = [folder]
    while total < 1_000_000:
        name = bytes(dice.choice(SIGNS) for _ in range(dice.choice((1, 20, 100, 101, 154, 155, 156, 254, 255))))
        path = os.path.join(dice.choice(folders), name)
        if name in (b".", b"..") or os.path.lexists(path) or len(path) > 3000:
            continue
        total += len(name)
        kind = dice.randrange(10)
        if kind == 0:
            os.mkdir(path)
            folders.append(path)
        elif kind == 1:
            os.symlink(name[:255] or b"x", path)
        else:
            with open(path, "wb") as file:
                file.write(name)

    out, contents = pack(tmp_path / "from")
    unpack(out, tmp_path / "to")

    assert contents.omitted == 0
    assert look(tmp_path / "to") == look(tmp_path / "from")


def test_a_file_that_grows_while_it_is_read_is_kept_as_long_as_it_was_and_named(tmp_path):
    (tmp_path / "from").mkdir()
    growing = tmp_path / "from" / "log"
    growing.write_bytes(b"x" * 8_000_000)
    at_work = threading.Event()

    class Slow(Watch):
        def did(self, count):
            super().did(count)
            if count:
                with open(growing, "ab") as file:
                    file.write(b"more")
                at_work.set()

    out, contents = pack(tmp_path / "from", Slow())
    unpack(out, tmp_path / "to")

    assert at_work.is_set()
    assert (tmp_path / "to/log").read_bytes() == b"x" * 8_000_000
    assert "changed while it was read" in reasons(contents)["log"]


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from/log").write_bytes(b"x" * 8_000_000)
    (tmp_path / "from/other").write_bytes(b"whole")

    class Slow(Watch):
        def did(self, count):
            if count:
                os.truncate(tmp_path / "from/log", 5)

    out, contents = pack(tmp_path / "from", Slow())
    unpack(out, tmp_path / "to")

    assert list(reasons(contents)) == ["log"]
    assert "shorter" in reasons(contents)["log"]
    assert (tmp_path / "to/other").read_bytes() == b"whole"


@as_root
def test_what_can_not_be_read_is_named(tmp_path):
    (tmp_path / "from").mkdir(mode=0o755)
    (tmp_path / "from/open").write_text("yes")
    (tmp_path / "from/closed").write_text("no")
    os.chmod(tmp_path / "from/closed", 0)
    os.chmod(tmp_path / "from/open", 0o644)
    (tmp_path / "from/shut").mkdir(mode=0o700)
    program = (
        "import io, os, sys\n"
        "from tests.unit.services.test_backup_folders import pack, reasons\n"
        "os.chdir(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(sorted(reasons(pack('.')[1]).items()))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "from")], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "[('closed', 'permission denied'), ('shut', 'permission denied')]", done.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path):
    _, contents = pack(tmp_path / "nothing")

    assert reasons(contents) == {".": "no such file or directory"}


def test_a_volume_may_be_one_file(tmp_path):
    (tmp_path / "from").write_text("alone")

    out, contents = pack(tmp_path / "from")

    out.seek(0)
    found = [(entry.path, entry.kind.value, b"".join(data)) for _, entry, data in ArchiveReader(out, Watch()).entries()]
    assert found == [("", "file", b"alone")]


def test_set_uid_is_not_kept_and_named(tmp_path):
    (tmp_path / "from").mkdir()
    (tmp_path / "from/su").write_text("")
    os.chmod(tmp_path / "from/su", 0o4755)

    out, contents = pack(tmp_path / "from")
    unpack(out, tmp_path / "to")

    assert os.stat(tmp_path / "to/su").st_mode & 0o7777 == 0o755
    assert list(reasons(contents)) == ["su"]


def test_folders_that_are_too_deep_are_named(tmp_path):
    at = tmp_path / "from"
    for _ in range(70):
        at = at / "d"
    at.mkdir(parents=True)

    out, contents = pack(tmp_path / "from")

    assert len(contents.omissions) == 1
    unpack(out, tmp_path / "to")


def test_nothing_is_written_through_a_link_that_somebody_put_there(tmp_path):
    (tmp_path / "from/a").mkdir(parents=True)
    (tmp_path / "from/a/x").write_text("x")
    out, _ = pack(tmp_path / "from")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "to").mkdir()
    root = os.open(tmp_path / "to", os.O_RDONLY)
    out.seek(0)
    tree = TreeWriter(root, Omissions(), "v")
    entries = ArchiveReader(out, Watch()).entries()
    for _ in range(2):  # the root, and the folder
        _, entry, pieces = next(entries)
        tree.add(entry, pieces)
    os.rename(tmp_path / "to/a", tmp_path / "to/moved")
    os.symlink(tmp_path / "elsewhere", tmp_path / "to/a")

    _, entry, pieces = next(entries)
    tree.add(entry, pieces)
    tree.finish()
    os.close(root)

    assert os.listdir(tmp_path / "elsewhere") == []
    assert os.listdir(tmp_path / "to/moved") == ["x"]


@as_root
def test_memory_is_flat_on_large_files_and_holes(tmp_path):
    import tracemalloc

    (tmp_path / "from").mkdir()
    with open(tmp_path / "from/holes", "wb") as file:
        file.seek(5 * 2**30)
        file.write(b"end")
    with open(tmp_path / "from/data", "wb") as file:
        for _ in range(96):
            file.write(bytes(2**20))
    manifest = Manifest(
        format=FORMAT, id="backup-1763712345-3fa91c", name="x", created_at=0, version="0", host="", volumes=(BackedVolume("v"),)
    )  # fmt: skip

    tracemalloc.start()
    try:
        with open(tmp_path / "archive", "w+b") as target:
            archive = ArchiveWriter(target.write, manifest, Watch())
            FolderReader(archive, 0, "v").read(str(tmp_path / "from"))
            archive.finish()
            unpack(target, tmp_path / "to")
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()

    assert os.stat(tmp_path / "to/holes").st_size == 5 * 2**30 + 3
    assert os.stat(tmp_path / "to/holes").st_blocks * 512 < 2**20
