"""Opening what is below a folder, by steps of one name each that follow no link: nobody who exchanges folders leads elsewhere.

Blocks: for offload.run.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from gevent.monkey import get_original

from agentainerd.errors import NotFound

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
close_now: Callable[[int], None] = get_original("os", "close")
"""Closes a descriptor. gevent's leaves one of a folder to the event loop of its thread: in one that has such a loop, for ever."""
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class NotAFile(OSError):
    """What is there is no regular file of the same file system."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "it is not a file any more")


def open_root(root: Path) -> int:
    """Return a descriptor of the folder that everything else is below.

    Raises:
        NotFound: the folder that it is in is not there (code FILES_NOT_FOUND).
        OSError: it is not there itself, is no folder, is a link, or can't be opened.
    """
    try:
        parent = os.open(root.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise NotFound("files", str(root), message=f"there are no files: {root.parent} is gone") from exc
    try:
        return os.open(root.name, FOLDER, dir_fd=parent)
    finally:
        close_now(parent)


def open_file(root: int, path: bytes) -> tuple[int, os.stat_result]:
    """Return a descriptor of the regular file `path` (relative, no "..") below the open folder `root`, and its status.

    It is looked at before it is opened: to open a device can do things.

    Raises:
        OSError: it can't be opened; NotAFile: it is something else, or on another file system.
    """
    *folders, name = path.split(b"/")
    folder = root
    try:
        for each in folders:
            inner = os.open(each, _STEP, dir_fd=folder)
            _close(folder, root)
            folder = inner
        place = os.open(name, _LOOK, dir_fd=folder)
    finally:
        _close(folder, root)
    try:
        status = os.fstat(place)
        if not stat.S_ISREG(status.st_mode) or status.st_dev != os.fstat(root).st_dev:
            raise NotAFile
        return os.open(f"/proc/self/fd/{place}", _READ), status
    finally:
        close_now(place)


def _close(descriptor: int, root: int) -> None:
    if descriptor != root:
        close_now(descriptor)
