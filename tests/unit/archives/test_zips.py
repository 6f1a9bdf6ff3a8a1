"""A folder as a ZIP: what is in it, its form, and that the same files are the same bytes; by three readers."""

import os
import re
import shutil
import stat
import subprocess
import zipfile

import gevent
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentainerd.archives import zips
from agentainerd.archives.listings import Bounds
from tests.fakes.daemons import find_program
from tests.fakes.packing import check_with_unzip, contents, opened, packed, report

MIB = 2**20


def test_files_folders_and_links_are_as_they_were_in_the_order_of_their_bytes(tmp_path):
    (tmp_path / "b" / "empty").mkdir(parents=True)
    (tmp_path / "b" / "text").write_text("hello\n")
    (tmp_path / "a.sh").write_text("#!/bin/sh\n")
    (tmp_path / "a.sh").chmod(0o4711)
    (tmp_path / "B").write_bytes(b"")
    (tmp_path / "b" / "link").symlink_to("../a.sh")

    archive = opened(packed(tmp_path))

    assert archive.namelist() == ["B", "a.sh", "b/", "b/empty/", "b/link", "b/text"]
    modes = {each.filename: stat.filemode(each.external_attr >> 16) for each in archive.infolist()}
    assert modes == {
        "B": "-rw-r--r--", "a.sh": "-rwxr-xr-x", "b/": "drwxr-xr-x", "b/empty/": "drwxr-xr-x",
        "b/link": "lrwxrwxrwx", "b/text": "-rw-r--r--",
    }  # fmt: skip
    assert archive.read("b/text") == b"hello\n" and archive.read("b/link") == b"../a.sh" and archive.read("B") == b""


def test_an_empty_folder_is_a_valid_zip(tmp_path):
    (tmp_path / "empty").mkdir()

    data = packed(tmp_path / "empty")

    assert contents(data) == {} and len(data) == 22


def test_the_same_files_are_the_same_bytes_whoever_wrote_them_when_and_in_which_order(tmp_path):
    names = [f"{number % 7}/{number * 7919 % 100}" for number in range(100)]
    for folder, order in ((tmp_path / "one", names), (tmp_path / "two", names[::-1])):
        for name in order:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(name * 100)
    for path in (tmp_path / "two").rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700 if path.is_dir() else 0o600)

    assert packed(tmp_path / "one") == packed(tmp_path / "two")


def test_the_report_does_not_take_the_name_of_a_file(tmp_path):
    (tmp_path / "agentainer-report.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")

    data = packed(tmp_path)

    assert contents(data)["agentainer-report.txt"] == b"mine"
    assert report(data, "agentainer-report-2.txt") == {"pipe": "a pipe (FIFO) is left out"}


@pytest.mark.parametrize("size", [0, 1, 5_000, 70_000])
def test_a_zip_is_never_larger_than_its_bound(tmp_path, size):
    for number in range(200):
        (tmp_path / f"{number:03} {'x' * (number % 100)}").write_bytes(os.urandom(size))
        os.mkfifo(tmp_path / f"{number:03} pipe {'x' * 200}")

    data = packed(tmp_path, Bounds(max_bytes=100_000))

    assert len(data) <= 100_000
    assert len(contents(data)) >= (2 if size < 70_000 else 1)
    assert "more" in contents(data)["agentainer-report.txt"].decode().splitlines()[-1]


def test_unzip_unpacks_what_was_packed(tmp_path):
    if not shutil.which("unzip"):
        pytest.skip("needs unzip: scripts/setup testing")
    folder, out = tmp_path / "folder", tmp_path / "out"
    (folder / "deep" / "empty").mkdir(parents=True)
    (folder / "deep" / "new\nline é").write_bytes(os.urandom(100_000))
    (folder / "link").symlink_to("deep/empty")
    (folder / "program").write_text("#!/bin/sh\n")
    (folder / "program").chmod(0o755)
    (tmp_path / "x.zip").write_bytes(packed(folder))

    subprocess.run(
        ["unzip", "-q", "-^", tmp_path / "x.zip", "-d", out], check=True, env={**os.environ, "LC_ALL": "C.UTF-8"}
    )

    def look(top):
        return {
            str(path.relative_to(top)): os.readlink(path)
            if path.is_symlink()
            else path.read_bytes()
            if path.is_file()
            else None
            for path in top.rglob("*")
        }

    assert look(out) == look(folder)
    assert os.access(out / "program", os.X_OK) and not os.access(out / "deep" / "new\nline é", os.X_OK)


def test_what_is_compressed_already_is_stored_and_what_is_not_gets_smaller(tmp_path):
    noise = os.urandom(MIB)
    (tmp_path / "noise").write_bytes(noise)
    (tmp_path / "noise again and again").write_bytes(noise * 2)
    (tmp_path / "text").write_text("the quick brown fox\n" * 50_000)

    data = packed(tmp_path)

    assert noise[:10_000] in data
    sizes = {each.filename: each.compress_size for each in opened(data).infolist()}
    assert data.count(noise[1000:2000]) == 3
    assert sizes["noise"] < 1.001 * MIB and sizes["text"] < 20_000


