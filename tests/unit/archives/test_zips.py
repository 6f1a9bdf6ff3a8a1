"""A folder as a ZIP: what is in it, what is not, and that the same files are the same bytes; by three readers."""

import io
import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentainerd.archives import listings, zips
from agentainerd.archives.listings import Bounds, read_listing
from agentainerd.archives.opening import open_root
from agentainerd.archives.zips import write_zip

MIB = 2**20
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's to do")


class Stream(io.RawIOBase):
    """Takes bytes and knows nothing of places."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += data
        return len(data)


def take(steps):
    """Take all steps and return the result."""
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return done.value


def listed(folder, bounds=None):
    root = open_root(folder)
    try:
        return take(read_listing(root, bounds or Bounds()))
    finally:
        os.close(root)


def packed(folder, bounds=None, meanwhile=lambda: None):
    """Return the bytes; `meanwhile` happens between listing and packing."""
    listing = listed(folder, bounds)
    meanwhile()
    root, sink = open_root(folder), Stream()
    try:
        take(write_zip(root, listing, sink))
    finally:
        os.close(root)
    return bytes(sink.data)


def opened(data):
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    return archive


def contents(data):
    archive = opened(data)
    return {name: archive.read(name) for name in archive.namelist()}


def report(data, name="agentainer-report.txt"):
    """Return what was reported, by name."""
    lines = contents(data)[name].decode().splitlines()[1:]
    return dict(line.partition(": ")[::2] for line in lines)


def check_with_unzip(data, folder):
    if not shutil.which("unzip"):
        pytest.skip("the rest needs unzip: scripts/setup testing")
    path = folder / "checked.zip"
    path.write_bytes(data)
    checked = subprocess.run(["unzip", "-t", path], capture_output=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


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


def test_nothing_but_files_folders_and_links_within_is_packed_and_the_rest_is_reported(tmp_path):
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    for name, target in {"abs": "/etc/passwd", "up": "../x", "deep/up": "../../x", "deep/back": "a/../../../x"}.items():
        (folder / name).symlink_to(target)
    (folder / "deep" / "in").symlink_to("../../folder/x")
    (folder / "deep" / "fine").symlink_to("../x")

    data = packed(folder)

    assert sorted(contents(data)) == ["agentainer-report.txt", "deep/", "deep/fine"]
    assert report(data) == {
        "abs": "a link to elsewhere is left out: to /etc/passwd",
        "deep/back": "a link to elsewhere is left out: to a/../../../x",
        "deep/in": "a link to elsewhere is left out: to ../../folder/x",
        "deep/up": "a link to elsewhere is left out: to ../../x",
        "pipe": "a pipe (FIFO) is left out",
        "socket": "a socket is left out",
        "up": "a link to elsewhere is left out: to ../x",
    }


@as_root
def test_a_device_is_reported_and_never_opened(tmp_path):
    os.mknod(tmp_path / "watchdog", stat.S_IFCHR | 0o666, os.makedev(10, 130))

    assert report(packed(tmp_path)) == {"watchdog": "a device is left out"}


def test_names_are_kept_as_they_are_unless_they_lead_elsewhere(tmp_path):
    fine = [
        "new\nline", "quo\"te's", "back\\slash", "-rf", " ", "...", "tab\t", "\x1b[31m", "é", "e\u0301", "日本", "file:b", "%41", "CON", "~", "*",
    ]  # fmt: skip
    odd = {
        b"\xff.txt": "%FF.txt", b"..\\evil": "..%5Cevil", b"\\abs": "%5Cabs", b"C:x": "C%3Ax", b".. ": "%2E%2E ", b"a\\..\\..": "a%5C..%5C..",
    }  # fmt: skip
    for name in fine:
        (tmp_path / name).write_text(name)
    for raw in odd:
        with open(os.fsencode(tmp_path) + b"/" + raw, "wb") as file:
            file.write(raw)

    data = packed(tmp_path)

    expected = {name: name.encode() for name in fine} | {name: raw for raw, name in odd.items()}
    assert contents(data) == expected
    check_with_unzip(data, tmp_path)


def test_names_that_would_be_called_the_same_are_told_apart(tmp_path):
    for raw in (b"\xff", b"%FF", b"%FF~", b"\xfe", b"plain"):
        with open(os.fsencode(tmp_path) + b"/" + raw, "wb") as file:
            file.write(raw)

    assert contents(packed(tmp_path)) == {
        "%FF": b"%FF", "%FF~": b"%FF~", "%FF~~": b"\xff", "%FE": b"\xfe", "plain": b"plain",
    }  # fmt: skip


def test_the_report_does_not_take_the_name_of_a_file(tmp_path):
    (tmp_path / "agentainer-report.txt").write_text("mine")
    os.mkfifo(tmp_path / "pipe")

    data = packed(tmp_path)

    assert contents(data)["agentainer-report.txt"] == b"mine"
    assert report(data, "agentainer-report-2.txt") == {"pipe": "a pipe (FIFO) is left out"}


def test_a_sparse_giant_is_left_out_and_what_is_small_is_not(tmp_path):
    with open(tmp_path / "a giant", "wb") as file:
        file.truncate(2**40)
    (tmp_path / "small").write_text("here")

    data = packed(tmp_path)

    assert contents(data)["small"] == b"here"
    assert "too large (1099511627776 bytes)" in report(data)["a giant"]


@pytest.mark.parametrize("size", [0, 1, 5_000, 70_000])
def test_a_zip_is_never_larger_than_its_bound(tmp_path, size):
    for number in range(200):
        (tmp_path / f"{number:03} {'x' * (number % 100)}").write_bytes(os.urandom(size))
        os.mkfifo(tmp_path / f"{number:03} pipe {'x' * 200}")

    data = packed(tmp_path, Bounds(max_bytes=100_000))

    assert len(data) <= 100_000
    assert len(contents(data)) >= (2 if size < 70_000 else 1)
    assert "more" in contents(data)["agentainer-report.txt"].decode().splitlines()[-1]


def test_names_are_counted_too(tmp_path):
    for number in range(400):
        (tmp_path / f"{number:03}{'x' * 200}").touch()

    data = packed(tmp_path, Bounds(max_bytes=100_000))

    assert 100 < len(contents(data)) < 400 and len(data) <= 100_000


def test_the_names_of_a_listing_take_no_more_memory_than_they_may(tmp_path, monkeypatch):
    monkeypatch.setattr(listings, "MAX_NAMES_BYTES", 250)
    for letter in "abc":
        (tmp_path / (letter * 100)).touch()

    data = packed(tmp_path)

    assert report(data) == {"c" * 100: "the names are too long: those that are packed end at 250 bytes"}


def test_who_makes_many_folders_of_too_many_names_is_not_looked_at_for_ever(tmp_path):
    for folder in "abcdef":
        (tmp_path / folder).mkdir()
        for number in range(15):
            (tmp_path / folder / str(number)).touch()
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "small").touch()

    data = packed(tmp_path, Bounds(max_entries=10))

    assert "z/" in contents(data) and "z/small" not in contents(data)
    assert set(report(data)) == {f"{folder}/" for folder in "abcdefz"}


def test_a_folder_of_too_many_names_is_left_out_whole_and_the_others_are_not(tmp_path):
    for folder, count in (("a", 3), ("many", 50), ("z", 3)):
        (tmp_path / folder).mkdir()
        for number in range(count):
            (tmp_path / folder / str(number)).touch()

    data = packed(tmp_path, Bounds(max_entries=20))

    assert [name for name in contents(data) if not name.startswith("agentainer")] == [
        "a/", "a/0", "a/1", "a/2", "many/", "z/", "z/0", "z/1", "z/2",
    ]  # fmt: skip
    assert report(data) == {"many/": "what is in it is left out: there is more than 20 in all"}


def test_who_is_too_deep_or_too_long_is_left_out(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(80):
        os.mkdir("d" * 200, dir_fd=folder)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = inner
    os.close(folder)
    for depth in range(1, 70):
        (tmp_path / "/".join("e" * depth)).mkdir()

    data = packed(tmp_path)
    subprocess.run(["rm", "-rf", tmp_path / ("d" * 200)], check=True)

    assert max(map(len, contents(data))) <= 4096
    assert max(name.count("/") for name in contents(data)) == 64
    reasons = set(report(data).values())
    assert reasons == {"its path is longer than 4095 bytes", "it is deeper than 64 folders"}


@as_root
def test_what_root_may_read_is_packed_whatever_its_mode_says(tmp_path):
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed" / "secret").write_text("x")
    os.chmod(tmp_path / "closed" / "secret", 0)
    os.chmod(tmp_path / "closed", 0)

    assert contents(packed(tmp_path))["closed/secret"] == b"x"


@as_root
def test_what_may_not_be_read_is_reported():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir()
        (folder / "fine").write_text("fine")
        (folder / "secret").write_text("x")
        os.chmod(folder / "secret", 0)
        os.chmod(folder / "closed", 0)
        os.seteuid(65534)
        try:
            data = packed(folder)
        finally:
            os.seteuid(0)

    assert contents(data)["fine"] == b"fine"
    assert report(data) == {"closed": "permission denied", "secret": "permission denied"}


def test_files_that_vanish_grow_shrink_or_become_something_else_are_reported_and_the_rest_is_whole(tmp_path):
    for name in ("gone", "grown", "shrunk", "pipe", "linked", "same"):
        (tmp_path / name).write_bytes(b"12345678")

    def change():
        (tmp_path / "gone").unlink()
        with open(tmp_path / "grown", "ab") as file:
            file.write(b"9" * MIB)
        os.truncate(tmp_path / "shrunk", 3)
        (tmp_path / "pipe").unlink()
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "linked").unlink()
        (tmp_path / "linked").symlink_to("/etc/passwd")

    data = packed(tmp_path, meanwhile=change)

    found = contents(data)
    assert (found["grown"], found["shrunk"], found["same"]) == (b"12345678", b"123", b"12345678")
    changed = "it changed while it was packed: what is here may be of two moments"
    assert report(data) == {
        "gone": "no such file or directory", "grown": changed, "shrunk": changed, "pipe": "it is not a file any more",
        "linked": "it is not a file any more",
    }  # fmt: skip
    assert set(found) == {"agentainer-report.txt", "grown", "shrunk", "same"}


def test_a_folder_that_is_exchanged_for_a_link_leads_nowhere(tmp_path):
    (tmp_path / "folder" / "etc").mkdir(parents=True)
    (tmp_path / "folder" / "etc" / "secret").write_text("inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("outside")

    def exchange():
        os.rename(tmp_path / "folder" / "etc", tmp_path / "folder" / "was")
        (tmp_path / "folder" / "etc").symlink_to(tmp_path / "outside")

    data = packed(tmp_path / "folder", meanwhile=exchange)

    assert b"outside" not in data and set(contents(data)) == {"etc/", "agentainer-report.txt"}
    assert report(data) == {"etc/secret": "not a directory"}


SWAP = """
import os, sys
root = sys.argv[1]
print(flush=True)
while True:
    os.rename(root + "/folder", root + "/was")
    os.rename(root + "/link", root + "/folder")
    os.rename(root + "/folder", root + "/link")
    os.rename(root + "/was", root + "/folder")
    os.rename(root + "/file", root + "/old")
    os.symlink("../outside/secret", root + "/file")
    os.unlink(root + "/file")
    os.rename(root + "/old", root + "/file")
