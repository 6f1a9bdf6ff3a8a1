"""The disk under the folders where requests are kept: free space, and what it takes to be durable."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from agentainerd import defaults
from agentainerd.errors import Unavailable
from agentainerd.units import format_size

_REMEMBERED_S = 2.0


class FreeSpace:
    """Answers whether there is room for more, asking the file systems at most every two seconds."""

    def __init__(self, folders: Sequence[Path], minimum_bytes: int = defaults.MIN_FREE_DISK_BYTES) -> None:
        self._folders = folders
        self._minimum_bytes = minimum_bytes
        self._asked_at = -_REMEMBERED_S
        self._lowest = 0

    def check(self) -> None:
        """Return if each folder has at least the minimum.

        Raises:
            Unavailable: one has not (code NO_SPACE).
        """
        now = time.monotonic()
        if now - self._asked_at >= _REMEMBERED_S:
            self._lowest = min(map(_free_bytes, self._folders))
            self._asked_at = now
        if self._lowest < self._minimum_bytes:
            raise no_space(f"{format_size(self._lowest)} are left of the {format_size(self._minimum_bytes)} it needs")


def no_space(why: str) -> Unavailable:
    """Return the error that says that the disk has no room for a request."""
    return Unavailable(
        f"there is no room on the disk to queue the request: {why}",
        code="NO_SPACE",
        hint="free space on the file system of the state folder",
        retry_after_s=30,
    )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Blocks the whole process. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Make the files in a folder, and their names, durable. Blocks the whole process. Raises OSError."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
