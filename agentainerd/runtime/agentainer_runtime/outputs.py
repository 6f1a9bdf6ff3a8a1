"""What an answer leaves out: the beginning and end of a long output are shown, all of it (up to a bound) is kept in a file.

The files lie in the folder `outputs` of the runtime, which read_file may read; the oldest go when there are too many.
"""

import contextlib
from io import FileIO
from pathlib import Path

SHOWN_BYTES = 10_000  # of each stream, in an answer
KEPT_BYTES = 10 * 1024 * 1024  # of each stream, in the file
MAX_FILES = 100


class Output:
    """What came on one stream. Used from one thread."""

    def __init__(self, folder: Path, name: str, shown: int = SHOWN_BYTES) -> None:
        self.path = folder / name
        self.size = 0
        self._shown = shown
        self._kept = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._file: FileIO | None = None

    def add(self, data: bytes) -> None:
        """Take what was read. The file is begun when there is more than is shown."""
        room = max(0, self._shown - len(self._head))
        begun = bytes(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        del self._tail[: -self._shown]
        if self.size + len(data) > self._shown:
            self._keep(data if self._file else begun + data)
        self.size += len(data)

    def close(self) -> None:
        """End the file."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    @property
    def is_all_shown(self) -> bool:
        """Whether `text` is all that came."""
        return self.size <= self._shown

    @property
    def beginning(self) -> bytes:
        """The first bytes, as many as are shown; all that came where `is_all_shown`."""
        return bytes(self._head)

    @property
    def text(self) -> str:
        """What came, or its first and last half of what is shown, as text: what is not UTF-8 is replaced."""
        if self.is_all_shown:
            return self._head.decode("utf-8", "replace")
        half = self._shown // 2
        head = self._head[:half].decode("utf-8", "replace")
        tail = bytes(self._head + self._tail)[-half:].decode("utf-8", "replace")
        return f"{head}\n[... {self.size - 2 * half} bytes left out ...]\n{tail}"

    def notice(self, what: str, workspace: Path) -> str:
        """Return what is missing in `text` and where it is, "" where nothing is."""
        if self.is_all_shown:
            return ""
        shown = f"{what} has {self.size} bytes, the first and the last {self._shown // 2} are shown"
        if not self._kept:
            return f"{shown}; the rest could not be kept, there is no room on the disk"
        path = self.path.relative_to(workspace) if self.path.is_relative_to(workspace) else self.path
        kept = "all of it is" if self._kept == self.size else f"the first {self._kept} are"
        return f"{shown}; {kept} in {path}: read_file reads on with offset"

    def _keep(self, data: bytes) -> None:
        try:
            if self._file is None:
                _make_room(self.path.parent)
                self._file = open(self.path, "xb", buffering=0)  # noqa: SIM115 - closed in close()
            while data and self._kept < KEPT_BYTES:
                written = self._file.write(data[: KEPT_BYTES - self._kept])
                self._kept += written
                data = data[written:]
        except OSError:  # no room, or no folder: the program goes on, and its beginning and end are shown
            return


def shorten(text: str, what: str, *, folder: Path, name: str, workspace: Path) -> tuple[str, str]:
    """Return what is shown of `text` and the notice ("" where that is all); the whole is kept in the file `name`."""
    output = Output(folder, name)
    output.add(text.encode("utf-8", "replace"))
    output.close()
    return output.text, output.notice(what, workspace)


def _make_room(folder: Path) -> None:
    """Remove the oldest files, so that with one more there are at most MAX_FILES."""
    files = sorted(
        (path.stat().st_mtime, path) for path in folder.iterdir() if path.is_file() and not path.is_symlink()
    )
    for _, path in files[: max(0, len(files) - MAX_FILES + 1)]:
        path.unlink(missing_ok=True)
