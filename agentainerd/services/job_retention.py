"""How long jobs are kept: each as long as it says, all of them within a size; nothing is left of one that is forgotten."""

import logging
from collections.abc import Callable, Collection
from contextlib import suppress

from agentainerd import offload
from agentainerd.archives.archives import Archives
from agentainerd.errors import Conflict
from agentainerd.model.jobs import JobView
from agentainerd.model.runs import Run
from agentainerd.services.job_folders import JobFolders
from agentainerd.services.run_means import Means
from agentainerd.store.jobs import JobStore
from agentainerd.store.runs import RunStore

log = logging.getLogger(__name__)


class JobRetention:
    """Every method blocks its greenlet only."""

    def __init__(self, store: JobStore, means: Means, folders: JobFolders, archives: Archives) -> None:
        self._store = store
        self._means = means
        self._folders = folders
        self._archives = archives
        self._sizes: dict[str, int] = {}
        self._stuck: set[str] = set()  # told once

    def expire(self, now: float, max_bytes: int, active: Collection[str]) -> int:
        """Forget what is kept long enough and is told; of the rest, from the oldest, as much as is too large (0: no bound).

        Never one of `active`, or one that is being downloaded. Returns how many.

        Raises:
            Unavailable.
        """
        ended = [job_id for job_id, _ in self._store.ended() if job_id not in active]
        jobs = {job.id: job for job in self._store.some(ended)}
        runs = {run.id: run for run in self._means.store.some(ended)}
        sizes = self._measured(ended)
        total = sum(sizes.values())
        swept = 0
        for job_id in ended:
            run, job = runs.get(job_id), jobs.get(job_id)
            if run is None or self._archives.is_busy(job_id):
                continue
            is_old = job is None or (run.finished_at + job.retention_s <= now and not JobView(job, run).is_owed)
            if is_old or 0 < max_bytes < total:
                with suppress(Conflict):  # a download that began just now
                    self.forget(run)
                    total -= sizes[job_id]
                    swept += 1
        return swept

    def sweep(self, is_wanted: Callable[[str], bool]) -> int:
        """Remove folders and ZIPs that are of no job that is kept, or else wanted; return how many. Raises Unavailable."""
        there = offload.run(self._folders.ids)  # first: whoever makes one is wanted before that
        kept = {job_id for job_id, _ in self._store.ids()}
        lost = [job_id for job_id in there if job_id not in kept and not is_wanted(job_id)]
        for job_id in lost:
            offload.run(self._remove, job_id)
        for job_id in self._archives.sizes():
            if job_id not in kept:  # a daemon ended in the middle of a removal
                self._archives.discard(job_id)
        return len(lost)

    def forget(self, run: Run) -> None:
        """Forget a job that is over, with its files. Raises Conflict: one is being downloaded (FILES_IN_USE). Unavailable."""
        with self._archives.alone(run.id):
            self._means.writer.commit([*RunStore.remove(run), *JobStore.remove(run.id)])
            self._sizes.pop(run.id, None)
            self._archives.discard(run.id)
            offload.run(self._remove, run.id)

    def _measured(self, ended: Collection[str]) -> dict[str, int]:
        for job_id in ended:
            if job_id not in self._sizes:
                self._sizes[job_id] = offload.run(self._folders.measure, job_id)
        packed = self._archives.sizes()
        return {job_id: self._sizes[job_id] + packed.get(job_id, 0) for job_id in ended}

    def _remove(self, job_id: str) -> None:
        try:
            self._folders.remove(job_id)
        except OSError as exc:
            if job_id not in self._stuck:
                log.warning("the folder of a job could not be removed: %s", exc, extra={"job_id": job_id})
            self._stuck.add(job_id)
