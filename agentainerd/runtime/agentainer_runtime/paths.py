"""Files beneath a folder, whatever a path says and whoever swaps a symbolic link meanwhile.

The kernel resolves (`openat2` with RESOLVE_BENEATH and RESOLVE_NO_MAGICLINKS); where it or a seccomp profile has no such call,
the components are walked here one by one, never following a link that the walk did not read itself. Links inside the folder
are followed, also upwards; what would leave it, absolute links among it, is refused. Nothing is ever opened by its full path.
"""

import contextlib
import ctypes
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

OPENAT2 = 437  # on every architecture that Linux got after 2011, and on x86-64
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
MAX_LINKS = 40  # as the kernel
MAX_LENGTH = 4096  # PATH_MAX, which a walk could exceed, and then nobody could remove what it made
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
ATTEMPTS = 8  # of a resolution that a rename elsewhere disturbed (EAGAIN)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class PathRefused(Exception):
    """A path can't be used; the text says which and why, for the model."""


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def relative(path: str, root: Path) -> str:
    """Return `path` as one relative to `root`: as it is, or without `root` in front if it is absolute. "" becomes ".".

    Raises:
        PathRefused: absolute and not below `root`, or with a NUL. `..` stays: only resolving it says where it leads.
        OSError: ENAMETOOLONG.
    """
    if "\0" in path:
        raise PathRefused("a path has no NUL characters")
    try:
        length = len(os.fsencode(path))
    except UnicodeEncodeError as exc:
        raise PathRefused("a path has no characters that UTF-8 does not have") from exc
    if length >= MAX_LENGTH:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), f"{path[:60]}...")
    if not path.startswith("/"):
        return path or "."
    parts = [part for part in path.split("/") if part not in ("", ".")]
    above = [part for part in str(root).split("/") if part]
    if parts[: len(above)] != above:
        raise PathRefused(f"{path} is outside {root}: paths are relative to {root}")
    inside = "/".join(parts[len(above) :])
    return inside + "/" if inside and path.endswith("/") else inside or "."


def open_beneath(root_fd: int, path: str, flags: int) -> int:
    """Open what is at the relative `path` beneath the folder `root_fd` and return its descriptor (close-on-exec).

    `flags` are those of `os.open` but O_CREAT and O_TMPFILE.

    Raises:
        PathRefused: it leads out of the folder, or through a magic link of /proc.
        OSError: what the kernel says: ENOENT, ENOTDIR, EACCES, ELOOP...
    """
    flags |= os.O_CLOEXEC
    if _kernel_can():
        try:
            return _open_by_kernel(root_fd, path, flags)
        except OSError as exc:
            if exc.errno == errno.EXDEV:
                raise PathRefused(f"{path} leads outside the workspace") from exc
            raise
    return open_walking(root_fd, path, flags)


def open_walking(root_fd: int, path: str, flags: int) -> int:
    """Do what `open_beneath` does, component by component: for kernels and profiles without openat2."""
    todo = _components(path)
    opened = [os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root_fd)]
    links = 0
    try:
        while todo:
            name = todo.pop(0)
            if name == "..":
                if len(opened) == 1:
                    raise PathRefused(f"{path} leads outside the workspace")
                os.close(opened.pop())
                continue
            target = None if name == "." else _link_at(opened[-1], name)
            if target is None:
                last = not todo
                how = flags if last else os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
                opened.append(os.open(name, how | os.O_NOFOLLOW, dir_fd=opened[-1]))
                if last:
                    return opened.pop()
                continue
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            if target.startswith("/"):
                raise PathRefused(f"{path} leads outside the workspace: {name} is a link to {target}")
            todo = _components(target) + todo
        return os.open(".", flags, dir_fd=opened[-1])  # the last one was `..`
    finally:
        for descriptor in opened:
            os.close(descriptor)


