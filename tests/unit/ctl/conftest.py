"""Fixtures of the command-line tool: the real program as a process, and a control API for it to talk to."""

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from gevent.socket import wait_read

from agentainerctl import cli
from tests.unit.ctl.fake_api import FakeApi

KEPT = ("PATH", "HOME", "PYTHONDONTWRITEBYTECODE", "COVERAGE_PROCESS_START", "LANG")


class Ran(NamedTuple):
    """How a process ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def api(tmp_path: Path) -> Iterator[FakeApi]:
    server = FakeApi(str(tmp_path / "agentainer.sock"))
    yield server
    server.close()


@pytest.fixture
def tcp_api() -> Iterator[FakeApi]:
    server = FakeApi(("127.0.0.1", 0))
    yield server
    server.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`start(*arguments, env=..., **popen)`: the program as a process, ended with the test."""
    processes: list[subprocess.Popen[bytes]] = []

    def begin(
        *arguments: str,
        env: dict[str, str] | None = None,
        program: tuple[str, ...] = ("-m", "agentainerctl"),
        **settings: object,
    ) -> subprocess.Popen[bytes]:
        environment = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment |= {
            "AGENTAINER_HOST": f"unix://{tmp_path}/agentainer.sock",
            "PYTHONPATH": os.getcwd(),
            **(env or {}),
        }
        given = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "cwd": tmp_path,
            **settings,
        }
        command = [sys.executable, *program, *arguments]
        processes.append(subprocess.Popen(command, env={k: v for k, v in environment.items() if v}, **given))  # type: ignore[call-overload]
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.fixture
def run(start: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Ran]:
    """`run("list", env={...})`: run the program to its end and return its exit code, stdout and stderr."""

    def whole(*arguments: str, input: bytes | None = None, **settings: object) -> Ran:  # noqa: A002
        stdin = {"stdin": subprocess.PIPE} if input is not None else {}
        process = start(*arguments, **stdin, **settings)
        out, err = process.communicate(input, timeout=30)
        return Ran(process.returncode, (out or b"").decode(), (err or b"").decode())

    return whole


@pytest.fixture
def run_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> Callable[..., Ran]:
    """Like `run`, without a process: for what has nothing to do with signals, terminals and the start of the program, in a
    tenth of the time.
    """

    def whole(*arguments: str, env: dict[str, str] | None = None, input: bytes = b"", cwd: Path = tmp_path) -> Ran:  # noqa: A002
        with monkeypatch.context() as changed:
            for name, value in {"AGENTAINER_HOST": f"unix://{tmp_path}/agentainer.sock", **(env or {})}.items():
                changed.setenv(name, value)
            changed.setattr(sys, "argv", ["agentainerctl", *arguments])
            changed.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(input)))
            changed.chdir(cwd)
            capsysbinary.readouterr()
            code = cli.main()
        out, err = capsysbinary.readouterr()
        return Ran(code, out.decode(), err.decode())

    return whole


@pytest.fixture
def run_on_terminal(start: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Ran]:
    """Like `run`, on a terminal: stdin, stdout and stderr are one. `typed` is what the person answers to `[y/N]`; `answers` are
    pairs of what the person waits for and what they type then, in their order. A Ctrl-C that nothing comes of is typed again: one
    that comes after a question was printed and before it is waited for is seen at the next key.
    """

    def whole(
        *arguments: str,
        typed: bytes = b"",
        answers: Sequence[tuple[bytes, bytes]] = (),
        columns: int = 80,
        env: dict[str, str] | None = None,
    ) -> Ran:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        terminal = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        try:
            process = start(*arguments, env={"TERM": "xterm", **(env or {})}, preexec_fn=_take_terminal, **terminal)
            os.close(theirs)
            seen, looked_at = b"", 0
            waiting = [*([(b"[y/N]", typed)] if typed else []), *answers]
            keys = b""
            while data := _read_terminal(ours, again=keys if keys == b"\x03" else b""):
                seen += data
                while waiting and waiting[0][0] in seen[looked_at:]:
                    expected, keys = waiting.pop(0)
                    looked_at = seen.index(expected, looked_at) + len(expected)
                    os.write(ours, keys)
            process.wait(timeout=30)
        finally:
            os.close(ours)
        return Ran(process.returncode, seen.decode().replace("\r\n", "\n"), "")

    return whole


def _take_terminal() -> None:
    """Make stdin the controlling terminal of a new session, so that Ctrl-C is a signal."""
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _read_terminal(ours: int, again: bytes = b"") -> bytes:
    """Return what was written, b"" when the last process has closed it. os.read would stop every greenlet, the API too.

    Types `again` where nothing was written for two seconds.
    """
    while True:
        try:
            wait_read(ours, timeout=2 if again else None)
            break
        except TimeoutError:
            os.write(ours, again)
    try:
        return os.read(ours, 65536)
    except OSError:
        return b""
