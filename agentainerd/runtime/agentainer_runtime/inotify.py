"""The kernel's notices that something in a folder changed, on an event loop: when to look, never what there is to see."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterable

IN_ATTRIB = 0x04
IN_CLOSE_WRITE = 0x08
IN_MOVED = 0x40 | 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_MODIFY = 0x02
IN_SELF = 0x400 | 0x800
IN_ONLYDIR = 0x01000000
CHANGES = IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED | IN_CREATE | IN_DELETE | IN_MODIFY | IN_SELF
_READ_BYTES = 65536

_libc = ctypes.CDLL(None, use_errno=True)


class Notices:
    """Calls `changed` when something in one of the folders may have changed; belongs to one event loop."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """Raises OSError: the kernel has no more of them (EMFILE)."""
        self._changed = changed
        self._descriptor = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, f"no more files can be watched: {os.strerror(number)}")
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    def add(self, folders: Iterable[int]) -> None:
        """Watch folders too, which are open: what is watched is the folder itself, whatever becomes of its name.

        Raises:
            OSError: the kernel watches no more (ENOSPC).
        """
        for folder in folders:
            place = f"/proc/self/fd/{folder}".encode()
            if _libc.inotify_add_watch(self._descriptor, place, CHANGES | IN_ONLYDIR) < 0:
                number = ctypes.get_errno()
                raise OSError(number, f"no more folders can be watched: {os.strerror(number)}")

    def close(self) -> None:
        """Watch nothing any more."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        os.read(self._descriptor, _READ_BYTES)
        self._changed()
