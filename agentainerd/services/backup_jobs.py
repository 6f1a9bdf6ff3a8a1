"""Long work on backups as its caller sees it: progress, then the result or the error."""

import logging
from collections.abc import Callable, Iterator

from gevent.event import Event
from gevent.lock import BoundedSemaphore

from agentainerd.errors import AgentainerError, Failed, TooManyRequests
from agentainerd.services.backup_progress import Cancelled, Watch
from agentainerd.services.views import Json

log = logging.getLogger(__name__)

MAX_JOBS = 2  # at once: each keeps a core and the disk busy
PROGRESS_S = 0.25


class BackupJob:
    """Work that goes on in a greenlet of its own: iterate once; the last item has the result. Whoever got it closes it.

    Items are {"progress": {step, entries, bytes, total}} and at last {"result": ...}. Closing it before its end cancels it.
    """

    def __init__(self, watch: Watch, work: Callable[[], Json], slots: BoundedSemaphore) -> None:
        self._watch = watch
        self._work = work
        self._slots = slots
        self._done = Event()
        self._result: Json | None = None
        self._error: AgentainerError | None = None

    def run(self) -> None:
        """Do the work; for the greenlet that was spawned for it."""
        try:
            self._result = self._work()
        except Cancelled:
            self._error = Failed("it was cancelled; nothing is left of it", code="CANCELLED")
        except AgentainerError as error:
            self._error = error
        finally:
            self._watch.cancelled = True  # a thread that outlives its greenlet stops too
            self._slots.release()
            self._done.set()

    def __iter__(self) -> Iterator[Json]:
        """Tell how far it is, four times a second, then the result. Raises what the work raised."""
        watch = self._watch
        while not self._done.wait(PROGRESS_S):
            yield {
                "progress": {"step": watch.step, "entries": watch.entries, "bytes": watch.bytes, "total": watch.total}
            }
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise AgentainerError("the work on the backup broke off", hint="the daemon's log says why")
        yield {"result": self._result}

    def close(self) -> None:
        """Cancel it, if it is not over."""
        self._watch.cancelled = True


class BackupJobs:
    """Starts jobs, MAX_JOBS at once."""

    def __init__(self, spawn: Callable[..., object]) -> None:
        self._spawn = spawn
        self._slots = BoundedSemaphore(MAX_JOBS)

    def start(self, name: str, work: Callable[[Watch], Json]) -> BackupJob:
        """Start `work`.

        Raises:
            TooManyRequests: MAX_JOBS are running.
        """
        if not self._slots.acquire(blocking=False):
            raise TooManyRequests(
                f"{MAX_JOBS} backups or restores are running already", code="BACKUP_JOBS_BUSY", retry_after_s=10
            )
        watch = Watch()
        job = BackupJob(watch, lambda: work(watch), self._slots)
        self._spawn(name, job.run)
        return job
