"""Jobs: accepted, queued, watched, cancelled, kept for a while; what a daemon before this one left goes on."""

import errno
import logging
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import PurePosixPath

import msgspec

from agentainerd import clock, defaults, offload
from agentainerd.archives.archives import Archives, ZipDownload
from agentainerd.archives.files import FileDownload
from agentainerd.config import JobsConfig
from agentainerd.engine.engine import Engine
from agentainerd.errors import (
    AgentainerError,
    Conflict,
    Failed,
    InvalidParameter,
    NotFound,
    TooManyRequests,
    Unavailable,
)
from agentainerd.model.containers import LogPiece
from agentainerd.model.jobs import KIND, Delivery, Job, JobFilter, JobLimits, JobRequest, JobView
from agentainerd.model.runs import CancelMode, Run, RunCode, RunStatus, is_run_id, new_run_id
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.job_executions import JobExecution
from agentainerd.services.job_pool import JobPool
from agentainerd.services.job_queue import JobQueue
from agentainerd.services.job_results import ArtifactPage, JobResults, active
from agentainerd.services.job_retention import JobRetention
from agentainerd.services.job_sandboxes import Sandboxes
from agentainerd.services.run_logs import RunLog
from agentainerd.services.run_means import Means
from agentainerd.services.runs import Identity, RunService
from agentainerd.store.jobs import JobStore
from agentainerd.store.runs import RunStore

log = logging.getLogger(__name__)

DAY_S = 86400.0
IMAGE_KNOWN_S = 5.0
MIN_PREFIX_CHARS = 4
MIN_COUNT_S = 2.0  # between two counts of what a job has on the disk,
COUNT_PAUSE = 20  # and so many times as long as one took
VIEWS_AT_ONCE = 500


