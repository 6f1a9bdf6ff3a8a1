"""One file of a folder: exactly the bytes that were promised, or an error."""

import hashlib
import os

import pytest

from agentainerd.archives import slices
from agentainerd.archives.archives import Archives
from agentainerd.archives.zips import PIECE_BYTES
from agentainerd.errors import Conflict, Failed, NotFound


@pytest.fixture
def archives(tmp_path):
    return Archives(tmp_path / "spool")


@pytest.fixture
def noise(tmp_path):
    data = os.urandom(3 * PIECE_BYTES + 7)
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    (tmp_path / "folder" / "deep" / "noise").write_bytes(data)
    return data


def test_a_file_is_read_whole_and_in_parts(archives, noise, tmp_path):
    file = archives.file("k", tmp_path / "folder", "deep/noise")

    assert (file.size, file.finish()) == (len(noise), len(noise))
    assert b"".join(file.pieces()) == noise
    assert b"".join(file.pieces(5, 2 * PIECE_BYTES)) == noise[5 : 2 * PIECE_BYTES]
    assert b"".join(file.pieces(len(noise) - 1, 10**9)) == noise[-1:]
    assert archives.is_busy("k")
    file.close()
    file.close()
    assert not archives.is_busy("k")


def test_digests_are_those_of_the_content_and_only_of_what_is_as_it_was_listed(archives, noise, tmp_path, monkeypatch):
    monkeypatch.setattr(slices, "SLICE_S", 0.0)
    folder = tmp_path / "folder"
    for name in ("changed", "empty", "gone"):
        (folder / name).touch()
    (folder / "link").symlink_to("empty")
    listing = archives.listing(folder)
    (folder / "changed").write_text("x")
    (folder / "gone").unlink()

    found = archives.digests(folder, listing.entries)

    assert found == {"deep/noise": hashlib.sha256(noise).hexdigest(), "empty": hashlib.sha256(b"").hexdigest()}


def test_a_file_is_found_by_the_name_that_a_listing_gives_it(archives, tmp_path):
    (tmp_path / "folder").mkdir()
    for raw in (b"\xff", b"..\\x"):
        with open(os.fsencode(tmp_path) + b"/folder/" + raw, "wb") as file:
            file.write(raw)

    for name, raw in {"%FF": b"\xff", "..%5Cx": b"..\\x"}.items():
        file = archives.file("k", tmp_path / "folder", name)
        assert b"".join(file.pieces()) == raw
        file.close()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "deep", "link", "../secret", "deep/../deep/noise", "/etc/passwd", "deep/noise/", "no\0pe"]
)
def test_what_is_no_file_of_the_folder_is_not_found(archives, noise, tmp_path, name):
    (tmp_path / "secret").touch()
    (tmp_path / "folder" / "link").symlink_to("deep/noise")

    with pytest.raises(NotFound) as missing:
        archives.file("k", tmp_path / "folder", name)

    assert missing.value.code == "FILE_NOT_FOUND" and not archives.is_busy("k")


def test_a_file_that_changes_while_it_is_read_breaks_off(archives, noise, tmp_path):
    path = tmp_path / "folder" / "deep" / "noise"
    for change in (lambda: os.truncate(path, 5), lambda: path.write_bytes(noise * 2)):
        path.write_bytes(noise)
        file = archives.file("k", tmp_path / "folder", "deep/noise")
        pieces = file.pieces()
        next(pieces)
        change()

        with pytest.raises(Conflict) as changed:
            next(pieces)

        assert changed.value.code == "FILE_CHANGED"
        file.close()


def test_a_file_that_is_exchanged_before_it_is_opened_is_refused(archives, noise, tmp_path, monkeypatch):
    path = tmp_path / "folder" / "deep" / "noise"
    plain = Archives.listing

    def exchanged(by):
        def listing(self, root):
            found = plain(self, root)
            path.unlink()
            by()
            return found

        monkeypatch.setattr(Archives, "listing", listing)
        with pytest.raises((Conflict, Failed)) as refused:
            archives.file("k", tmp_path / "folder", "deep/noise")
        path.unlink()
        path.write_bytes(noise)
        return refused.value.code

    assert exchanged(lambda: path.write_bytes(noise)) == "FILE_CHANGED"
    assert exchanged(lambda: os.mkfifo(path)) == "FILE_UNREADABLE"
    assert exchanged(lambda: path.symlink_to("/etc/passwd")) == "FILE_UNREADABLE"
    assert not archives.is_busy("k")
