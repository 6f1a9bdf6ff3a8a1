"""The daemon's two folders, and the locks that keep a second daemon out of them.

State (0700): what must survive. Runtime: sockets; 0755 for root, so that a group can reach the control socket, else 0700.
A folder that is there already keeps its mode; one that others could tamper with is refused.
"""

import fcntl
import logging
import os
import stat

from agentainerd.errors import AgentainerError, Unavailable
from agentainerd.listeners import describe_process

log = logging.getLogger(__name__)

LOCK = "lock"


class FolderLock:
    """An exclusive lock on a folder, held until `release` or the end of the process. Its file has our pid."""

    def __init__(self, folder: str, noun: str) -> None:
        """Take it; `noun` is "state" or "runtime".

        Raises:
            Unavailable: another process has it (the message says which), or the folder cannot be written.
        """
        path = os.path.join(folder, LOCK)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as exc:
            raise _unusable(folder, noun, exc.strerror or str(exc)) from exc
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = _holder(self._descriptor)
            os.close(self._descriptor)
            raise Unavailable(
                f"the {noun} folder {folder} is in use by {holder}",
                code="ALREADY_RUNNING",
                hint="stop it, or give this one --state-dir, --runtime-dir and --listen of its own",
            ) from exc
        os.ftruncate(self._descriptor, 0)
        os.write(self._descriptor, b"%d\n" % os.getpid())

    def release(self) -> None:
        """Let others have it. The file stays: removing it would let two of them lock different ones."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def prepare_state(folder: str) -> None:
    """Make the state folder where it is missing.

    Raises:
        Unavailable: it cannot be made, or others can write in it.
    """
    _make(folder, "state", 0o700)
    mode = os.stat(folder).st_mode
    if mode & 0o077:
        log.warning("others can look into the state folder: chmod 700 %s", folder)


def prepare_runtime(folder: str) -> None:
    """Make the runtime folder where it is missing. Raises Unavailable as `prepare_state` does."""
    _make(folder, "runtime", 0o755 if os.geteuid() == 0 else 0o700)


def _make(folder: str, noun: str, mode: int) -> None:
    try:
        parent = os.path.dirname(folder)
        if not os.path.isdir(parent):
            os.makedirs(parent)
        if not os.path.lexists(folder):
            os.mkdir(folder, mode)
            os.chmod(folder, mode)  # whatever the umask says
        there = os.lstat(folder)
        if stat.S_ISLNK(there.st_mode) and there.st_uid in (0, os.geteuid()):
            there = os.stat(folder)
    except OSError as exc:
        raise _unusable(folder, noun, exc.strerror or str(exc)) from exc
    if not stat.S_ISDIR(there.st_mode):
        raise _unusable(folder, noun, "it is not a folder")
    if there.st_uid not in (0, os.geteuid()):
        raise _unusable(folder, noun, f"it belongs to uid {there.st_uid}")
    if there.st_mode & 0o022:
        raise _unusable(folder, noun, f"others can write in it (mode {stat.S_IMODE(there.st_mode):04o})")


def _unusable(folder: str, noun: str, why: str) -> AgentainerError:
    return Unavailable(
        f"the {noun} folder {folder} cannot be used: {why}",
        code="FOLDER_NOT_USABLE",
        hint=f"it must belong to uid {os.geteuid()} and be closed to others; another one is set with --{noun}-dir",
    )


def _holder(descriptor: int) -> str:
    text = os.pread(descriptor, 32, 0).strip()
    return describe_process(int(text)) if text.isdigit() else "another process"
