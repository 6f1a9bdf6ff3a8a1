"""ZIPs that are streamed while they are made, kept, read in parts, and left: with real files, threads and greenlets."""

import io
import os
import subprocess
import time
import zipfile

import gevent
import pytest

from agentainerd.archives import slices, zips
from agentainerd.archives.archives import Archives
from agentainerd.archives.listings import Bounds
from agentainerd.errors import Conflict, Failed, NotFound, Unavailable

MIB = 2**20
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's to do")


@pytest.fixture
def archives(tmp_path):
    made = Archives(tmp_path / "spool", min_free_bytes=0)
    made.start()
    return made


@pytest.fixture
def folder(tmp_path):
    """Six files of noise, 6 MiB in all."""
    path = tmp_path / "folder"
    path.mkdir()
    for number in range(6):
        (path / f"{number}").write_bytes(os.urandom(MIB))
    return path


@pytest.fixture
def one_step(monkeypatch):
    """Make each slice of work one step."""
    monkeypatch.setattr(slices, "SLICE_S", 0.0)


def read(download, start=0, stop=None):
    try:
        return b"".join(download.pieces(start, stop))
    finally:
        download.close()


def spooled(tmp_path):
    return sorted(path.name for path in (tmp_path / "spool").iterdir())


def open_below(path):
    """Return what this process has open below a folder."""
    links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
    return [os.readlink(link) for link in links if os.path.lexists(link) and os.readlink(link).startswith(str(path))]


def test_a_zip_is_read_while_it_is_made_and_then_kept(archives, folder, tmp_path, one_step):
    download = archives.zip("job-1", folder)
    pieces = download.pieces()
    first = next(pieces)
    assert download.size is None and [name.endswith(".partial") for name in spooled(tmp_path)] == [True]

    data = first + b"".join(pieces)
    download.close()

    assert zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    assert spooled(tmp_path) == [f"job-1.{download.etag}.zip"] and download.size == len(data)
    assert archives.sizes() == {"job-1": len(data)}
    again = archives.zip("job-1", folder)
    assert (again.etag, again.size, read(again, 1000, 5_000_000)) == (download.etag, len(data), data[1000:5_000_000])
    assert open_below(tmp_path) == []


def test_a_small_zip_and_an_empty_one_have_a_size_at_once(archives, tmp_path):
    (tmp_path / "empty").mkdir()

    download = archives.zip("k", tmp_path / "empty")

    assert download.size == 22 and len(read(download)) == 22


def test_readers_at_different_paces_get_the_same_bytes_made_once(archives, folder, one_step, monkeypatch):
    opened = []
    plain = zips.open_file
    monkeypatch.setattr(zips, "open_file", lambda root, path: opened.append(path) or plain(root, path))

    slow = archives.zip("k", folder)
    pieces = slow.pieces()
    begun = next(pieces)
    readers = [gevent.spawn(read, archives.zip("k", folder)) for _ in range(3)]
    fast = [reader.get(timeout=20) for reader in readers]

    assert fast[0] == fast[1] == fast[2] == begun + b"".join(pieces)
    assert opened == [b"%d" % number for number in range(6)]
    slow.close()


def test_what_is_not_whole_ends_with_its_last_reader(archives, folder, tmp_path, one_step):
    one, two = archives.zip("k", folder), archives.zip("k", folder)
    next(one.pieces()), next(two.pieces())

    one.close()
    one.close()
    kept = spooled(tmp_path)
    two.close()

    assert len(kept) == 1 and spooled(tmp_path) == [] and open_below(tmp_path) == []
    assert not archives.is_busy("k")
    assert zipfile.ZipFile(io.BytesIO(read(archives.zip("k", folder)))).testzip() is None


def test_a_reader_that_is_killed_in_the_middle_leaves_the_zip_to_the_others(archives, folder, tmp_path):
    other = archives.zip("k", folder)
    begun = next(other.pieces())
    for _ in range(5):
        reader = gevent.spawn(read, archives.zip("k", folder))
        gevent.sleep(0)
        reader.kill()

    data = read(other)

    assert data.startswith(begun) and zipfile.ZipFile(io.BytesIO(data)).testzip() is None
    assert not archives.is_busy("k") and open_below(tmp_path) == []


def test_the_last_reader_that_is_killed_in_the_middle_leaves_nothing(archives, folder, tmp_path, eventually, one_step):
    (folder / "noise").write_bytes(
        os.urandom(2**20) * 100
    )  # stored as it is: whenever it is seen to grow, the end is far away
    download = archives.zip("k", folder)
    begun = download._zip.made
    reader = gevent.spawn(read, download)
    eventually(lambda: download._zip.made > begun)

    reader.kill()

    assert not archives.is_busy("k")
    eventually(lambda: spooled(tmp_path) == [] and open_below(tmp_path) == [], what="the end of what was at work")


