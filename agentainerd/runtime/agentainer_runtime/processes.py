"""Programs that tools start: each a session and process group of its own, with a deadline, nothing on stdin, and bounded output.

A call returns when the program it started has ended, whoever still holds its pipes, and whatever it left behind is killed then:
the rest of its group, and processes that left the group (`setsid`, a double fork). Those are known by a mark in their
environment; one that cleared that, too, becomes a child of this process when its parent ends, and is killed when no call is
in progress. The same happens at the deadline, when the call is cancelled, and when a program prints without end.
"""

import asyncio
import contextlib
import ctypes
import os
import secrets
import select
import signal
import time
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agentainer_runtime.outputs import SHOWN_BYTES, Output
from agentainer_runtime.turns import Turns

MARK = "AGENTAINER_TOOL_CALL"
MAX_PRINTED_BYTES = 100 * 1024 * 1024  # of each stream: what prints more is ended
GRACE_S = 2.0  # between SIGTERM and SIGKILL
LOOK_S = 30.0  # for processes that fork while they are looked for; the container's limit of processes ends that sooner
EOF_WAIT_S = 0.2  # for output that is still in the pipe when the program has ended
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended.

    `exit_code` is -N where signal N ended it. `ended` says why it was ended from here: "", "timeout" or "output".
    `left_behind` counts the processes it left running; they were killed.
    """

    exit_code: int
    stdout: Output
    stderr: Output
    ended: str
    left_behind: int
    duration_s: float


async def run(
    argv: Sequence[str],
    *,
    folder: Path,
    environment: Mapping[str, str],
    outputs: Path,
    until: float,
    label: str = "command",
    shown: int = SHOWN_BYTES,
    secret_files: Sequence[int] = (),
) -> Outcome:
    """Run a program in `folder` until it ends, at the latest until `until` (`time.monotonic()`).

    What it prints beyond `shown` bytes a stream is kept in `outputs`, in files whose names begin with `label`. A program that is
    given `secret_files`, which it inherits, is the only one that runs meanwhile.

    Raises:
        OSError: it could not be started: FileNotFoundError, PermissionError... TimeoutError: another one runs alone.
    """
    began = time.monotonic()
    mark = secrets.token_hex(8)
    stdout, stderr = (Output(outputs, f"{label}-{mark}.{name}.txt", shown) for name in ("stdout", "stderr"))
    _adopt_orphans()
    left: set[int] = set()
    try:
        async with _turns.turn(is_alone=bool(secret_files), until=until):
            starting = asyncio.get_running_loop().subprocess_exec(
                lambda: _Program((stdout, stderr)),
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                cwd=folder,
                env={**environment, MARK: mark},
                start_new_session=True,
                pass_fds=tuple(secret_files),
            )
            (transport, program), cancelled = await _uncancelled(starting)
            try:
                ended, left = await _attend(transport, program, until, mark, cancelled)
            finally:
                transport.close()
    finally:
        left |= _kill_orphans()
        stdout.close()
        stderr.close()
    code = transport.get_returncode()
    return Outcome(
        -signal.SIGKILL if code is None else code, stdout, stderr, ended, len(left), time.monotonic() - began
    )


T = TypeVar("T")


async def _uncancelled(work: Coroutine[Any, Any, T]) -> tuple[T, asyncio.CancelledError | None]:
    """Return what `work` gives, and the cancellation that came meanwhile: asyncio never ends one in the middle of a start."""
    task = asyncio.ensure_future(work)
    cancelled = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as exc:
            cancelled = exc
    return task.result(), cancelled


async def _attend(
    transport: asyncio.SubprocessTransport,
    program: "_Program",
    until: float,
    mark: str,
    cancelled: asyncio.CancelledError | None,
) -> tuple[str, set[int]]:
    """Wait for the program's end and its output, and kill what is left; return why it was ended and which were left."""
    pid = transport.get_pid()
    program.exited.add_done_callback(lambda _: _not_reaped.discard(pid))
    if not program.exited.done():
        _not_reaped.add(pid)
    left: set[int] = set()
    try:
        if cancelled:
            raise cancelled
        ended = await _until_it_ends(transport, program, until, mark)
        await asyncio.wait({program.drained}, timeout=EOF_WAIT_S)
        left = kill_all(pid, mark)
        await asyncio.wait({program.drained}, timeout=EOF_WAIT_S)
    finally:
        left |= kill_all(pid, mark)  # those that die by now are found once more
        await asyncio.wait({program.exited}, timeout=GRACE_S)  # then its children are ours, and can be waited for
    return ended, left


