"""The folders of jobs on the host: made, filled, measured, removed. What a container leaves in one is hostile: no link of it is
followed, and no pipe or device opened.

    <root>/<id>/input/       as it was sent, closed to all containers
    <root>/<id>/workspace/   mounted at /workspace, for everybody in the container; above it everything is root's alone
    <root>/<id>/stdout.1.log, stderr.1.log (by attempt)

All functions block on the disk, and are for `offload.run`.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from agentainerd.errors import Unavailable
from agentainerd.model.jobs import OUTPUT, PROMPT_FILE, WORKSPACE, JobFile
from agentainerd.model.runs import is_run_id

INPUT = "input"
MOUNTED = "workspace"
OPEN_FOLDER, OPEN_FILE = 0o777, 0o666  # the container's user may be anyone; the folder above lets nobody in
MAX_MEASURED = 200_000  # entries: a folder with more is as large as they are
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class JobFolders:
    """Those below `root`."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)

    def open(self) -> None:
        """Make the root where it is missing.

        Raises:
            Unavailable: it can't be made, or is another's (code JOBS_FOLDER_UNUSABLE).
        """
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = os.lstat(self.root)
        except OSError as exc:
            raise _unusable(self.root, exc.strerror or str(exc)) from exc
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise _unusable(self.root, "it is not a folder of this user")
        if found.st_uid == os.geteuid():
            os.chmod(self.root, 0o700)

    def folder(self, job_id: str) -> Path:
        """Return a job's folder, which may not be there."""
        return self.root / job_id

    def workspace(self, job_id: str) -> Path:
        """Return the folder that its container has at /workspace."""
        return self.root / job_id / MOUNTED

    def output(self, job_id: str) -> Path:
        """Return the folder that is packed."""
        return self.workspace(job_id) / OUTPUT

    def log(self, job_id: str, stream: str, attempt: int) -> Path:
        """Return the file of the standard output or error ("stdout", "stderr") of an attempt, from 1."""
        return self.root / job_id / f"{stream}.{attempt}.log"

    def keep(self, job_id: str, files: Sequence[JobFile]) -> None:
        """Put what was sent with a job on the disk, for good. Raises OSError, after which nothing of it is there."""
        folder = self.folder(job_id)
        try:
            made = {folder, self.root, folder / INPUT}
            (folder / INPUT).mkdir(mode=0o700, parents=True)
            for file in files:
                path = folder / INPUT / file.name
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                made |= {parent for parent in path.parents if folder in parent.parents}
                with os.fdopen(os.open(path, _NEW, 0o600), "wb") as target:
                    target.write(file.content)
                    target.flush()
                    os.fsync(target.fileno())
            for each in made:
                _sync(each)
        except OSError:
            self.remove(job_id)
            raise

    def prepare(self, job_id: str, prompt: str) -> Path:
        """Make a fresh workspace: what was sent, the prompt as a file, an empty output. Raises OSError."""
        workspace = self.workspace(job_id)
        _remove(workspace)
        workspace.mkdir(mode=0o700, parents=True)
        self._fill(job_id, prompt)
        return workspace

    def adopt(self, warm_id: str, job_id: str, prompt: str) -> None:
        """Make the workspace of one that had no job, where nothing ran yet, the workspace of a job. Raises OSError.

        A container that has it keeps it: a mount is of the folder, not of its name.
        """
        folder, workspace = self.folder(job_id), self.workspace(job_id)
        _remove(workspace)
        folder.mkdir(mode=0o700, exist_ok=True)
        self.workspace(warm_id).rename(workspace)
        _remove(self.folder(warm_id))
        self._fill(job_id, prompt)

    def _fill(self, job_id: str, prompt: str) -> None:
        """Put what was sent and the prompt into a workspace, open to the container's user."""
        source, workspace = self.folder(job_id) / INPUT, self.workspace(job_id)
        for folder, folders, names in os.walk(source):
            inside = workspace / os.path.relpath(folder, source)
            for name in folders:
                _open_folder(inside / name)
            for name in names:
                _open_file(inside / name, Path(folder, name).read_bytes())
        place = workspace / PROMPT_FILE.removeprefix(f"{WORKSPACE}/")
        for each in (workspace, place.parent, workspace / OUTPUT):
            _open_folder(each)
        _open_file(place, prompt.encode("utf-8", "surrogatepass"))

    def remove(self, job_id: str) -> None:
        """Remove a job's folder with all that is in it; not there: nothing to do. Raises OSError."""
        _remove(self.folder(job_id))

    def measure(self, job_id: str, limit: int | None = None) -> int:
        """Return the bytes that a job's folder takes on the disk; counting ends where it is more than `limit`."""
        total = 0
        for place, taken in enumerate(_sizes(self.folder(job_id))):
            total += taken
            if (limit is not None and total > limit) or place > MAX_MEASURED:
                break
        return total

    def ids(self) -> list[str]:
        """Return the names of the folders that are of jobs; whatever else lies there is not ours."""
        with contextlib.suppress(FileNotFoundError):
            return [entry.name for entry in os.scandir(self.root) if is_run_id(entry.name)]
        return []


def _open_folder(path: Path) -> None:
    path.mkdir(exist_ok=True)
    os.chmod(path, OPEN_FOLDER)


def _open_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    os.chmod(path, OPEN_FILE)


def _sizes(folder: Path) -> Iterator[int]:
    """What each entry takes: the blocks of a sparse file, not its length. Entries may go while they are looked at."""
    waiting = [str(folder)]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            yield found.st_blocks * 512
            if stat.S_ISDIR(found.st_mode):
                waiting.append(entry.path)


def _remove(folder: Path) -> None:
    """Remove a tree; the standard library's follows no link, also where one takes a folder's place meanwhile."""
    assert shutil.rmtree.avoids_symlink_attacks
    for is_last in (False, False, True):  # a program that still runs may put something in
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            if not os.path.lexists(folder):
                return
        except OSError:
            if is_last:
                raise
        else:
            return


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unusable(root: Path, why: str) -> Unavailable:
    return Unavailable(
        f"the folder of jobs {root} can't be used: {why}",
        code="JOBS_FOLDER_UNUSABLE",
        hint="set jobs.output_dir to a folder that only this user can write in",
    )