def test_other_greenlets_run_while_a_zip_is_made(archives, folder):
    (folder / "text").write_text("the quick brown fox\n" * 3_000_000)
    longest, last = 0.0, time.monotonic()

    def watch():
        nonlocal longest, last
        while True:
            gevent.sleep(0.001)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    watcher = gevent.spawn(watch)
    begin = time.monotonic()
    read(archives.zip("k", folder))
    taken = time.monotonic() - begin
    watcher.kill()

    assert longest < max(taken * 0.8, 0.1)  # a loop that stands still does so all the time


def test_no_thread_is_kept_by_who_waits(archives, folder, one_step):
    begun = [archives.zip(f"k{number}", folder) for number in range(12)]  # the pool has ten threads
    for download in begun:
        next(download.pieces())

    assert len({read(download) for download in begun}) == 1


def test_a_folder_that_changed_is_another_zip_and_who_reads_the_old_one_reads_on(archives, folder, tmp_path):
    data = read(archives.zip("k", folder))
    old = archives.zip("k", folder)
    pieces = old.pieces()
    begun = next(pieces)
    (folder / "new").write_text("new")

    new = archives.zip("k", folder)
    changed = read(new)

    assert new.etag != old.etag and b"new" in changed
    assert spooled(tmp_path) == [f"k.{new.etag}.zip"]
    assert begun + b"".join(pieces) == data
    old.close()


def test_a_file_that_has_the_same_size_and_time_again_is_another_one(archives, folder, eventually):
    before = os.stat(folder / "1")
    tag = eventually(lambda: archives.listing(folder).etag, what="a tag: what was changed a moment ago has none")
    (folder / "1").write_bytes(os.urandom(MIB))
    os.utime(folder / "1", ns=(before.st_atime_ns, before.st_mtime_ns))

    assert eventually(lambda: archives.listing(folder).etag) != tag


def test_a_folder_that_somebody_is_writing_has_a_tag_that_is_never_used_again(archives, folder):
    def write():
        while True:
            (folder / "busy").write_text("x")
            gevent.sleep(0.001)

    writer = gevent.spawn(write)
    try:
        tags = []
        for _ in range(3):
            download = archives.zip("k", folder)
            tags.append(download.etag)
            download.close()
    finally:
        writer.kill()

    assert len(set(tags)) == 3


def test_a_daemon_finds_what_the_one_before_kept_and_removes_what_it_did_not_finish(archives, folder, tmp_path):
    data = read(archives.zip("k", folder))
    (tmp_path / "spool" / "k.0123.4567.partial").write_bytes(b"half")

    again = Archives(tmp_path / "spool", min_free_bytes=0)
    again.start()
    kept = spooled(tmp_path)
    download = again.zip("k", folder)

    assert kept == [f"k.{download.etag}.zip"] and download.size == len(data)
    assert os.stat(tmp_path / "spool").st_mode & 0o777 == 0o700
    assert read(download) == data


def test_who_is_alone_with_a_folder_removes_it_and_nobody_begins_to_read(archives, folder, tmp_path):
    download = archives.zip("k", folder)
    file = archives.file("other", folder, "1")
    for key in ("k", "other"):
        with pytest.raises(Conflict) as refused, archives.alone(key):
            pass
        assert refused.value.code == "FILES_IN_USE"
    read(download), file.close()

    with archives.alone("k"):
        with pytest.raises(Conflict), archives.alone("k"):
            pass
        for begin in (lambda: archives.zip("k", folder), lambda: archives.file("k", folder, "1")):
            with pytest.raises(NotFound) as refused:
                begin()
            assert refused.value.code == "FILES_NOT_FOUND"
        archives.discard("k")

    assert archives.sizes() == {} and spooled(tmp_path) == [] and not archives.is_busy("k")
    assert read(archives.zip("k", folder))


def test_what_is_discarded_is_read_to_its_end(archives, folder, tmp_path):
    data = read(archives.zip("k", folder))
    download = archives.zip("k", folder)

    archives.discard("k")

    assert spooled(tmp_path) == [] and read(download) == data


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone", "no such file or directory"),
        ("file", "not a directory"),
        ("link", "not a directory"),
        ("pipe", "not a directory"),
    ],
)
def test_a_folder_that_is_gone_or_is_something_else_is_a_zip_that_says_so(archives, tmp_path, name, reason):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("/etc")
    os.mkfifo(tmp_path / "pipe")

    download = archives.zip("k", tmp_path / name)
    archive = zipfile.ZipFile(io.BytesIO(read(download)))

    assert archive.namelist() == ["agentainer-report.txt"]
    assert archive.read("agentainer-report.txt").decode() == f"1 left out, or not as it was:\n.: {reason}\n"
    again = archives.zip("k", tmp_path / name)
    assert again.etag == download.etag and read(again)
    with pytest.raises(NotFound) as missing:
        archives.file("k", tmp_path / name, "passwd")
    assert missing.value.code == "FILE_NOT_FOUND" and not archives.is_busy("k") and open_below(tmp_path) == []