@contextlib.contextmanager
def folder(root: Path, path: str = ".") -> Iterator[int]:
    """Give the descriptor of the folder at `path` beneath `root`, open for listing and as `dir_fd`.

    Raises:
        PathRefused, OSError: as `open_beneath`.
    """
    root_fd = os.open(root, FOLDER)
    try:
        descriptor = open_beneath(root_fd, relative(path, root), FOLDER)
    finally:
        os.close(root_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def regular_file(root: Path, path: str) -> Iterator[int]:
    """Give the descriptor of the regular file at `path` beneath `root`, open for reading. Never waits for a FIFO's other end.

    Raises:
        PathRefused: as `open_beneath`, and where something else than a regular file is there.
        OSError: as `open_beneath`.
    """
    with folder(root) as root_fd:
        descriptor = open_beneath(root_fd, relative(path, root), os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise PathRefused(f"{path} is {kind_of(mode)}, not a file")
        yield descriptor
    finally:
        os.close(descriptor)


def write(root: Path, path: str, content: bytes) -> bool:
    """Make or replace the regular file at `path` beneath `root`, and the folders above it; return whether it is new.

    Whoever reads meanwhile sees the old content or the new one. The mode of a file that exists is kept, a symbolic link is
    written through if its target is beneath `root`, and of a file with several hard links only this name gets the new content.

    Raises:
        PathRefused: it leads outside, names a folder, or something there is neither a file nor absent.
        OSError: what the kernel says: EACCES, ENOSPC, EROFS...
    """
    with folder(root) as root_fd, _place(root_fd, relative(path, root)) as (parent, name):
        mode = _mode_at(parent, name)
        if mode is not None and not stat.S_ISREG(mode):
            raise PathRefused(f"{path} is {kind_of(mode)}, not a file")
        temporary = f".{name[:200]}.{secrets.token_hex(6)}"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=parent)
        try:
            with open(descriptor, "wb") as file:
                if mode is not None:
                    os.fchmod(file.fileno(), stat.S_IMODE(mode))
                file.write(content)
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=parent)
            raise
        return mode is None


def canonical(root: Path, path: str) -> str:
    """Return where the file or folder at `path` really is, relative to `root`, links resolved; of a new one, where it would be.

    It is for messages and rules about names, a moment later it may be elsewhere: files are opened by `path`.

    Raises:
        PathRefused: it is outside `root`.
    """
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, relative(path, root)))
    if real == real_root:
        return "."
    if not real.startswith(real_root + "/"):
        raise PathRefused(f"{path} leads outside the workspace")
    return real[len(real_root) + 1 :]


def kind_of(mode: int) -> str:
    """Return what an `st_mode` is, with an article: "a folder", "a named pipe"..."""
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def _open_by_kernel(root_fd: int, path: str, flags: int) -> int:
    how = _OpenHow(flags, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    name = os.fsencode(path)
    for _ in range(ATTEMPTS):
        descriptor = int(_libc.syscall(OPENAT2, root_fd, name, ctypes.byref(how), ctypes.sizeof(how)))
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


_known: list[bool] = []


def _kernel_can() -> bool:
    """Ask once: old kernels say ENOSYS, old seccomp profiles EPERM."""
    if not _known:
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.close(_open_by_kernel(root, ".", os.O_PATH | os.O_CLOEXEC))
            _known.append(True)
        except OSError:
            _known.append(False)
        finally:
            os.close(root)
    return _known[0]


def _components(path: str) -> list[str]:
    """Split; a path that ends in / or /. ends in ".", which only a folder has."""
    if path.startswith("/"):
        raise PathRefused(f"{path} is absolute")
    if not path:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    parts = path.split("/")
    inner = [part for part in parts[:-1] if part not in ("", ".")]
    return [*inner, "." if parts[-1] == "" else parts[-1]]


def _link_at(parent: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            return None
        raise


@contextlib.contextmanager
def _place(root_fd: int, path: str) -> Iterator[tuple[int, str]]:
    """Give the folder and the name in it where a write to `path` belongs: folders made, links followed."""
    for _ in range(MAX_LINKS):
        above, _, name = path.rpartition("/")
        if name in ("", ".", ".."):
            raise PathRefused(f"{path} names a folder, not a file")
        parent = _made(root_fd, above or ".")
        try:
            try:
                target = _link_at(parent, name)
            except FileNotFoundError:
                target = None
            if target is None:
                yield parent, name
                return
        finally:
            os.close(parent)
        if target.startswith("/"):
            raise PathRefused(f"{path} leads outside the workspace: it is a link to {target}")
        path = f"{above}/{target}" if above else target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _made(root_fd: int, path: str) -> int:
    """Open the folder at `path`; what is missing of it is made."""
    with contextlib.suppress(FileNotFoundError):
        return open_beneath(root_fd, path, FOLDER)
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        so_far = "/".join(parts[:count])
        try:
            parent = open_beneath(root_fd, so_far, FOLDER)
        except FileNotFoundError:
            parent = open_beneath(root_fd, "/".join(parts[: count - 1]) or ".", FOLDER)
            with contextlib.suppress(FileExistsError):
                os.mkdir(parts[count - 1], 0o777, dir_fd=parent)
        os.close(parent)
    return open_beneath(root_fd, path, FOLDER)


def _mode_at(parent: int, name: str) -> int | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return None
