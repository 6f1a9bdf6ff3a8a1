"""Carrying out one action of a job: a command line or a Python program, in a process group of its own, with a deadline.

Whatever comes of it is a result in the shape of the document: `success`, `return_code`, `output`, `error` and what was run. A
result shows the beginning and the end of a long output; all of it, up to a bound, is kept in a file beside the job's others.
"""

import os
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentainer_runtime import file_policy, paths, processes
from agentainer_runtime.built_in import ToolFailed, describe, in_thread
from agentainer_runtime.jobs.analysis import PYTHON, Action
from agentainer_runtime.outputs import Output
from agentainer_runtime.paths import PathRefused
from agentainer_runtime.policy import MODE, Mode, Policy
from agentainer_runtime.tools.run_python import NOT_LISTED

KEPT_FOLDER = "action-output"
"""In the output folder: what of an action's output its result leaves out."""


@dataclass(frozen=True)
class Workshop:
    """Where actions are carried out.

    Attributes:
        workspace: everything that they may name. output: the folder in it where they begin, relative. programs: a folder for the
            programs while they run. environment: all of theirs; no keys are in it. timeout_s: the longest time of one.
    """

    workspace: Path
    output: str
    programs: Path
    environment: Mapping[str, str]
    policy: Policy
    timeout_s: float

    @property
    def folder(self) -> Path:
        """The output folder."""
        return self.workspace / self.output

    async def carry_out(self, action: Action, number: int) -> dict[str, Any]:
        """Do an action, the `number`th of its job, and return its result."""
        began = time.monotonic()
        result = {**blank(action), "success": False, "return_code": None, "output": "", "error": ""}
        kept = self.folder / KEPT_FOLDER
        try:
            kept.mkdir(parents=True, exist_ok=True)
            doing = self._program if action.kind == PYTHON else self._command
            result |= await doing(action, f"{number:02d}-{action.kind}")
        except (ToolFailed, PathRefused) as exc:
            result["error"] = str(exc)
        except OSError as exc:
            result["error"] = describe(exc)
        with suppress(OSError):
            kept.rmdir()  # where nothing was kept
        return result | {"duration_s": round(time.monotonic() - began, 3)}

    async def _command(self, action: Action, label: str) -> dict[str, Any]:
        place = self._within(action.place or ".")
        decision = self.policy.judge(action.body, self.workspace, place)
        if decision.reason:
            raise ToolFailed(decision.reason)
        folder = self.workspace / place
        folder.mkdir(parents=True, exist_ok=True)
        result, _ = await self._run(decision.argv, folder, label)
        return result | {"working_dir": str(folder)}

    async def _program(self, action: Action, label: str) -> dict[str, Any]:
        if self.policy.mode is not Mode.OFF and "python3" not in self.policy.allowed:
            raise ToolFailed(NOT_LISTED)
        place = self._within(action.place) if action.place else ""
        before = _state(self.workspace / place) if place else None
        program = self.programs / f"{label}-{secrets.token_hex(8)}.py"
        settled = {"PYTHONPATH": str(self.folder), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"}
        try:
            await in_thread(program.write_bytes, action.body.encode())
            result, printed = await self._run(("python3", str(program)), self.folder, label, settled)
        finally:
            program.unlink(missing_ok=True)
        if place and printed.size and before == _state(self.workspace / place):
            await in_thread(paths.write, self.workspace, place, _all_of(printed))
        return result

    async def _run(
        self, argv: tuple[str, ...], folder: Path, label: str, more: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], Output]:
        outcome = await processes.run(
            argv,
            folder=folder,
            environment={**self.environment, **(more or {})},
            outputs=self.folder / KEPT_FOLDER,
            until=time.monotonic() + self.timeout_s,
            label=label,
        )
        result: dict[str, Any] = {
            "success": outcome.exit_code == 0 and not outcome.ended,
            "return_code": outcome.exit_code,
            "output": outcome.stdout.text,
            "error": outcome.stderr.text,
        }
        for name, output in (("full_output", outcome.stdout), ("full_error", outcome.stderr)):
            if not output.is_all_shown and output.path.exists():
                result[name] = str(output.path.relative_to(self.folder))
        if outcome.ended == "timeout":
            result["ended"] = f"it was not done after {self.timeout_s:g} s"
        if outcome.ended == "output":
            result["ended"] = f"it printed more than {processes.MAX_PRINTED_BYTES} bytes"
        return result, outcome.stdout

    def _within(self, path: str) -> str:
        """Return where it is in the workspace; what is not absolute begins in the output folder.

        Raises:
            PathRefused: it is outside, or the runtime's own.
        """
        return file_policy.check(self.workspace, path if path.startswith("/") else f"{self.output}/{path}", writes=True)


def blank(action: Action) -> dict[str, Any]:
    """Return what is known of a result before there is one."""
    told = action.public()
    del told["type"]
    return {**told, "success": None}


def policy_of(environment: Mapping[str, str]) -> Policy:
    """Return the command policy of jobs: none where none is set, for the container, made for one job, is the boundary."""
    return Policy.from_environment({**environment, MODE: environment.get(MODE) or Mode.OFF})


def _state(path: Path) -> tuple[int, int, int] | None:
    """What tells whether a file was written."""
    with suppress(OSError):
        found = os.stat(path)
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None


def _all_of(output: Output) -> bytes:
    """Return what was printed, as far as it was kept."""
    with suppress(OSError):
        if not output.is_all_shown:
            return output.path.read_bytes()
    return output.beginning
