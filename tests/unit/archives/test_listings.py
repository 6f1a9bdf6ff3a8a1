"""What of a hostile folder is packed, and what is left out and reported: names, links, devices, mounts, giants, changes, races."""

import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from agentainerd.archives import listings
from agentainerd.archives.listings import Bounds
from tests.fakes.packing import check_with_unzip, contents, packed, report

MIB = 2**20
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="root's to do")


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


def test_a_sparse_giant_is_left_out_and_what_is_small_is_not(tmp_path):
    with open(tmp_path / "a giant", "wb") as file:
        file.truncate(2**40)
    (tmp_path / "small").write_text("here")

    data = packed(tmp_path)

    assert contents(data)["small"] == b"here"
    assert "too large (1099511627776 bytes)" in report(data)["a giant"]


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