def test_a_folder_whose_owner_removed_it_is_not_found(archives, tmp_path):
    with pytest.raises(NotFound) as missing:
        archives.zip("k", tmp_path / "removed" / "output")

    assert missing.value.code == "FILES_NOT_FOUND" and not archives.is_busy("k")


def test_a_folder_that_goes_before_it_is_read_is_said_so(archives, folder, monkeypatch):
    plain = Archives.listing

    def listing(self, root):
        found = plain(self, root)
        if found.etag:
            root.rename(root.parent / "gone")
        return found

    monkeypatch.setattr(Archives, "listing", listing)

    with pytest.raises(Failed) as missing:
        archives.zip("k", folder)

    assert missing.value.code == "FILES_UNREADABLE" and not archives.is_busy("k")


def test_room_for_others_is_left_on_the_disk(folder, tmp_path):
    archives = Archives(tmp_path / "spool", min_free_bytes=2**60)
    archives.start()

    with pytest.raises(Unavailable) as full:
        archives.zip("k", folder)

    assert full.value.code == "NO_SPACE" and full.value.retry_after_s
    assert spooled(tmp_path) == [] and not archives.is_busy("k") and open_below(tmp_path) == []


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system for the spool; gets its options."""
    mounted = []

    def mount(options):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", tmp_path / "spool"], check=False).returncode:
            pytest.skip("can't mount")
        mounted.append(options)

    yield mount
    for _ in mounted:
        subprocess.run(["umount", tmp_path / "spool"], check=True)


@as_root
def test_a_disk_that_fills_up_breaks_the_download_off_and_leaves_nothing(
    archives, folder, tmp_path, one_step, small_disk
):
    small_disk("size=3m")
    download = archives.zip("k", folder)
    other = archives.zip("k", folder)

    for each in (download, other):
        with pytest.raises(Unavailable) as full:
            read(each)
        assert full.value.code == "NO_SPACE"

    assert spooled(tmp_path) == [] and not archives.is_busy("k")


@as_root
def test_a_disk_that_takes_no_more_files_is_full_too(archives, folder, tmp_path, small_disk):
    small_disk("nr_inodes=1")

    with pytest.raises(Unavailable) as full:
        archives.zip("k", folder)

    assert full.value.code == "NO_SPACE" and "no space left on device" in full.value.message
    assert not archives.is_busy("k")


def test_a_spool_that_can_not_be_written_or_is_cut_is_said_so(archives, folder, tmp_path):
    whole = archives.zip("k", folder)
    read(whole)
    kept = archives.zip("k", folder)
    os.truncate(tmp_path / "spool" / f"k.{whole.etag}.zip", 100)

    with pytest.raises(Failed) as cut:
        read(kept)
    (tmp_path / "spool").rename(tmp_path / "gone")
    with pytest.raises(Failed) as gone:
        archives.zip("k", folder)

    assert cut.value.code == gone.value.code == "ARCHIVE_FAILED"


def test_who_waits_for_the_whole_can_give_up(archives, folder, tmp_path, one_step):
    download = archives.zip("k", folder)
    asked = []

    with pytest.raises(Failed) as given_up:
        download.finish(lambda: asked.append(1) or len(asked) < 5)
    download.close()

    assert given_up.value.code == "DOWNLOAD_GIVEN_UP" and len(asked) == 5 and spooled(tmp_path) == []


def test_a_file_that_changes_all_the_time_does_not_keep_a_zip_from_its_end(archives, folder):
    with open(folder / "busy", "wb") as file:
        file.write(bytes(50 * MIB))

    def grow():
        while True:
            with open(folder / "busy", "ab") as file:
                file.write(b"x" * 10_000)
            gevent.sleep(0.001)

    writer = gevent.spawn(grow)
    data = read(archives.zip("k", folder))
    writer.kill()

    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    assert b"busy: it changed while it was packed" in archive.read("agentainer-report.txt")


def test_bounds_are_those_that_were_given(folder, tmp_path):
    archives = Archives(tmp_path / "spool", Bounds(max_bytes=3 * MIB), min_free_bytes=0)
    archives.start()

    data = read(archives.zip("k", folder))

    assert 2 * MIB < len(data) <= 3 * MIB
    assert b"too large" in zipfile.ZipFile(io.BytesIO(data)).read("agentainer-report.txt")
