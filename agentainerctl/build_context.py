"""The folder that an image is built from, as a tar: listed first, so that limits are checked before a byte is sent.

Symbolic links stay links, sockets, pipes and devices stay at home, owner and group are the image's business (0:0, as the
engine's own client does). Memory is bounded by the number of files, not by their size.
"""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, NamedTuple

from agentainerctl.dockerignore import Ignore
from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound, TooLarge
from agentainerd.units import format_size

FOREIGN_DOCKERFILE = ".agentainer.dockerfile"  # its name in the tar where it lies outside the folder, or is a link
_MAX_IGNORE_BYTES = 1024 * 1024
_IGNORE_HINT = "make it readable, or name it in .dockerignore"


class Entry(NamedTuple):
    """One thing in the tar: `name` there (relative, with `/`), `path` on this host, `status` as it was when listed."""

    name: str
    path: str
    status: os.stat_result


class BuildContext(NamedTuple):
    """What will be sent. `dockerfile` is its name in the tar, `total_bytes` the content of all files."""

    root: str
    dockerfile: str
    entries: tuple[Entry, ...]
    total_bytes: int


def collect(
    root: str,
    dockerfile: str,
    *,
    max_bytes: int = defaults.MAX_BUILD_CONTEXT_BYTES,
    max_files: int = defaults.MAX_BUILD_CONTEXT_FILES,
) -> BuildContext:
    """List what of the folder `root` belongs to the context of `dockerfile` (both are paths on this host).

    `<dockerfile>.dockerignore` counts where it exists, else `.dockerignore` in `root`. The Dockerfile is always in it.

    Raises:
        NotFound: no such folder or Dockerfile.
        InvalidParameter: something in it can't be read, or the ignore file is malformed.
        TooLarge: over a limit; the message names what is largest.
    """
    if not os.path.isdir(root):
        raise NotFound("folder", root, message=f"no such folder: {root}")
    if not os.path.isfile(dockerfile):
        raise NotFound("dockerfile", dockerfile, message=f"no such Dockerfile: {dockerfile}")
    ignore = _read_ignore(root, dockerfile)
    name = _name_within(root, dockerfile)
    entries: list[Entry] = []
    sizes: dict[str, int] = {}
    for entry in _walk(root, ignore):
        if entry.name == name:
            continue
        entries.append(entry)
        if len(entries) > max_files:
            raise _too_many(root, entries, max_files)
        if stat.S_ISREG(entry.status.st_mode):
            top = entry.name.partition("/")[0]
            sizes[top] = sizes.get(top, 0) + entry.status.st_size
    entries.append(Entry(name, dockerfile, os.stat(dockerfile)))
    total = sum(sizes.values()) + entries[-1].status.st_size
    if total > max_bytes:
        largest = max(sizes, key=lambda top: sizes[top])
        raise TooLarge(
            f"the build context {root} has {format_size(total)}; the limit is {format_size(max_bytes)} "
            f"(largest: {largest}, {format_size(sizes[largest])})",
            code="CONTEXT_TOO_LARGE",
            hint=f"echo {largest} >>{os.path.join(root, '.dockerignore')}",
        )
    return BuildContext(root, name, tuple(entries), total)


def write_tar(context: BuildContext, write: Callable[[bytes], object]) -> None:
    """Give the context to `write` as a tar, piece by piece; errors of `write` go through.

    Raises:
        InvalidParameter: a file can't be read any more.
        Conflict: a file became shorter while it was read.
    """
    import tarfile

    sink = _Sink(write)
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT, errors="surrogateescape") as archive:  # type: ignore[call-overload]
        for entry in context.entries:
            info = tarfile.TarInfo(entry.name)
            info.mode = stat.S_IMODE(entry.status.st_mode)
            info.mtime = int(entry.status.st_mtime)
            if stat.S_ISDIR(entry.status.st_mode):
                info.type = tarfile.DIRTYPE
                archive.addfile(info)
            elif stat.S_ISLNK(entry.status.st_mode):
                info.type = tarfile.SYMTYPE
                with _readable(entry.path):
                    info.linkname = os.readlink(entry.path)
                archive.addfile(info)
            else:
                with _readable(entry.path):
                    file = open(entry.path, "rb")  # noqa: SIM115 - closed below; opening and sending fail for different reasons
                with file:
                    info.size = os.fstat(file.fileno()).st_size
                    archive.addfile(info, _Exact(file, entry.name, info.size))