class JobService:
    """Every method may be called from any greenlet. `load` comes before all others, once.

    Attributes:
        config: as it is now; it may be replaced at any time (SIGHUP).
        on_ended: called when a job is over; must not block.
        expand: returns a request with all that its template says. Raises InvalidParameter, NotFound, Conflict.
    """

    def __init__(
        self,
        runs: RunService,
        means: Means,
        store: JobStore,
        sandboxes: Sandboxes,
        engine: Engine,
        *,
        archives: Archives,
        audit: AuditService,
        config: JobsConfig,
    ) -> None:
        self.config = config
        self.on_ended: Callable[[JobView], object] = lambda view: None
        self.expand: Callable[[JobRequest], JobRequest] = lambda request: request
        self.folders = sandboxes.folders
        self._runs = runs
        self._means = means
        self._store = store
        self._sandboxes = sandboxes
        self._engine = engine
        self._results = JobResults(archives, sandboxes, engine, self._waited)
        self._retention = JobRetention(store, means, sandboxes.folders, archives)
        self._audit = audit
        self._active: dict[str, JobExecution] = {}
        self._queue = JobQueue(self._max_running, clock.now)
        self._pool = JobPool(sandboxes, means.spawn, self._warm)
        self._sequence = 0
        self._arriving: set[str] = set()
        self._images: dict[str, float] = {}
        self._swept_at = 0.0
        self._counted: dict[str, float] = {}  # when the folder of a job that runs is to be counted again

    # ---- for clients

    def submit(self, request: JobRequest, actor: Actor, *, key: str = "") -> JobView:
        """Accept a job; it is on disk when this returns, and goes on by itself. The same `key` with the same request returns the
        job that it stands for.

        Raises:
            InvalidParameter. NotFound: the image, the template. Conflict: the template is broken (TEMPLATE_BROKEN),
            or the key stands for another request (IDEMPOTENCY_MISMATCH).
            TooManyRequests: MAX_QUEUED_JOBS wait. Failed: its files could not be kept (JOB_FOLDER_FAILED). Unavailable.
        """
        with self._audit.mutation(actor, "submit_job", "") as entry:
            wanted = self.expand(request)
            wanted.check()
            self._check_image(wanted.image or self.config.image)
            run = self._runs.once(key, f"jobs {actor.user}", request, lambda known: self._accept(wanted, actor, known))
            entry.target = run.id
        return self.get(run.id)

    def get(self, ref: str) -> JobView:
        """Return a job as it is now, by its id or a beginning of that which no other has.

        Raises:
            NotFound. Conflict: several begin so (AMBIGUOUS). Unavailable.
        """
        job_id = self._id_of(ref)
        if execution := self._active.get(job_id):
            return self._view_of(execution)
        return JobView(self._store.get(job_id), self._runs.get(job_id))

    def page(self, wanted: JobFilter, *, limit: int, cursor: str = "") -> tuple[list[JobView], str]:
        """Return one page, newest first, and the cursor of the next one ("" at the end). Raises InvalidParameter, Unavailable."""
        ids = [job_id for job_id, _ in self._store.ids()]
        if cursor and cursor not in ids:
            raise InvalidParameter("cursor", f"{cursor[:64]!r} is not a job that is kept")
        waiting = ids[ids.index(cursor) + 1 :] if cursor else ids
        found: list[JobView] = []
        positions = self._queue.positions()
        while waiting:
            some, waiting = waiting[:limit], waiting[limit:]
            for view in self._views(some, positions):
                if wanted.matches(view):
                    if len(found) == limit:
                        return found, found[-1].job.id
                    found.append(view)
        return found, ""

    def cancel(self, ref: str, actor: Actor, mode: CancelMode = CancelMode.INTERRUPT) -> tuple[JobView, bool]:
        """Have a job end; return it, and whether this did it: one that is over stays as it is. Does not wait for the end.

        Raises:
            NotFound, Conflict, Unavailable.
        """
        with self._audit.mutation(actor, "cancel_job", ref) as entry:
            entry.target = job_id = self.get(ref).job.id
            _, is_first = self._runs.cancel(job_id, actor, mode)
        return self.get(job_id), is_first

    def remove(self, ref: str, actor: Actor) -> JobView:
        """Forget a job that is over, with its results.

        Raises:
            NotFound. Conflict: it is not over (JOB_ACTIVE), or somebody downloads from it (FILES_IN_USE). Unavailable.
        """
        with self._audit.mutation(actor, "remove_job", ref):
            view = self.get(ref)
            if view.job.id in self._active:
                raise active(view)
            self._retention.forget(view.run)
        return view

    def logs(self, ref: str, stream: str = "", *, follow: bool = False) -> Generator[LogPiece]:
        """Return what a job's programs wrote; see JobResults. Raises NotFound, Conflict, Unavailable: at once."""
        return self._results.logs(self.get(ref), stream, follow=follow)

    def artifacts(self, ref: str, *, start: int, limit: int, digests: bool) -> ArtifactPage:
        """Return what a job has put into its output folder by now; see JobResults. Raises NotFound, Conflict, Unavailable."""
        return self._results.listing(self.get(ref), start, limit, digests=digests)

    def artifact(self, ref: str, name: str) -> FileDownload:
        """Return one file of the output folder, by the name that the listing has; close it in the end.

        Raises:
            NotFound: no such job, or file. Conflict, Failed, Unavailable.
        """
        return self._results.file(self.get(ref), name)

    def archive(self, ref: str) -> tuple[JobView, ZipDownload]:
        """Return the output folder of a job that is over as a ZIP; close it in the end.

        Raises:
            NotFound. Conflict: it is not over (JOB_ACTIVE). Failed, Unavailable.
        """
        view = self.get(ref)
        return view, self._results.zip(view)

    # ---- for the daemon

    def load(self) -> int:
        """Take over what another daemon left: what waits waits on, what runs is joined, else run again. Returns how many.

        Raises:
            Unavailable: also where the folder of jobs can't be used.
        """
        self.folders.open()
        try:
            self._results.archives.start()
        except OSError as exc:
            raise Unavailable(f"the folder of archives can't be made: {exc}", code="STATE_FOLDER_UNUSABLE") from exc
        runs = [run for run in self._means.store.active() if run.kind == KIND]
        jobs = {job.id: job for job in self._store.some(run.id for run in runs)}
        for run in runs:
            if run.id not in jobs:
                log.error("a job has lost what was kept of it, and is left alone", extra={"job_id": run.id})
                continue
            last, source_seq = self._means.store.last_event(run.id)
            run_log = RunLog(run.id, self._means.writer, last_seq=last.seq if last else 0, source_seq=source_seq)
            execution = self._execution(jobs[run.id], run, run_log)
            self._active[run.id] = execution
            if run.status is RunStatus.CANCELLING:
                execution.stop(RunCode.CANCELLED, "it was cancelled")
            self._runs.take_over(execution)
            if run.started_at:
                self._queue.occupy(execution.job)
                execution.begin()
        for execution in sorted(self._active.values(), key=lambda each: each.job.sequence):
            if not execution.run.started_at:
                self._queue.enlist(execution.job, execution.begin)
        if runs:
            log.info("jobs taken over", extra={"jobs": len(runs), "waiting": len(self._queue)})
        return len(runs)

    def run_once(self, now: float) -> int:
        """Begin what may begin by now, end what takes more of the disk than it may, and now and then sweep; return how many were
        ended or forgotten.

        Raises:
            Unavailable.
        """
        self._queue.offer()
        self._pool.refill()
        ended = self._end_large()
        if not self._swept_at <= now < self._swept_at + defaults.JOBS_SWEEP_S:
            self._swept_at = now
            ended += self.sweep(now)
        return ended

    def _end_large(self) -> int:
        """A folder is counted again when so much time has passed that counting it takes a small part of all."""
        ended = 0
        self._counted = {job_id: at for job_id, at in self._counted.items() if job_id in self._queue.running}
        for job_id in self._queue.running:
            execution = self._active.get(job_id)
            limit = execution.job.limits.disk if execution else None
            began = time.monotonic()
            is_due = began >= self._counted.get(job_id, 0.0)
            if execution is None or limit is None or not execution.run.started_at or not is_due:
                continue
            taken = offload.run(self.folders.measure, job_id, limit)
            now = time.monotonic()
            self._counted[job_id] = now + max(MIN_COUNT_S, COUNT_PAUSE * (now - began))
            if taken > limit:
                message = f"its folder takes more than {limit // 2**20} MiB"
                ended += execution.stop(RunCode.DISK_LIMIT, message, CancelMode.KILL)
        return ended

    def sweep(self, now: float) -> int:
        """Forget jobs that are kept long enough, or too large in all; remove what vanished jobs left. Returns how many things.

        Raises:
            Unavailable.
        """
        swept = self._retention.expire(now, self.config.max_bytes, self._active.keys())
        swept += self._retention.sweep(
            lambda job_id: job_id in self._arriving | self._active.keys() | self._pool.folder_ids
        )
        return swept + self._sandboxes.sweep(self._is_wanted)

    def untold(self) -> Iterator[JobView]:
        """Return the jobs that are over and whose end is still to be told. Raises Unavailable."""
        ids = [job_id for job_id, _ in self._store.ended()]
        for start in range(0, len(ids), VIEWS_AT_ONCE):
            yield from (view for view in self._views(ids[start : start + VIEWS_AT_ONCE], {}) if view.is_owed)

    def deliver(self, job_id: str, delivery: Delivery) -> None:
        """Write down how the telling of a job's end goes; blocks until that is on disk. Raises NotFound, Unavailable."""
        if execution := self._active.get(job_id):
            execution.job = msgspec.structs.replace(execution.job, delivery=delivery)
        job = msgspec.structs.replace(self._store.get(job_id), delivery=delivery)
        self._means.writer.commit(JobStore.put(job))
        if not self._means.store.some([job_id]):  # it was removed meanwhile
            self._means.writer.commit(JobStore.remove(job_id))
            raise _unknown(job_id)

    # ---- inside

    def _accept(self, request: JobRequest, actor: Actor, identity: Identity) -> Run:
        if len(self._queue) >= defaults.MAX_QUEUED_JOBS:
            raise TooManyRequests(
                f"{defaults.MAX_QUEUED_JOBS} jobs wait",
                code="TOO_MANY_JOBS",
                hint="agentainerctl jobs list",
                retry_after_s=30,
            )
        now = clock.now()
        limits = self._limits(request.limits)
        self._sequence = max(self._sequence + 1, int(now * 1e6))
        run = Run(
            id=new_run_id(), kind=KIND, agent_id="", agent="", input=request.prompt, created_at=now, model=request.model,
            limits=limits.of_run, key=identity.scope,
        )  # fmt: skip
        retention_s = self.config.retention_days * DAY_S if request.retention_s is None else request.retention_s
        job = Job(
            id=run.id, image=request.image or self.config.image, submitter=actor.user, limits=limits,
            retention_s=retention_s, sequence=self._sequence, priority=request.priority, command=request.command,
            bridge=request.bridge, env=request.env, files=tuple(str(PurePosixPath(file.name)) for file in request.files),
            not_before=request.not_before(now),
            template=request.template.name if request.template else "", webhook=request.webhook and request.webhook.signed(),
        )  # fmt: skip
        self._arriving.add(run.id)
        try:
            self._keep_files(run.id, request)
            execution = self._execution(job, run, RunLog(run.id, self._means.writer))
            operations = [*RunStore.begin(run, identity.scope, identity.fingerprint), *JobStore.begin(job, now)]
            self._active[run.id] = execution
            try:
                self._runs.accept(execution, operations, JobStore.remove(run.id))
            except BaseException:
                del self._active[run.id]
                raise
        finally:
            self._arriving.discard(run.id)
        self._queue.enlist(job, execution.begin)
        return run

    def _keep_files(self, job_id: str, request: JobRequest) -> None:
        if not request.files:
            return
        try:
            offload.run(self.folders.keep, job_id, request.files)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise Unavailable(
                    f"the files of the job could not be kept: {os.strerror(exc.errno).lower()}",
                    code="NO_SPACE",
                    hint=f"make room on the disk of {self.folders.root}: agentainerctl jobs rm forgets jobs",
                    retry_after_s=60,
                ) from exc
            raise Failed(
                f"the files of the job could not be kept: {exc.strerror or exc}",
                code="JOB_FOLDER_FAILED",
                hint=f"look at the disk of {self.folders.root}",
            ) from exc

    def _waited(self, job_id: str, timeout_s: float) -> JobView:
        self._runs.wait(job_id, timeout_s, is_over=True)
        return self.get(job_id)

    def _limits(self, asked: JobLimits) -> JobLimits:
        config = self.config
        given = {name: getattr(asked, name) for name in asked.__struct_fields__}
        usual = {
            "memory": config.memory_limit, "cpus": config.cpu_limit / 1e9, "pids": config.pids_limit,
            "disk": config.disk_limit, "wall_s": config.wall_s, "network": config.network,
        }  # fmt: skip
        return JobLimits(**usual | {name: value for name, value in given.items() if value is not None})

    def _check_image(self, image: str) -> None:
        """Refuse an image that is not there; an engine that is away is no reason to refuse a job."""
        if clock.now() - self._images.get(image, 0.0) < IMAGE_KNOWN_S:
            return
        try:
            self._sandboxes.check_image(image)
            self._images = {image: clock.now()}
        except Unavailable as error:
            log.info("a job is accepted without a look at its image: %s", error)

    def _execution(self, job: Job, run: Run, run_log: RunLog) -> JobExecution:
        return JobExecution(
            job,
            run,
            run_log,
            self._means,
            sandboxes=self._sandboxes,
            pool=self._pool,
            engine=self._engine,
            over=self._over,
        )

    def _over(self, execution: JobExecution) -> None:
        self._active.pop(execution.job.id, None)
        self._queue.leave(execution.job.id)
        if execution.run.status.is_final:
            self.on_ended(JobView(execution.job, execution.run))

    def _view_of(self, execution: JobExecution, positions: dict[str, int] | None = None) -> JobView:
        run = msgspec.structs.replace(execution.run, last_seq=execution.log.stored_seq)
        place = self._queue.position(run.id) if positions is None else positions.get(run.id, 0)
        return JobView(execution.job, run, place)

    def _views(self, ids: list[str], positions: dict[str, int]) -> list[JobView]:
        kept = {job.id: job for job in self._store.some(ids)}
        runs = {run.id: run for run in self._means.store.some(ids)}
        return [
            self._view_of(self._active[job_id], positions)
            if job_id in self._active
            else JobView(kept[job_id], runs[job_id])
            for job_id in ids
            if job_id in self._active or (job_id in kept and job_id in runs)
        ]

    def _id_of(self, ref: str) -> str:
        if is_run_id(ref):
            return ref
        short = ref.strip().lower()
        if len(short) < MIN_PREFIX_CHARS or not set(short) <= set("0123456789abcdef-"):
            raise _unknown(ref)
        found = [job_id for job_id, _ in self._store.ids() if job_id.startswith(short)]
        if len(found) > 1:
            raise Conflict(f"{len(found)} jobs begin with {short}", code="AMBIGUOUS", hint="write more of the id")
        if not found:
            raise _unknown(ref)
        return found[0]

    def _is_wanted(self, agent_id: str) -> bool:
        return agent_id in self._pool.agent_ids or any(
            execution.job.agent_id == agent_id for execution in self._active.values()
        )

    def _warm(self) -> tuple[int, Job]:
        """Return how many containers are to stand ready, and a job as they are for."""
        limits = self._limits(JobLimits())
        return self.config.warm, Job(
            id="", image=self.config.image, submitter="", limits=limits, retention_s=0.0, sequence=0
        )

    def _max_running(self) -> int:
        return self.config.max_running or os.cpu_count() or 1


def _unknown(ref: str) -> AgentainerError:
    return NotFound("job", ref[:64], hint="agentainerctl jobs list")
