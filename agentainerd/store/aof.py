"""The append-only files of the embedded server: are they there, and is the end of the last one torn?

After a loss of power the last file can end in a command that was not written to its end, and in zero bytes that were never
written. Nobody was told that such a command was done: it is set aside and cut off. Anything else that the server refuses to
read is damage, and is left as it is.
"""

import logging
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

ASIDE = "journal.damaged"
"""Folder beside the journal's for what was taken out of it."""

_FOLDER = "appendonlydir"
_MANIFEST = "appendonly.aof.manifest"
_PIECE_BYTES = 64 * 1024
_MAX_TORN_BYTES = 256 * 1024 * 1024
_KEPT_TAILS = 20
_CHECKER = "redis-check-aof-valkey-check-aof"
"""A server that is called so is its own checker; each program looks for its own name in it."""

_CHECK_LIMIT_S = 300.0
_SOUND_UP_TO = re.compile(r"ok_up_to=(\d+)")
_HEADER = re.compile(rb"([*$])(\d{1,10})\r\n")
_END_OF_TRANSACTION = b"\r\nEXEC\r\n"
_CUT_HEADER = re.compile(rb"[*$]\d{0,10}\r?")


@dataclass(frozen=True, slots=True)
class Tail:
    """What is wrong with the end of a file: from `start` on, to its `size`, it can't be read. `is_torn`: nothing but a command
    that was not written to its end, or zero bytes.
    """

    file: Path
    start: int
    size: int
    is_torn: bool


def folder(journal_dir: Path) -> Path:
    """Return where the append-only files are."""
    return journal_dir / _FOLDER


def manifest(journal_dir: Path) -> Path:
    """Return where the list of the append-only files is."""
    return journal_dir / _FOLDER / _MANIFEST


def has_files(journal_dir: Path) -> bool:
    """There are files of a journal, with or without a list of them."""
    return folder(journal_dir).is_dir() and any(folder(journal_dir).iterdir())


def examine(journal_dir: Path, binary: str) -> Tail | None:
    """Return what is wrong with the file that was written last; None where that is nothing, or it is not there.

    `binary` is the server's program, which is its own redis-check-aof. Reads the whole file.
    """
    last = _last_increment(manifest(journal_dir))
    if last is None or not last.exists():
        return None
    size = last.stat().st_size
    told = _check(binary, last)
    found = _SOUND_UP_TO.search(told)
    if found is None or int(found[1]) >= size:
        return None
    start = int(found[1])
    return Tail(last, start, size, _is_torn(last, start, size))


def cut(tail: Tail, binary: str, aside: Path) -> int:
    """Let redis-check-aof cut off what can't be read, after a copy of it was put into the folder `aside`; return its size.

    Where there is no room for the copy, the log says so, and it is cut off all the same.
    """
    size = tail.size - tail.start
    kept = _set_aside(tail, aside)
    told = _check(binary, "--fix", tail.file)
    if tail.file.stat().st_size != tail.start:
        raise OSError(f"redis-check-aof did not repair {tail.file}: {told.strip().splitlines()[-1:]}")
    log.warning("cut %d bytes off the end of %s, from %d on: %s", size, tail.file, tail.start, kept)
    return size


def set_aside(journal_dir: Path, aside: Path) -> Path:
    """Move the append-only files into the folder `aside` and return where they are now. Raises OSError."""
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder(journal_dir).rename(aside / f"{_now()}-{_FOLDER}")


def copy_aside(journal_dir: Path, aside: Path) -> Path:
    """Copy the append-only files into the folder `aside` and return where the copy is. Raises OSError."""
    aside.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(shutil.copytree(folder(journal_dir), aside / f"{_now()}-{_FOLDER}.copy"))


def _now() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def _set_aside(tail: Tail, aside: Path) -> str:
    name = f"{_now()}-{tail.file.name}.from-{tail.start}"
    try:
        aside.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tail.file.open("rb") as file, (aside / name).open("wb") as copy:
            file.seek(tail.start)
            while piece := file.read(_PIECE_BYTES):
                copy.write(piece)
        for old in sorted(aside.glob("*.from-*"))[:-_KEPT_TAILS]:
            old.unlink()
    except OSError as exc:
        return f"they could not be kept ({exc})"
    return f"they are in {aside / name}"


def _check(binary: str, *arguments: str | Path) -> str:
    """Return what redis-check-aof says."""
    done = subprocess.run(
        [_CHECKER, *map(str, arguments)],
        executable=binary,
        input="y\n",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_CHECK_LIMIT_S,
        check=False,
    )
    return done.stdout + done.stderr


def _last_increment(index: Path) -> Path | None:
    """Return the file that the server wrote last, or None where it wrote none since the last rewrite."""
    if not index.exists():
        return None
    last, highest = None, -1
    for line in index.read_text(errors="replace").splitlines():
        words = line.split()
        entry = dict(zip(words[::2], words[1::2], strict=False))
        sequence = entry.get("seq", "")
        if entry.get("type") == "i" and sequence.isdigit() and int(sequence) > highest:
            last, highest = index.parent / entry.get("file", "").strip('"'), int(sequence)
    return last


def _is_torn(path: Path, start: int, size: int) -> bool:
    """The file ends, from `start` on, in the beginning of one command or transaction, and zero bytes.

    Where the end of a transaction follows, one that was answered can't be read: a wrong length hides it in one long word.
    """
    end = _end_of_data(path, start, size)
    if end - start > _MAX_TORN_BYTES:
        return False
    with path.open("rb") as file:
        file.seek(start)
        data = file.read(end - start)
    if _END_OF_TRANSACTION in data:
        return False
    at, first = 0, True
    while at < len(data):
        try:
            words, at = _command(data, at)
        except EOFError:
            return True
        except ValueError:
            return False
        if first and words != [b"MULTI"]:
            return False  # a whole command that the server does not take for another reason
        first = False
    return True


def _command(data: bytes, at: int) -> tuple[list[bytes], int]:
    """Return the words of the command at `at`, and where the next one begins.

    Raises:
        EOFError: it is not there to its end.
        ValueError: it is no command.
    """
    count, at = _header(data, at, b"*")
    words = []
    for _ in range(count):
        length, at = _header(data, at, b"$")
        end = at + length
        if data[end : end + 2] not in (b"\r\n", b"\r", b""):
            raise ValueError("a word that is longer than it says")
        if end + 2 > len(data):
            raise EOFError
        words.append(data[at:end])
        at = end + 2
    return words, at


def _header(data: bytes, at: int, kind: bytes) -> tuple[int, int]:
    """Return the number that stands at `at` after `kind`, and where the line ends. Raises as `_command` does."""
    found = _HEADER.match(data, at)
    if found and found[1] == kind:
        return int(found[2]), found.end()
    rest = data[at : at + 16]
    if not rest or (rest.startswith(kind) and _CUT_HEADER.fullmatch(rest)):
        raise EOFError
    raise ValueError("neither a count nor a length")


def _end_of_data(path: Path, start: int, size: int) -> int:
    """Return how long the file is without the zero bytes at its end, at least `start`."""
    with path.open("rb") as file:
        end = size
        while end > start:
            begin = max(end - _PIECE_BYTES, start)
            file.seek(begin)
            data = file.read(end - begin).rstrip(b"\0")
            if data:
                return begin + len(data)
            end = begin
    return start
