"""The append-only files of the embedded server, before it reads them.

After a loss of power a file can end in zero bytes that were never written; the server refuses to read those. A command that
was cut off, which is what remains without them, it drops by itself: nobody was told that it was done.
"""

import logging
import os
import shutil
import time
from pathlib import Path

from agentainerd.errors import Failed

log = logging.getLogger(__name__)

_FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_PIECE_BYTES = 64 * 1024


def manifest(journal_dir: Path) -> Path:
    """Return where the list of the append-only files is."""
    return journal_dir / _FOLDER / _MANIFEST


def repair(journal_dir: Path, aside: Path) -> int:
    """Cut zero bytes off the end of the last file, after copying it to the folder `aside`; return how many.

    Raises:
        Failed: there are files but no list of them, with which the server would start empty (code JOURNAL_DAMAGED).
    """
    index = manifest(journal_dir)
    if not index.exists():
        if index.parent.is_dir() and any(index.parent.glob("appendonly.aof.*")):
            raise Failed(
                f"the request journal is damaged: {index} is missing, the files that it lists are there",
                code="JOURNAL_DAMAGED",
                hint=f"restore {journal_dir} from a backup, or move it away to start without its requests",
            )
        return 0
    last = _last_increment(index)
    if last is None or not last.exists():
        return 0
    size = last.stat().st_size
    end = _end_of_data(last, size)
    if end == size:
        return 0
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    copy = aside / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{last.name}"
    shutil.copyfile(last, copy)
    with last.open("r+b") as file:
        file.truncate(end)
        os.fsync(file.fileno())
    log.warning("cut %d zero bytes off the end of %s; it was copied to %s", size - end, last, copy)
    return size - end


def _last_increment(index: Path) -> Path | None:
    """Return the file that the server wrote last, or None where it wrote none since the last rewrite."""
    last, highest = None, -1
    for line in index.read_text().splitlines():
        words = line.split()
        entry = dict(zip(words[::2], words[1::2], strict=False))
        if entry.get("type") == "i" and int(entry.get("seq", 0)) > highest:
            last, highest = index.parent / entry["file"].strip('"'), int(entry["seq"])
    return last


def _end_of_data(path: Path, size: int) -> int:
    """Return how long the file is without the zero bytes at its end."""
    with path.open("rb") as file:
        end = size
        while end > 0:
            start = max(end - _PIECE_BYTES, 0)
            file.seek(start)
            data = file.read(end - start).rstrip(b"\0")
            if data:
                return start + len(data)
            end = start
    return 0
