"""Files that somebody wants to know the changes of, and what they were when they were looked at last.

The kernel says when to look again; a change is what differs between two looks. So a file that is replaced (as editors, git and
the tools do), one that is not there yet, and one whose folder goes and comes back are all the same, and many writes at once are
one change.
"""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from agentainer_runtime import file_policy, paths, texts
from agentainer_runtime.built_in import in_thread
from agentainer_runtime.inotify import Notices
from agentainer_runtime.tool import STATE_FOLDER

log = logging.getLogger(__name__)
MAX_WATCHED = 64
MAX_ENTRIES = 1000
SETTLE_S = 0.05
"""From the first notice to the look: what changes within it is one change."""

State = dict[str, tuple[int, ...]]
"""Each file by its path: what tells two versions of it apart."""


class TooManyWatched(Exception):
    """No more paths can be watched; the text says so."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file or folder that came, changed or went. `path`: in the workspace; `watched`: the path as it was asked for."""

    watched: str
    path: str
    operation: Literal["created", "modified", "deleted"]


class FileWatch:
    """What one client watches: files, or folders with what is directly in them. `changes` is read by one task.

    Nothing is held while nothing is watched.
    """

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._states: dict[str, State] = {}
        self._notices: Notices | None = None
        self._noticed = asyncio.Event()
        self._lock = asyncio.Lock()

    async def add(self, path: str) -> bool:
        """Watch `path`, which need not be there yet; return whether it is.

        Raises:
            paths.PathRefused: it is outside the workspace, or the runtime's own.
            TooManyWatched, OSError: no more can be watched.
        """
        async with self._lock:
            await in_thread(file_policy.check, self._workspace, path)
            if path not in self._states and len(self._states) >= MAX_WATCHED:
                raise TooManyWatched(f"{MAX_WATCHED} paths are watched already: unwatchFile ends one")
            if self._notices is None:
                self._notices = Notices(self._noticed.set)
            await in_thread(self._arm, path)
            self._states.setdefault(path, await in_thread(_state, self._workspace, path))
            return bool(self._states[path])

    async def remove(self, path: str) -> bool:
        """Watch `path` no more; return whether it was watched."""
        async with self._lock:
            was_watched = self._states.pop(path, None) is not None
            if not self._states:
                self.close()
            return was_watched

    def close(self) -> None:
        """Watch nothing any more."""
        self._states.clear()
        if self._notices is not None:
            self._notices.close()
            self._notices = None

    async def changes(self) -> AsyncIterator[FileChange]:
        """Give the changes as they come, without end."""
        while True:
            await self._noticed.wait()
            await asyncio.sleep(SETTLE_S)
            self._noticed.clear()
            async with self._lock:
                found = [change for path in list(self._states) for change in await self._look(path)]
            for change in found:
                yield change

    async def _look(self, path: str) -> list[FileChange]:
        """Return what changed since the last look. Notices come first: what comes between them and the look is noticed again."""
        try:
            await in_thread(self._arm, path)
        except OSError as error:  # folders that are new are not seen into; what is watched already still is
            log.warning("%s: %s", path, error)
        before = self._states[path]
        now = self._states[path] = await in_thread(_state, self._workspace, path)
        gone = [FileChange(path, each, "deleted") for each in before if each not in now]
        new = [FileChange(path, each, "created") for each in now if each not in before]
        other = [each for each in now if before.get(each, now[each]) != now[each]]
        return gone + new + [FileChange(path, each, "modified") for each in other]

    def _arm(self, path: str) -> None:
        """Have the folders on the way to `path` noticed, as far as they are there."""
        count = 0
        while self._notices is not None:
            with _way(self._workspace, path) as folders:
                self._notices.add(folders)
            if len(folders) == count:
                return
            count = len(folders)  # one more may have come before the one above it was watched


@contextmanager
def _way(workspace: Path, path: str) -> Iterator[list[int]]:
    """Give the folders on the way to `path`, open, from the workspace on, and it itself where it is one."""
    opened: list[int] = []
    try:
        with paths.folder(workspace) as root:
            parts = [part for part in paths.relative(path, workspace).split("/") if part not in ("", ".")]
            with suppress(OSError, paths.PathRefused):
                for count in range(len(parts) + 1):
                    so_far = "/".join(parts[:count]) or "."
                    opened.append(paths.open_beneath(root, so_far, os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK))
            yield opened
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _state(workspace: Path, path: str) -> State:
    """Return what is at `path` now: of a folder, what is in it; nothing where nothing is."""
    place = paths.relative(path, workspace).rstrip("/") or "."
    with suppress(OSError, paths.PathRefused), paths.folder(workspace) as root:
        descriptor = paths.open_beneath(root, place, os.O_PATH)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISDIR(status.st_mode):
                return {place: _version(status)}
        finally:
            os.close(descriptor)
        with paths.folder(workspace, place) as folder, os.scandir(folder) as scan:
            return dict(_entries(place, scan))
    return {}


def _entries(place: str, scan: Iterator[os.DirEntry[str]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    count = 0
    for entry in scan:
        if count >= MAX_ENTRIES:
            return
        if place == "." and entry.name == STATE_FOLDER:
            continue
        count += 1
        with suppress(FileNotFoundError):
            name = texts.printable(entry.name)
            yield (name if place == "." else f"{place}/{name}"), _version(entry.stat(follow_symlinks=False))


def _version(status: os.stat_result) -> tuple[int, ...]:
    if stat.S_ISDIR(status.st_mode):
        return (status.st_ino,)
    return (status.st_ino, status.st_size, status.st_mtime_ns)
