"""The ZIP of a job, as a file: whole or not there, never over what is there, and gone on with where it broke off.

What has come lies beside it as `.NAME.<state of the ZIP>.part`, so that it is gone on with only if the daemon still has that ZIP.
"""

import fcntl
import hashlib
import os
import sys
import time
from typing import BinaryIO

from agentainerctl.fetched import Fetched
from agentainerctl.jobs import SHORT_ID
from agentainerctl.logstream import RECONNECT_LIMIT_S, wait_for_daemon
from agentainerctl.progress import Region, bar
from agentainerctl.runstream import job_path
from agentainerctl.session import Session
from agentainerd.errors import AgentainerError, Conflict
from agentainerd.units import format_size

_PARTIAL = 206


def place(path: str, job_id: str, *, is_forced: bool = False) -> str:
    """Return the file that the ZIP goes to: `path`, or one with the name of the job in it where that is a folder, or "".

    Raises:
        Conflict: it is there, and not to be written over.
    """
    name = f"job-{job_id[:SHORT_ID]}.zip"
    file = os.path.join(path, name) if not path or path.endswith("/") or os.path.isdir(path) else path
    if os.path.lexists(file) and not is_forced:
        raise _is_there(file)
    return file


def download(session: Session, job_id: str, file: str, *, is_forced: bool = False) -> int:
    """Get the ZIP of a job; "-" is standard output. Return its size.

    A connection that breaks is made again, also across a restart of the daemon.

    Raises:
        AgentainerError: as `Client.fetch`, of a break only when the daemon was away for RECONNECT_LIMIT_S. Conflict: there is a
            file. OSError: of the file.
    """
    path = job_path(job_id, "download")
    if file == "-":
        return session.client.save(path, lambda piece, _: sys.stdout.buffer.write(piece))
    with session.client.fetch("GET", path) as answer:
        etag = _etag(answer)
        folder, name = os.path.split(file)
        os.makedirs(folder or ".", exist_ok=True)
        partial = os.path.join(folder, f".{name}.{hashlib.sha256(etag.encode()).hexdigest()[:16]}.part")
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "r+b") as out:
            _lock(out, file)
            if not etag:
                out.truncate()
            out.seek(0, os.SEEK_END)
            size = _fill(session, path, answer, out)
            out.flush()
            os.fsync(out.fileno())
    _name(partial, file, is_forced)
    return size


def _etag(answer: Fetched) -> str:
    """Return what names the ZIP byte for byte, "" where there is nothing that does."""
    etag = str(answer.headers.get("ETag") or "")
    return "" if etag.startswith("W/") else etag


def _lock(out: BinaryIO, file: str) -> None:
    try:
        fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Conflict(f"'{file}' is being downloaded already", code="FILE_BUSY") from error


def _fill(session: Session, path: str, answer: Fetched, out: BinaryIO) -> int:
    """Write what is missing at the end of `out`, and return how much there is. `answer`: with all of it."""
    client, etag = session.client, _etag(answer)
    region = Region(is_silent=not session.has_progress)
    deadline = 0.0  # until when the daemon may be away; 0.0 while something comes
    is_first = True
    try:
        while True:
            before = out.tell()
            try:
                if is_first and not before:
                    _take(answer, out, region)
                elif not before or before != answer.length:
                    headers = {"Range": f"bytes={before}-", "If-Range": etag} if before and etag else {}
                    with client.fetch("GET", path, headers=headers) as rest:
                        _take(rest, out, region)
                return out.tell()
            except AgentainerError as error:
                is_away = error.code == "CONNECTION_LOST" or (deadline and error.code == "DAEMON_UNREACHABLE")
                if not is_away or 0 < deadline < time.monotonic():
                    raise
            is_first = False
            if out.tell() > before or not deadline:
                deadline = time.monotonic() + RECONNECT_LIMIT_S
            wait_for_daemon(client)
    finally:
        region.clear()


def _take(answer: Fetched, out: BinaryIO, region: Region) -> None:
    if answer.status != _PARTIAL:  # all of it: from the beginning, or another ZIP than that whose beginning we have
        out.seek(0)
        out.truncate()
    done = out.tell()
    total = answer.length and answer.length + done
    for piece in answer:
        out.write(piece)
        done += len(piece)
        region.show([f"Downloading: {bar(done, total)} {format_size(done)}"])


def _name(partial: str, file: str, is_forced: bool) -> None:
    """Give what is whole its name; without `is_forced` never that of something that came there meanwhile."""
    if is_forced:
        os.replace(partial, file)
        return
    try:
        os.link(partial, file)
    except FileExistsError as error:
        raise _is_there(file) from error
    os.unlink(partial)


def _is_there(file: str) -> Conflict:
    return Conflict(f"there is a file '{file}' already", code="FILE_EXISTS", hint="--force writes over it")
