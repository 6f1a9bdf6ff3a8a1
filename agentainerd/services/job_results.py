"""What jobs leave: what their programs wrote, and the files of their output folders, one by one and as a ZIP."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from agentainerd import offload
from agentainerd.archives.archives import Archives, ZipDownload
from agentainerd.archives.files import FileDownload
from agentainerd.archives.listings import Entry, Omissions
from agentainerd.engine.engine import Engine
from agentainerd.errors import Conflict, NotFound
from agentainerd.model.containers import LogPiece
from agentainerd.model.jobs import Job, JobView
from agentainerd.services.job_sandboxes import STREAMS, Sandboxes

READ_BYTES = 64 * 1024
LOOK_S = 0.25  # so often a reader that waits looks whether there is more


@dataclass(frozen=True, slots=True)
class ArtifactPage:
    """Some of what is in an output folder, in a fixed order. `digests`: SHA-256 of files by name, where they were asked for.

    `following`: the number of the first entry of the next page, or None.
    """

    entries: tuple[Entry, ...]
    omissions: Omissions
    digests: dict[str, str]
    following: int | None


class JobResults:
    """Every method blocks its greenlet only. `wait` returns a job when it is over, but after so many seconds at the latest."""

    def __init__(
        self, archives: Archives, sandboxes: Sandboxes, engine: Engine, wait: Callable[[str, float], JobView]
    ) -> None:
        self.archives = archives
        self._folders = sandboxes.folders
        self._sandboxes = sandboxes
        self._engine = engine
        self._wait = wait

    def logs(self, view: JobView, stream: str, *, follow: bool) -> Generator[LogPiece]:
        """Return what a job's programs wrote by now, attempt after attempt; with `follow` also what comes, until the job is over.

        `stream`: "stdout", "stderr", or "" for both.
        """
        names = (stream,) if stream else STREAMS
        attempt = 1
        while True:
            kept = [path for name in names if (path := self._folders.log(view.job.id, name, attempt)).exists()]
            if kept or view.run.status.is_final or view.run.attempt > attempt:
                for path in kept:
                    yield from _read(path)
            elif not (yield from self._live(view.job, names, follow=follow)) and follow:
                view = self._wait(view.job.id, LOOK_S)  # its container is not there yet
                continue
            while follow and not view.run.status.is_final and view.run.attempt <= attempt:
                view = self._wait(view.job.id, LOOK_S)
            if view.run.attempt <= attempt:
                return
            attempt += 1

    def listing(self, view: JobView, start: int, limit: int, *, digests: bool) -> ArtifactPage:
        """Return what is in the output folder by now, `limit` entries from number `start`. Raises NotFound."""
        output = self._output(view)
        found = self.archives.listing(output)
        entries = found.entries[start : start + limit]
        following = start + limit if start + limit < len(found.entries) else None
        known = self.archives.digests(output, entries) if digests else {}
        return ArtifactPage(entries, found.omissions, known, following)

    def file(self, view: JobView, name: str) -> FileDownload:
        """Return one file of the output folder, by the name that the listing has. Raises NotFound, Conflict, Failed."""
        return self.archives.file(view.job.id, self._output(view), name)

    def zip(self, view: JobView) -> ZipDownload:
        """Return the output folder of a job that is over. Raises Conflict: it is not (JOB_ACTIVE). Failed. Unavailable."""
        if not view.run.status.is_final:
            raise active(view)
        return self.archives.zip(view.job.id, self._output(view))

    def _live(self, job: Job, names: tuple[str, ...], *, follow: bool) -> Generator[LogPiece, None, bool]:
        """Read what a container wrote, with `follow` until it ends; the value is whether there is one that runs, or ran."""
        try:
            container = self._sandboxes.container(job)
        except NotFound:
            return False
        if not container.started_at:
            return False
        pieces = self._engine.logs(container.id, follow=follow)
        try:
            for piece in pieces:
                if piece.stream in names:
                    yield piece
        finally:
            pieces.close()
        return True

    def _output(self, view: JobView) -> Path:
        """Return the folder that is packed; one that never ran has an empty one."""
        output = self._folders.output(view.job.id)
        if view.run.attempt == 0:
            offload.run(output.mkdir, 0o700, True, True)
        return output


def active(view: JobView) -> Conflict:
    """Return why something can't be done with a job that is not over."""
    hint = f"wait for it, or: agentainerctl jobs cancel {view.job.id[:8]}"
    return Conflict(f"job {view.job.id} is {view.run.status.value}", code="JOB_ACTIVE", hint=hint)


def _read(path: Path) -> Generator[LogPiece]:
    stream = path.name.partition(".")[0]
    try:
        with path.open("rb") as file:
            while data := file.read(READ_BYTES):
                yield LogPiece(stream, data)
    except FileNotFoundError:
        return  # it was removed meanwhile
