"""A folder listed and packed at once, and what is in its ZIP."""

import io
import shutil
import subprocess
import zipfile

import pytest

from agentainerd.archives.listings import Bounds, read_listing
from agentainerd.archives.opening import close_now, open_root
from agentainerd.archives.zips import write_zip


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
        close_now(root)


def packed(folder, bounds=None, meanwhile=lambda: None):
    """Return the bytes; `meanwhile` happens between listing and packing."""
    listing = listed(folder, bounds)
    meanwhile()
    root, sink = open_root(folder), Stream()
    try:
        take(write_zip(root, listing, sink))
    finally:
        close_now(root)
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