def kill_all(group: int, mark: str) -> set[int]:
    """Kill the process group and every process with the mark; return those that had the mark.

    All are stopped before the first is killed, so that none forks while the others are looked for; each as soon as it is found:
    those that fork without end leave whoever looks for them hardly any of the CPU.
    """
    stopped: set[int] = set()
    end = time.monotonic() + LOOK_S
    is_complete = False
    while not is_complete and time.monotonic() < end:
        is_complete = True
        for pid in marked(mark):
            if pid not in stopped:
                _send(pid, signal.SIGSTOP)
                stopped.add(pid)
                is_complete = False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)
    for pid in stopped:
        _send(pid, signal.SIGKILL)
    return stopped


def marked(mark: str) -> Iterator[int]:
    """Give the processes with this mark in their environment, each as it is seen. Those that have ended have none any more."""
    wanted = f"{MARK}={mark}".encode()
    for pid in _pids():
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        if wanted in environment.split(b"\0"):
            yield pid


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


_turns = Turns()
_not_reaped: set[int] = set()  # those that asyncio has yet to wait for: no orphans, though their call may be over


def _adopt_orphans() -> None:
    """Become the parent of what loses its own below this process. Where a kernel can't, the container's init does it."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_orphans() -> set[int]:
    """Kill and reap children that nobody here started; return those that ran. They have sessions of their own: all calls do."""
    ran: set[int] = set()
    end = time.monotonic() + GRACE_S
    while _turns.is_idle and time.monotonic() < end:
        orphans = _orphans()
        running = {pid for pid, state in orphans.items() if state != "Z"}
        for pid in orphans:
            _send(pid, signal.SIGKILL)
            _wait_for_end(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if running <= ran:
            break
        ran |= running  # its children are ours now: look again
    return ran


def _wait_for_end(pid: int) -> None:
    """Wait until it is a zombie, or gone: at once, unless the kernel holds it, and then not for long."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        select.select([descriptor], [], [], GRACE_S)
    finally:
        os.close(descriptor)


def _orphans() -> dict[int, str]:
    mine, session = os.getpid(), os.getsid(0)
    found = {}
    for pid in _pids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            state, parent, _, its_session, *_ = file.read().rpartition(b")")[2].split()
            if int(parent) == mine and int(its_session) != session and pid not in _not_reaped:
                found[pid] = state.decode()
    return found


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


class _Program(asyncio.SubprocessProtocol):
    """Tells that a program ended (without waiting for its pipes), that its pipes are drained, and that it prints too much."""

    def __init__(self, streams: tuple[Output, ...]) -> None:
        loop = asyncio.get_running_loop()
        self._streams = streams
        self._open = {1, 2}
        self.exited: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self.flooding: asyncio.Future[None] = loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        stream = self._streams[fd - 1]
        stream.add(data)
        if stream.size > MAX_PRINTED_BYTES:
            _settle(self.flooding)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open.discard(fd)
        if not self._open:
            _settle(self.drained)

    def process_exited(self) -> None:
        _settle(self.exited)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _until_it_ends(transport: asyncio.SubprocessTransport, program: _Program, until: float, mark: str) -> str:
    """Wait for its end, or end it: SIGTERM to the group, then SIGKILL. Return why it was ended, or ""."""
    limit = max(0.0, until - time.monotonic())
    await asyncio.wait({program.exited, program.flooding}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    if program.exited.done():
        return ""
    reason = "output" if program.flooding.done() else "timeout"
    if reason == "timeout":
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(transport.get_pid(), signal.SIGTERM)
        await asyncio.wait({program.exited}, timeout=GRACE_S)
    kill_all(transport.get_pid(), mark)
    await asyncio.wait({program.exited}, timeout=GRACE_S)
    return reason