"""


@as_root
def test_what_is_mounted_in_a_folder_is_left_out(tmp_path):
    for name in ("mounted", "packed"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "packed" / "x").write_text("x")
    if subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path / "mounted"], check=False).returncode:
        pytest.skip("can't mount")
    (tmp_path / "mounted" / "secret").write_text("of the host")
    subprocess.run(["mount", "--bind", tmp_path / "mounted" / "secret", tmp_path / "file"], check=True)
    try:
        data = packed(tmp_path)
    finally:
        subprocess.run(["umount", tmp_path / "file"], check=True)
        subprocess.run(["umount", tmp_path / "mounted"], check=True)

    assert report(data) == dict.fromkeys(("file", "mounted"), "another file system is mounted there")
    assert set(contents(data)) == {"agentainer-report.txt", "packed/", "packed/x"}


@as_root
def test_what_is_mounted_over_a_file_after_it_was_listed_is_not_read(tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "file").write_text("of the job")
    (tmp_path / "mounted").mkdir()
    mounted = []

    def mount():
        for what, where in (
            (["-t", "tmpfs", "none"], "mounted"),
            (["--bind", tmp_path / "mounted" / "secret"], "root/file"),
        ):
            if subprocess.run(["mount", *what, tmp_path / where], check=False).returncode:
                pytest.skip("can't mount")
            mounted.append(where)
            (tmp_path / "mounted" / "secret").write_text("of the host")

    try:
        data = packed(tmp_path / "root", meanwhile=mount)
    finally:
        for where in mounted[::-1]:
            subprocess.run(["umount", tmp_path / where], check=True)

    assert report(data) == {"file": "it is not a file any more"}


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


def test_who_exchanges_folders_and_links_all_the_time_leads_nowhere(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("of the host")
    root = tmp_path / "root"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "secret").write_text("of the job")
    (root / "file").write_text("of the job")
    (root / "link").symlink_to("../outside")
    swapper = subprocess.Popen([sys.executable, "-c", SWAP, root], stdout=subprocess.PIPE)
    swapper.stdout.read(1)
    found = set()
    try:
        for _ in range(300):
            found |= set(contents(packed(root)).values())
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()

    assert b"of the job" in found and b"of the host" not in found


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
        assert (
            not windows.startswith("/") and windows[1:2] != ":" or not windows[0].isascii() or not windows[0].isalpha()
        )
        assert ".." not in windows.split("/")
    out = folder.parent / "out"
    archive.extractall(out)
    assert all(path.is_relative_to(out) for path in out.rglob("*"))