class _Sink:
    """What tarfile takes for a file."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write


class _Exact:
    """A file that fails, by name, where it ends before `size` bytes."""

    def __init__(self, file: IO[bytes], name: str, size: int) -> None:
        self._file = file
        self._name = name
        self._left = size

    def read(self, size: int) -> bytes:
        with _readable(self._name):
            data = self._file.read(size)
        self._left -= len(data)
        if len(data) < size and self._left > 0:
            raise Conflict(
                f"{self._name} became shorter while it was sent", code="CONTEXT_CHANGED", hint="try it again"
            )
        return data


@contextmanager
def _readable(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InvalidParameter("context", f"cannot read {path}: {error.strerror}", hint=_IGNORE_HINT) from error


def _read_ignore(root: str, dockerfile: str) -> Ignore:
    for path in (f"{dockerfile}.dockerignore", os.path.join(root, ".dockerignore")):
        if os.path.isfile(path):
            with _readable(path), open(path, encoding="utf-8", errors="surrogateescape") as file:
                return Ignore(file.read(_MAX_IGNORE_BYTES).splitlines(), path)
    return Ignore(())


def _name_within(root: str, dockerfile: str) -> str:
    """Return the Dockerfile's name in the tar: its own where it is a plain file of the folder."""
    folder = os.path.realpath(root)
    path = os.path.join(os.path.realpath(os.path.dirname(dockerfile) or "."), os.path.basename(dockerfile))
    if os.path.islink(dockerfile) or os.path.commonpath((folder, path)) != folder:
        return FOREIGN_DOCKERFILE
    return os.path.relpath(path, folder)


def _walk(root: str, ignore: Ignore) -> Iterator[Entry]:
    """Give what the patterns let through, folders before what is in them, in the order of names.

    A folder that is itself left out comes too, if something in it is taken back.
    """
    waiting: list[Entry] = []  # folders that are left out, from the root down to where we are
    stack = [iter(_list(root, ""))]
    while stack:
        entry = next(stack[-1], None)
        if entry is None:
            stack.pop()
            continue
        waiting = [folder for folder in waiting if entry.name.startswith(folder.name + "/")]
        is_folder = stat.S_ISDIR(entry.status.st_mode)
        if ignore.excludes(entry.name):
            if is_folder and not ignore.excludes_all_below(entry.name):
                waiting.append(entry)
                stack.append(iter(_list(entry.path, entry.name)))
            continue
        yield from waiting
        waiting = []
        yield entry
        if is_folder:
            stack.append(iter(_list(entry.path, entry.name)))


def _list(folder: str, prefix: str) -> list[Entry]:
    """Return the folders, regular files and links in `folder`, by name."""
    with _readable(folder), os.scandir(folder) as found:
        entries = [
            Entry(f"{prefix}/{item.name}" if prefix else item.name, item.path, item.stat(follow_symlinks=False))
            for item in found
        ]
    kinds = (stat.S_ISDIR, stat.S_ISREG, stat.S_ISLNK)
    return sorted(entry for entry in entries if any(is_kind(entry.status.st_mode) for is_kind in kinds))


def _too_many(root: str, entries: list[Entry], limit: int) -> TooLarge:
    counts: dict[str, int] = {}
    for entry in entries:
        top = entry.name.partition("/")[0]
        counts[top] = counts.get(top, 0) + 1
    largest = max(counts, key=lambda top: counts[top])
    return TooLarge(
        f"the build context {root} has more than {limit} files (most of them in {largest})",
        code="CONTEXT_TOO_LARGE",
        hint=f"echo {largest} >>{os.path.join(root, '.dockerignore')}",
    )
