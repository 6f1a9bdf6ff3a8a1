"""Small files that only the daemon's user may read: keys and tokens. Both functions block the whole process for a moment."""

import contextlib
import logging
import os
import secrets
import stat
from pathlib import Path

from agentainerd.store.disk import sync_folder

log = logging.getLogger(__name__)


def read_private(path: str) -> bytes | None:
    """Return a file's content, at most 4 KiB; None where there is none, or where others than its owner may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:
        if stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o077:
            log.warning("%s could be read by others: what it held is replaced", path)
            return None
        return file.read(4096)


def write_private(path: str, content: bytes) -> None:
    """Put a file in place, whole or not at all, readable by its owner only, and on disk when this returns."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(Path(path).parent)
