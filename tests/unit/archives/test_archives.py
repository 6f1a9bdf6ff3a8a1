"""ZIPs that are streamed while they are made, kept, read in parts, and left: with real files and greenlets."""

import io
import os
import zipfile

import pytest

from agentainerd.archives import slices
from agentainerd.archives.archives import Archives

MIB = 2**20


@pytest.fixture
def archives(tmp_path):
    made = Archives(tmp_path / "spool", min_free_bytes=0)
    made.start()
    return made


@pytest.fixture
def folder(tmp_path):
    """Six files of noise, 12 MiB in all."""
    path = tmp_path / "folder"
    path.mkdir()
    for number in range(6):
        (path / f"{number}").write_bytes(os.urandom(2 * MIB))
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
