"""Files that only the daemon's user may read."""

import os

import pytest

from agentainerd.store.private_files import read_private, write_private


def test_what_is_written_is_read_and_closed_to_others(tmp_path):
    path = str(tmp_path / "key")

    write_private(path, b"secret")
    write_private(path, b"another")

    assert read_private(path) == b"another"
    assert oct(os.stat(path).st_mode & 0o777) == "0o600"
    assert os.listdir(tmp_path) == ["key"]


def test_one_that_others_could_read_is_not_believed(tmp_path, caplog):
    path = tmp_path / "key"
    path.write_text("leaked")
    path.chmod(0o640)

    assert read_private(str(path)) is None
    assert "could be read by others" in caplog.text
    assert "leaked" not in caplog.text


def test_one_that_is_not_there_is_none_and_a_link_is_not_followed(tmp_path):
    (tmp_path / "target").write_text("elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "target")

    assert read_private(str(tmp_path / "none")) is None
    with pytest.raises(OSError, match="symbolic"):
        read_private(str(tmp_path / "link"))


def test_a_write_that_fails_leaves_what_was_there_and_no_other_file(tmp_path, monkeypatch):
    path = str(tmp_path / "key")
    write_private(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))

    with pytest.raises(OSError, match="No space"):
        write_private(path, b"new")

    assert read_private(path) == b"old"
    assert os.listdir(tmp_path) == ["key"]
