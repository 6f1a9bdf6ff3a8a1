"""Giving up on purpose what a journal lost, so that the daemon starts again. A person asks for it; nothing else does.

What can still be read is kept, what is taken away is moved to `<state_dir>/journal.damaged`, and nothing is deleted.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from agentainerd import defaults
from agentainerd.errors import Failed, Unavailable
from agentainerd.store import aof, keys, marks
from agentainerd.store.connection import RedisClient
from agentainerd.store.redis_server import RedisServer


def accept(state_dir: Path, find_binary: Callable[[], str]) -> Iterator[str]:
    """Make what is left of a journal the one that the next start takes; yield a sentence for each thing that was done.

    `find_binary` returns the server's program; it is asked where there are files of an own server. No daemon may run on
    `state_dir`.

    Raises:
        Unavailable: the disk is full or failed (code STATE_NOT_WRITABLE).
        Failed: the server can't be started for a reason of its own (code REDIS_START_FAILED).
    """
    journal_dir = state_dir / "journal"
    try:
        if aof.has_files(journal_dir):
            yield from _make_readable(state_dir, journal_dir, find_binary())
        mark = marks.path(state_dir)
        if mark.exists():
            aside = state_dir / aof.ASIDE
            aside.mkdir(mode=0o700, exist_ok=True)
            yield f"the next start takes the journal that it finds; {mark} is now {marks.set_aside(state_dir, aside)}"
    except (OSError, subprocess.SubprocessError) as exc:
        raise Unavailable(
            f"the journal in {state_dir} can't be changed: {exc}",
            code="STATE_NOT_WRITABLE",
            hint=f"make room on the file system of {state_dir}",
        ) from exc


def _make_readable(state_dir: Path, journal_dir: Path, binary: str) -> Iterator[str]:
    aside = state_dir / aof.ASIDE
    tail = aof.examine(journal_dir, binary)
    if tail is not None:
        copy = aof.copy_aside(journal_dir, aside)
        cut = aof.cut(tail, binary, aside)
        yield f"{cut} bytes at the end of {tail.file.name} can't be read and were cut off; a copy of all files is {copy}"
    found = _content(state_dir, binary) if aof.manifest(journal_dir).exists() else ""
    if found:
        yield f"the journal can be read: {found}"
    else:
        yield f"the journal can't be read; its files are now {aof.set_aside(journal_dir, aside)}; the next one is empty"


def _content(state_dir: Path, binary: str) -> str:
    """Start the server on the journal for a moment; say what is in it, or "" where it can't be read."""
    sockets = Path(tempfile.mkdtemp(prefix="agentainer-"))
    server = RedisServer(
        binary,
        state_dir=state_dir,
        runtime_dir=sockets,
        maxmemory_bytes=0,
        spawn=lambda *ignored: None,
    )
    try:
        server.start(defaults.REDIS_START_TIMEOUT_S)
        client = RedisClient(server.url)
        try:
            agents, pending = client.calls([("HLEN", keys.AGENTS), ("ZCARD", keys.DEADLINES)])
        finally:
            client.close()
    except Failed as exc:
        if exc.code == "REDIS_START_FAILED":
            raise
        return ""
    finally:
        server.stop()
        shutil.rmtree(sockets, ignore_errors=True)
    return f"{agents} agents, {pending} requests that wait for delivery"
