"""Jobs as the containerized-agent document tells of them: its states, its links, its fields; ids of jobs are those of ours."""

import uuid
from collections import deque
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

from agentainerd import defaults, offload
from agentainerd.archives.archives import ZipDownload
from agentainerd.errors import InvalidParameter, NotFound
from agentainerd.model.containers import LogPiece
from agentainerd.model.jobs import JobFilter, JobRequest, JobView, document_status
from agentainerd.model.runs import RunStatus
from agentainerd.services.agents import AgentService
from agentainerd.services.audit import Actor
from agentainerd.services.jobs import JobService
from agentainerd.services.runs import RunService

Json = dict[str, Any]

CANCEL_WAIT_S = 10.0  # the document's cancel answers when the job is over; one that does not end is told as running
LAST_LINES = 1000
NOT_UUID = "Invalid job_id format (must be UUID)"
NOT_FOUND = "Job not found"
NO_ZIP = "Output zip not found or job not complete"
_CANCELLED = (RunStatus.CANCELLING, RunStatus.CANCELLED)


class SchedulerService:
    """Every method blocks its greenlet only. Those that take a `job_id` raise InvalidParameter where it is no UUID; all raise
    Unavailable. `base_url`: what links begin with, without a final slash.
    """

    def __init__(self, jobs: JobService, runs: RunService, agents: AgentService) -> None:
        self._jobs = jobs
        self._runs = runs
        self._agents = agents

    def schedule(self, prompt: str, actor: Actor, *, key: str = "") -> Json:
        """Accept a job. Raises what `JobService.submit` raises."""
        view = self._jobs.submit(JobRequest(prompt=prompt), actor, key=key)
        return {"job_id": view.job.id, "status": "scheduled"}

    def status(self, job_id: str, base_url: str) -> Json:
        """Return where a job is, and where its results and logs are; of one that is not there, that."""
        job_id = identify(job_id)
        found: Json = {"job_id": job_id, "status": "not_found", "output": None, "download_link": None}
        try:
            view = self._jobs.get(job_id)
        except NotFound:
            return {**found, "logs_link": f"{base_url}/logs/{job_id}"}
        if output := self._output(view):
            found |= {"output": str(output), "download_link": f"{base_url}/download/{job_id}"}
        return {**found, "status": document_status(view.run.status), "logs_link": f"{base_url}/logs/{job_id}"}

    def all(self) -> list[Json]:
        """Return all jobs, the oldest first."""
        found: list[Json] = []
        cursor = ""
        while True:
            page, cursor = self._jobs.page(JobFilter(), limit=defaults.MAX_PAGE_LIMIT, cursor=cursor)
            found += [{"job_id": view.job.id, **_story(view)} for view in page]
            if not cursor:
                return found[::-1]

    def cancel(self, job_id: str, actor: Actor) -> Json:
        """Have a job end, and wait for that; `cancelled` is whether it ends by that, or by one before. Of a job that is not there
        the document has no error.
        """
        job_id = identify(job_id)
        try:
            self._jobs.cancel(job_id, actor)
            self._runs.wait(job_id, CANCEL_WAIT_S)
            status = self._jobs.get(job_id).run.status
        except NotFound:
            return {"job_id": job_id, "cancelled": False, "status": "not_found"}
        return {"job_id": job_id, "cancelled": status in _CANCELLED, "status": document_status(status)}

    def job(self, job_id: str) -> Json:
        """Return all that the document tells of a job. Raises NotFound."""
        view = self._find(job_id)
        output = self._output(view)
        folder = self._jobs.folders.folder(view.job.id) if view.run.started_at else None
        return {
            "container_id": self._container_id(view),
            **_story(view),
            "output_path": output and str(output),
            "logs_path": folder and str(folder),
            "cancelled": view.run.status in _CANCELLED,
            "exit_code": view.job.exit_code,
        }

    def log(self, job_id: str, stream: str) -> Generator[LogPiece]:
        """Return what a job wrote on "stdout" or "stderr" by now. Raises NotFound: there is no such job, or it has not begun."""
        view = self._find(job_id)
        if not view.run.started_at:
            raise NotFound("log", view.job.id, message="Log file not found: the job has not started")
        return self._jobs.logs(view.job.id, stream)

    def archive(self, job_id: str) -> ZipDownload:
        """Return the results of a job as a ZIP; close it in the end. Raises NotFound where there are none, or not yet."""
        view = self._find(job_id)
        if not self._output(view):
            raise NotFound("archive", view.job.id, message=NO_ZIP)
        return self._jobs.archive(view.job.id)[1]

    def last_lines(self, job_id: str, stream: str) -> str:
        """Return the last 1000 lines of that. Raises as `log`."""
        lines: deque[bytes] = deque(maxlen=LAST_LINES)
        rest = b""
        with closing(self.log(job_id, stream)) as pieces:
            for piece in pieces:
                *whole, rest = (rest + piece.data).split(b"\n")
                lines.extend(line + b"\n" for line in whole)
        if rest:
            lines.append(rest)
        return b"".join(lines).decode("utf-8", "replace")

    def _find(self, job_id: str) -> JobView:
        return self._jobs.get(identify(job_id))

    def _output(self, view: JobView) -> Path | None:
        """Return the folder that is packed of a job that is over, however it ended; None where there is none."""
        folder = self._jobs.folders.output(view.job.id)
        return folder if view.run.status.is_final and offload.run(folder.is_dir) else None

    def _container_id(self, view: JobView) -> str | None:
        try:
            return (view.job.agent_id and self._agents.get(view.job.agent_id).container_id) or None
        except NotFound:
            return None


def identify(text: str) -> str:
    """Return the id that a client wrote in any form of a UUID. Raises InvalidParameter."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise InvalidParameter("job_id", NOT_UUID) from None


def _story(view: JobView) -> Json:
    run = view.run
    return {
        "status": document_status(run.status),
        "created": run.created_at,
        "started": run.started_at or None,
        "completed": run.finished_at or None,
        "error": run.error.message if run.error else None,
    }
