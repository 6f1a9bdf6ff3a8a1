"""result.json: what came of a job, in the shape of the containerized-agent document, beside the files that were made.

It is there from the job's first moment, `running`, and written anew, whole, at each action: whoever kills the container finds in
it what had been done. The next process of the same workspace ends what such a one says.
"""

import json
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentainer_runtime import paths, texts
from agentainer_runtime.built_in import about
from agentainer_runtime.jobs.analysis import PYTHON, Action
from agentainer_runtime.paths import PathRefused

NAME = "result.json"
RUNNING, COMPLETE, ERROR, CANCELLED = "running", "complete", "error", "cancelled"
AT_WORK = "It was at work when the job ended. Whether it had an effect is not known."
RESTARTED = "the container was restarted while the job was carried out"
MAX_FILES = 1000
_MAX_VISITED = 20_000
_RESERVE_BYTES = 256 * 1024  # of the note: so much room there is for the end of a job that filled the disk
_SHORT_CHARS = 500  # of each text of a result, where there is no room for more
_MAX_BYTES = 64 * 1024 * 1024


class Result:
    """The result of one job while it is carried out.

    Attributes:
        content: the object, as it is written next.
    """

    def __init__(self, workspace: Path, output: str, note: Path, content: dict[str, Any]) -> None:
        """`output`: the folder in the workspace. `note`: a file of the runtime's own that says that the job is at work."""
        self._workspace = workspace
        self._output = output
        self._note = note
        self.content = content

    def begin(self) -> None:
        """Write it for the first time.

        Raises:
            OSError, PathRefused: it can't be written.
        """
        self._note.write_text(json.dumps({"output": self._output}).ljust(_RESERVE_BYTES))
        self.save()

    def add(self, action: Action, entry: dict[str, Any]) -> dict[str, Any]:
        """Add the result of an action, which the caller fills as soon as it is known."""
        self.content["python_results" if action.kind == PYTHON else "shell_results"].append(entry)
        return entry

    def save(self) -> None:
        """Write it. It is replaced, so that a reader never sees a part.

        Raises:
            OSError, PathRefused: it can't be written.
        """
        _write(self._workspace, self._output, self.content)

    def end(self, status: str, error: str = "") -> None:
        """Write it for the last time; on a disk that is full, with less of what the actions printed.

        Raises:
            OSError, PathRefused: it can't be written.
        """
        try:
            _end(self._workspace, self._output, self.content, status, error)
        except OSError:
            self._note.unlink(missing_ok=True)  # which gives its room
            _shorten(self.content)
            _end(self._workspace, self._output, self.content, status, error)
        self._note.unlink(missing_ok=True)


def recover(workspace: Path, notes: Path) -> int:
    """End the results that another process left at work; return how many. Nothing of it is done again."""
    ended = 0
    for note in sorted(notes.glob("*.json")):
        with suppress(OSError, PathRefused, ValueError, KeyError, TypeError, RecursionError):
            output = json.loads(note.read_bytes())["output"]
            content = _read(workspace, output)
            if content["status"] == RUNNING:
                _end(workspace, output, content, ERROR, RESTARTED)
                ended += 1
        note.unlink(missing_ok=True)
    return ended


def _end(workspace: Path, output: str, content: dict[str, Any], status: str, error: str) -> None:
    for entry in (*content["shell_results"], *content["python_results"]):
        if entry["success"] is None:
            entry |= {"success": False, "return_code": None, "output": "", "error": AT_WORK}
    content |= {"status": status, "error": error or None, "finished_at": time.time()}
    content["files"] = files_of(workspace / output)
    _write(workspace, output, content)


def _shorten(content: dict[str, Any]) -> None:
    """Have it take less than the note did."""
    planned = [*content["analysis"]["actions"], *content.get("repair", {}).get("actions", ())]
    for entry in (*planned, *content["shell_results"], *content["python_results"]):
        entry |= {name: value[:_SHORT_CHARS] for name, value in entry.items() if isinstance(value, str)}
    content |= {"task": content["task"][: _SHORT_CHARS * 10], "note": "The disk was full: texts are cut."}


def _write(workspace: Path, output: str, content: dict[str, Any]) -> None:
    data = json.dumps(content, ensure_ascii=False, indent=2).encode("utf-8", "replace")
    with about(f"{output}/{NAME}"):
        paths.write(workspace, f"{output}/{NAME}", data + b"\n")


def _read(workspace: Path, output: str) -> dict[str, Any]:
    with paths.regular_file(workspace, f"{output}/{NAME}") as descriptor, open(descriptor, "rb", closefd=False) as file:
        content: dict[str, Any] = json.loads(file.read(_MAX_BYTES))
    return content


def files_of(folder: Path) -> list[dict[str, Any]]:
    """Return the regular files below a folder but result.json, by name, at most MAX_FILES; links are not followed."""
    found: list[dict[str, Any]] = []
    visited = 0
    for above, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            visited += 1
            path = os.path.join(above, name)
            shown = os.path.relpath(path, folder)
            if len(found) == MAX_FILES or visited > _MAX_VISITED:
                return found
            with suppress(OSError):
                entry = os.lstat(path)
                if stat.S_ISREG(entry.st_mode) and shown != NAME:
                    found.append({"path": texts.printable(shown), "bytes": entry.st_size})
    return found
