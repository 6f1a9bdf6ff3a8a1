"""The mark: `<state_dir>/journal.id` says which journal this state folder has, and how far it was written.

A journal that is not there any more, another one, and an old copy of the right one are told by it at the start. It is
written beside the journal's own batches, never for one of them, so that it may lag behind what is durable, and is never ahead.
"""

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from agentainerd.errors import Failed, Unavailable
from agentainerd.store import disk

ID_FILE = "journal.id"
_TEXT = re.compile(r"(?P<journal>[0-9a-f]{32})(?:\s+epoch (?P<epoch>\d+) batch (?P<batch>\d+))?\s*")


@dataclass(frozen=True, slots=True)
class Mark:
    """The journal with the id `journal` has every batch up to number `batch` of epoch `epoch`."""

    journal: str
    epoch: int = 0
    batch: int = 0


def path(state_dir: Path) -> Path:
    """Return where the mark of a state folder is."""
    return state_dir / ID_FILE


def read(state_dir: Path) -> Mark | None:
    """Return the mark of a state folder; None: it never had a journal.

    Raises:
        Failed: the file is there and is no mark (code JOURNAL_DAMAGED).
    """
    try:
        text = path(state_dir).read_text(errors="replace")
    except FileNotFoundError:
        return None
    found = _TEXT.fullmatch(text)
    if not found:
        raise damaged(state_dir, f"{path(state_dir)} can't be read: it does not say which journal this folder has")
    return Mark(found["journal"], int(found["epoch"] or 0), int(found["batch"] or 0))


def write(state_dir: Path, mark: Mark) -> None:
    """Write the mark durably: all of it is there, or what was there before. Blocks the whole process for an fsync or two.

    Raises:
        Unavailable: the disk is full or failed (code STATE_NOT_WRITABLE).
    """
    file = path(state_dir)
    temporary = file.with_suffix(".tmp")
    try:
        with temporary.open("w") as out:
            out.write(f"{mark.journal}\nepoch {mark.epoch} batch {mark.batch}\n")
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(file)
        disk.sync_folder(state_dir)
    except OSError as exc:
        raise Unavailable(
            f"{file} can't be written: {exc.strerror or exc}",
            code="STATE_NOT_WRITABLE",
            hint=f"make room on the file system of {state_dir}",
        ) from exc


def set_aside(state_dir: Path, aside: Path) -> Path:
    """Move the mark into the folder `aside`, and return where it is now; the next start makes a new one. Raises OSError."""
    moved = path(state_dir).rename(aside / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{ID_FILE}")
    disk.sync_folder(state_dir)
    return moved


def lost(state_dir: Path, what: str) -> Failed:
    """Return the error that says that requests which were accepted are not there any more."""
    return Failed(f"the request journal is lost: {what}", code="JOURNAL_LOST", hint=_hint(state_dir))


def damaged(state_dir: Path, what: str) -> Failed:
    """Return the error that says that the journal is there, and can't be read whole."""
    return Failed(f"the request journal is damaged: {what}", code="JOURNAL_DAMAGED", hint=_hint(state_dir))


def _hint(state_dir: Path) -> str:
    return (
        f"put {state_dir}/journal back as it was last; or give up the agents and requests that are missing, once: "
        f"agentainerd --state-dir {state_dir} --accept-journal-loss"
    )
