"""The programs of a desktop: started in order, started again when they end, and ended with the container."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

log = logging.getLogger(__name__)
DISPLAY = ":1"
GUI_TOKEN, JUPYTER_TOKEN = "AGENT_PORT_GUI_TOKEN", "AGENT_PORT_JUPYTER_TOKEN"  # noqa: S105 - names of variables
JUPYTER_PORT = 8888
_FOLDER = Path("/tmp/.desktop")  # noqa: S108 - the container's own, where alone it may write
SCREEN_SOCKET = _FOLDER / "screen"
_X_FOLDER = Path("/tmp/.X11-unix")  # noqa: S108 - where X clients look
_POLL_S = 0.05
_STOP_S = 3.0
_PAUSE_S, _LONGEST_PAUSE_S, _WELL_S = 0.5, 30.0, 10.0
_JUPYTER = "/opt/jupyter/bin/jupyter-lab"


@dataclass(frozen=True)
class Program:
    """One of them. `needs`: what has to be there before it can start; `environment`: beside that of all."""

    name: str
    command: tuple[str, ...]
    needs: Path | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


def programs(screen: str, workspace: Path, environment: Mapping[str, str]) -> tuple[Program, ...]:
    """Return the programs of a desktop with a screen of WIDTHxHEIGHT. Without its token nobody gets into the notebooks."""
    display = _X_FOLDER / f"X{DISPLAY[1:]}"
    token = environment.get(JUPYTER_TOKEN) or secrets.token_urlsafe(32)
    return (
        Program("Xvfb", ("Xvfb", DISPLAY, "-screen", "0", f"{screen}x24", "-nolisten", "tcp", "-noreset")),
        Program("openbox", ("openbox", "--startup", "xsetroot -solid '#2b3a4a'"), display),
        Program(
            "x11vnc",
            ("x11vnc", "-display", DISPLAY, "-unixsock", str(SCREEN_SOCKET), "-rfbport", "0", "-forever", "-shared", "-nopw",
             "-quiet", "-nolookup", "-noipv6", "-no6"),
            display,
        ),
        Program(
            "jupyter",
            (_JUPYTER, "--no-browser", "--ip=0.0.0.0", f"--port={JUPYTER_PORT}", "--ServerApp.port_retries=0",
             f"--ServerApp.root_dir={workspace}", "--ServerApp.allow_remote_access=True", "--log-level=ERROR",
             "--LabApp.extension_manager=readonly",
             "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"),
            display,
            {"JUPYTER_TOKEN": token},
        ),
    )  # fmt: skip


class Desktop:
    """The programs of one container. `environment`: what programs that tools start have, without any key."""

    def __init__(self, given: tuple[Program, ...], environment: Mapping[str, str]) -> None:
        self._programs = given
        self._environment = {**environment, "DISPLAY": DISPLAY}

    async def run(self) -> None:
        """Keep them running until this is cancelled; then they are ended."""
        try:
            _FOLDER.mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                _X_FOLDER.mkdir()
                _X_FOLDER.chmod(0o1777)  # the server makes it only as root
        except OSError as error:
            log.error("there is no desktop: %s", error)
            return
        async with asyncio.TaskGroup() as group:
            for program in self._programs:
                group.create_task(self._keep(program))

    async def _keep(self, program: Program) -> None:
        pause_s = _PAUSE_S
        while True:
            while program.needs is not None and not program.needs.exists():
                await asyncio.sleep(_POLL_S)
            began = asyncio.get_running_loop().time()
            code = await self._run(program)
            if asyncio.get_running_loop().time() - began >= _WELL_S:
                pause_s = _PAUSE_S
            log.warning(
                "%s of the desktop ended with %s, see %s; it is started again in %.1f s",
                program.name, code, _log_of(program), pause_s,
            )  # fmt: skip
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _run(self, program: Program) -> object:
        """Run it until it ends, and return its exit code, or why it could not be started.

        What it says is in a file, anew each time: the container's own output is what its agent or job says.
        """
        try:
            with _log_of(program).open("wb") as said:
                process = await asyncio.create_subprocess_exec(
                    *program.command,
                    env={**self._environment, **program.environment},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                )
        except OSError as error:
            return error
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)


def _log_of(program: Program) -> Path:
    return _FOLDER / f"{program.name}.log"


async def _end(process: asyncio.subprocess.Process) -> None:
    """End it with all that it started: politely, and soon."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_S)
            return