def test_members_are_deflated_and_named_in_utf_8_so_that_any_reader_can_follow_the_stream(tmp_path):
    for name in ("é", "empty"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()

    found = {each.filename: each for each in opened(packed(tmp_path)).infolist()}

    assert found["é"].flag_bits & 0x808 == 0x808  # UTF-8; size and checksum follow
    assert {name: each.compress_type for name, each in found.items()} == {
        "é": zipfile.ZIP_DEFLATED, "empty": zipfile.ZIP_DEFLATED, "folder/": zipfile.ZIP_STORED,
    }  # fmt: skip
    assert found["folder/"].flag_bits & 0x8 == 0
    assert all(each.create_system == 3 for each in found.values())


def test_zip64_is_used_for_what_needs_it_and_only_there(tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(bytes(3 * MIB))
    (tmp_path / "small").write_bytes(b"x")
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 2 * MIB)

    data = packed(tmp_path)

    assert contents(data) == {"large": bytes(3 * MIB), "small": b"x"}
    assert data.count(b"\x01\x00\x10\x00") == 2  # the extra field of two sizes: of one member, at both places
    check_with_unzip(data, tmp_path)


def test_more_members_than_a_zip_without_zip64_can_count(tmp_path, monkeypatch):
    for number in range(30):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 20)

    data = packed(tmp_path)

    assert len(contents(data)) == 30 and b"PK\x06\x06" in data
    check_with_unzip(data, tmp_path)


@pytest.mark.skipif(not shutil.which("bsdtar"), reason="needs bsdtar: scripts/setup testing")
def test_a_reader_that_can_not_seek_unpacks_the_stream(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "noise").write_bytes(os.urandom(100_000))
    (folder / "empty").touch()
    (tmp_path / "out").mkdir()

    subprocess.run(["bsdtar", "-x", "-C", tmp_path / "out", "-f", "-"], input=packed(folder), check=True)

    assert (tmp_path / "out" / "deep" / "noise").read_bytes() == (folder / "deep" / "noise").read_bytes()
    assert (tmp_path / "out" / "empty").read_bytes() == b""


def test_folders_are_closed_at_once_also_in_a_thread_that_has_an_event_loop_which_never_runs(tmp_path):
    (tmp_path / "many").mkdir()
    for number in range(20):
        (tmp_path / "many" / str(number)).touch()
    gevent.get_hub()
    before = len(os.listdir("/proc/self/fd"))

    packed(tmp_path)

    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.skipif("ARCHIVE_SOAK" not in os.environ, reason="takes a minute: make soak")
def test_a_file_of_more_than_4_gib_and_more_than_65535_members(tmp_path):
    folder, path = tmp_path / "folder", tmp_path / "x.zip"
    (folder / "many").mkdir(parents=True)
    with open(folder / "large", "wb") as file:
        file.truncate(4_400_000_000)
    for number in range(66_000):
        (folder / "many" / str(number)).touch()

    path.write_bytes(packed(folder))

    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 66_002 and archive.getinfo("large").file_size == 4_400_000_000
    with open(path, "rb") as stream:
        listed = subprocess.run([find_program("bsdtar"), "-tf", "-"], stdin=stream, capture_output=True, check=True)
    assert listed.stdout.count(b"\n") == 66_002
    subprocess.run([find_program("unzip"), "-tq", path], check=True)


def test_memory_does_not_grow_with_a_file(tmp_path, monkeypatch):
    (tmp_path / "large").write_bytes(bytes(3 * MIB))
    monkeypatch.setattr(zips, "PIECE_BYTES", 1024)
    sizes = []
    read = os.pread
    monkeypatch.setattr(
        os, "pread", lambda descriptor, size, offset: sizes.append(size) or read(descriptor, size, offset)
    )

    packed(tmp_path)

    assert max(sizes) <= zips._SAMPLE_BYTES


NAMES = st.binary(min_size=1, max_size=12).filter(lambda raw: raw not in (b".", b"..") and not set(raw) & {0, 47})
TREES = st.recursive(
    st.one_of(st.binary(max_size=200), st.just(None), st.binary(min_size=1, max_size=12).filter(lambda raw: 0 not in raw).map(lambda raw: ("link", raw))),
    lambda inner: st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=15,
)  # fmt: skip


def build(path, tree):
    os.mkdir(path)
    for raw, what in tree.items():
        inner = path + b"/" + raw
        if isinstance(what, dict):
            build(inner, what)
        elif isinstance(what, bytes):
            with open(inner, "wb") as file:
                file.write(what)
        elif what is None:
            os.mkfifo(inner)
        else:
            os.symlink(what[1], inner)


def count(tree):
    """Return how many files, folders, links and pipes there are."""
    inner = [count(each) for each in tree.values() if isinstance(each, dict)]
    own = [sum(map(kind, tree.values())) for kind in (
        lambda each: isinstance(each, bytes), lambda each: isinstance(each, dict), lambda each: isinstance(each, tuple), lambda each: each is None,
    )]  # fmt: skip
    return [sum(column) for column in zip(own, *inner, strict=True)]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, TREES, max_size=6))
def test_any_tree_is_a_valid_zip_that_leads_nowhere_else(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("tree") / "root"
    build(os.fsencode(folder), tree)

    data = packed(folder)

    files, folders, links, pipes = count(tree)
    archive = opened(data)
    names = archive.namelist()
    kinds = [stat.S_IFMT(each.external_attr >> 16) for each in archive.infolist()]
    omitted = 0
    if names and names[-1].startswith("agentainer-report"):
        omitted = int(archive.read(names[-1]).split()[0])
        names.pop(), kinds.pop()
    assert len(set(names)) == len(names) and data == packed(folder)
    assert (kinds.count(stat.S_IFREG), kinds.count(stat.S_IFDIR)) == (files, folders)
    assert kinds.count(stat.S_IFLNK) + omitted == links + pipes
    for name in names:
        windows = name.replace("\\", "/")
        assert not re.match(r"/|[A-Za-z]:", windows)
        assert ".." not in windows.split("/")
    archive.extractall(folder.parent / "out")
    assert set(os.listdir(folder.parent)) <= {"root", "out"}
