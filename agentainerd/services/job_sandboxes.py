"""What jobs run in: an agent that is made for one, stopped at its end, and removed (decision 0018)."""

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from agentainerd import defaults, offload
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, Conflict, Failed, NotFound, Unavailable
from agentainerd.model.agents import Agent, AgentSpec
from agentainerd.model.bridges import Bridge, labelled
from agentainerd.model.containers import Container, ContainerState, Image
from agentainerd.model.jobs import OUTPUT_DIR, PROMPT_FILE, Job
from agentainerd.model.runs import Run
from agentainerd.proxy.routing import Gate
from agentainerd.services.agents import AgentService, Home
from agentainerd.services.audit import DAEMON
from agentainerd.services.containers import WORKSPACE_LABEL
from agentainerd.services.fleet import Fleet
from agentainerd.services.job_folders import JobFolders
from agentainerd.services.lifecycle import Lifecycle
from agentainerd.services.models import ModelService
from agentainerd.services.starting import Starting

log = logging.getLogger(__name__)

RUNTIME_LABEL = "agentainer.runtime"
"""The label of images that `agentainerctl runtime build` makes."""
TOOL_VARIABLES = "AGENT_TOOL_ENVIRONMENT"
"""Names of the variables that the runtime image lets the programs of a job have; without it they have none of the submitter's."""
MAX_PROMPT_VARIABLE_BYTES = 100_000  # the kernel takes 128 KiB for one variable
LOG_PIECE_BYTES = 256 * 1024
_IMAGE_HINT = "agentainerctl runtime build makes the one of the setting jobs.image; docker pull gets others"
STREAMS = ("stdout", "stderr")


class Sandboxes:
    """Every method blocks its greenlet only."""

    def __init__(
        self,
        fleet: Fleet,
        agents: AgentService,
        starting: Starting,
        lifecycle: Lifecycle,
        engine: Engine,
        folders: JobFolders,
        models: ModelService,
    ) -> None:
        self.folders = folders
        self._fleet = fleet
        self._agents = agents
        self._starting = starting
        self._lifecycle = lifecycle
        self._engine = engine
        self._models = models

    def check_image(self, image: str) -> None:
        """Raise NotFound where an image is not on the engine, Unavailable where that can't be said."""
        try:
            self._engine.image(image)
        except NotFound as error:
            raise NotFound("image", image, message=f"image '{image}' is not on the engine", hint=_IMAGE_HINT) from error

    def bridge(self, job: Job) -> Bridge:
        """Return how a job is given to its image: as it says itself, or its image's label; else by its start.

        Raises:
            Failed: the image is not there (IMAGE_NOT_FOUND). Unavailable: the engine.
        """
        return job.bridge or labelled(self._image(job).labels) or Bridge.EXEC

    def make(self, job: Job, run: Run, bridge: Bridge) -> Agent:
        """Make a fresh folder, and the agent with the id that the job has; nothing runs yet.

        Raises:
            Failed: the image is not there, or the folder could not be made (JOB_FOLDER_FAILED). Unavailable: engine, Redis.
        """
        names = {"JOB_ID": job.id, "JOB_ATTEMPT": str(run.attempt + 1)}
        if len(run.input.encode(errors="replace")) <= MAX_PROMPT_VARIABLE_BYTES:
            names["JOB_PROMPT"] = run.input
        return self._deploy(job, run.input, self._spec(job, run.model, bridge, names), f"job-{job.id[:8]}")

    def make_warm(self, job: Job) -> Agent:
        """Make an agent that any job like `job` can take, which is none itself, and wait until it is ready.

        Raises:
            As `make` and `start`. Failed, DeadlineExceeded: it did not become ready.
        """
        self._deploy(job, "", self._spec(job, "", Bridge.NATIVE, {}), f"job-warm-{job.id[:8]}")
        return self._starting.when_ready(self.start(job), defaults.RUN_READY_TIMEOUT_S)

    def adopt(self, warm: Job, job: Job, run: Run) -> Agent | None:
        """Give what stands ready to a job, with its files and its prompt; None where it is not ready any more.

        Raises:
            Failed: its folder could not be made (JOB_FOLDER_FAILED).
        """
        route = self._fleet.route(warm.agent_id)
        if route is None or route.gate is not Gate.OPEN:
            return None
        try:
            offload.run(self.folders.adopt, warm.id, job.id, run.input)
            return self._fleet.find(warm.agent_id)
        except OSError as exc:
            raise self._unmade(job, exc) from exc
        except NotFound:
            return None

    def start(self, job: Job) -> Agent:
        """Start the agent of a job. Raises Failed: it can't be started (code AGENT_START_FAILED). NotFound. Unavailable."""
        with self._fleet.locked(job.agent_id) as agent:
            return self._starting.up(agent)

    def container(self, job: Job) -> Container:
        """Return the container of a job as the engine sees it now. Raises NotFound: it is gone. Unavailable."""
        agent = self._fleet.find(job.agent_id)
        for container in self._lifecycle.find(agent).values():
            return container
        raise NotFound("container", agent.name)

    def has_run(self, job: Job) -> bool:
        """Return whether a job's container has begun to run: one that is gone may have. Raises Unavailable."""
        try:
            agent = self._fleet.find(job.agent_id)
        except NotFound:
            return True
        found = self._lifecycle.find(agent)
        return bool(agent.container_id) or any(container.started_at for container in found.values())

    def halt(self, job: Job, grace_s: float) -> None:
        """Have everything in a job's container end: TERM, then KILL. Raises nothing: what could not be is swept later."""
        with contextlib.suppress(NotFound):
            try:
                self._agents.stop(job.agent_id, DAEMON, grace_s=grace_s)
            except AgentainerError as error:
                log.warning("the container of a job could not be stopped: %s", error, extra={"job_id": job.id})

    def keep_logs(self, job: Job, attempt: int) -> None:
        """Put what a job's container wrote into the two files of this attempt.

        Raises:
            Unavailable: the engine is away, and may be asked again. What is gone, or can't be written, is told in the log only.
        """
        try:
            container = self.container(job)
            stream = self._engine.logs(container.id)
        except NotFound as error:
            log.warning("the output of a job could not be kept: %s", error, extra={"job_id": job.id})
            return
        files = {name: self.folders.log(job.id, name, attempt) for name in STREAMS}
        waiting = {name: bytearray() for name in STREAMS}
        try:
            for path in files.values():
                offload.run(path.unlink, True)
            for piece in stream:
                waiting[piece.stream] += piece.data
                if len(waiting[piece.stream]) > LOG_PIECE_BYTES:
                    offload.run(_append, files[piece.stream], bytes(waiting[piece.stream]))
                    waiting[piece.stream].clear()
            for name, data in waiting.items():
                offload.run(_append, files[name], bytes(data))
        except OSError as error:
            log.warning("the output of a job could not be kept whole: %s", error, extra={"job_id": job.id})
        finally:
            stream.close()

    def discard(self, agent_id: str) -> None:
        """Remove the agent of a job with its container; not there: nothing to do. Raises Unavailable."""
        with contextlib.suppress(NotFound):
            self._agents.remove(agent_id, DAEMON)

    def sweep(self, is_wanted: Callable[[str], bool]) -> int:
        """Remove agents that were made for jobs and are not wanted any more, and containers of ours that no agent has; return how
        many. `is_wanted` gets an agent's id.

        Raises:
            Unavailable.
        """
        agents = self._fleet.store.all()
        known = {agent.id for agent in agents}
        swept = [agent.id for agent in agents if agent.is_ephemeral and not is_wanted(agent.id)]
        for agent_id in swept:
            self.discard(agent_id)
        root = os.path.join(self.folders.root, "")
        lost = [
            container
            for container in self._engine.containers()
            if container.agent_id not in known
            and container.labels.get(WORKSPACE_LABEL, "").startswith(root)
            and container.state is not ContainerState.GONE
            and not is_wanted(container.agent_id)
        ]
        for container in lost:
            self._engine.remove(container.id)
        if swept or lost:
            log.info("what jobs had left was removed", extra={"agents": len(swept), "containers": len(lost)})
        return len(swept) + len(lost)

    def _image(self, job: Job) -> Image:
        try:
            return self._engine.image(job.image)
        except NotFound as error:
            raise Failed(
                f"image '{job.image}' is not on the engine", code="IMAGE_NOT_FOUND", hint=_IMAGE_HINT
            ) from error

    def _deploy(self, job: Job, prompt: str, spec: AgentSpec, name: str) -> Agent:
        try:
            workspace = offload.run(self.folders.prepare, job.id, prompt)
        except OSError as exc:
            raise self._unmade(job, exc) from exc
        home = Home(job.agent_id, str(workspace), job.limits.pids or defaults.JOB_PIDS)
        try:
            return self._agents.deploy(msgspec.structs.replace(spec, name=name), DAEMON, home)
        except Conflict:
            name = f"job-{job.id}"  # another one that runs begins with the same eight digits
            return self._agents.deploy(msgspec.structs.replace(spec, name=name), DAEMON, home)

    def _unmade(self, job: Job, error: OSError) -> Failed:
        return Failed(
            f"the folder of job {job.id} could not be made: {error.strerror or error}",
            code="JOB_FOLDER_FAILED",
            hint=f"look at the disk of {self.folders.root}",
        )

    def _spec(self, job: Job, model: str, bridge: Bridge, names: Mapping[str, str]) -> AgentSpec:
        limits, image = job.limits, self._image(job)
        given = {TOOL_VARIABLES: " ".join(job.env)} if job.env else {}
        return AgentSpec(
            name="job",
            image=job.image,
            env_vars={**job.env, "JOB_PROMPT_FILE": PROMPT_FILE, "JOB_OUTPUT_DIR": OUTPUT_DIR, **given, **names},
            secrets=tuple(job.env),
            command=job.command,
            cpu_limit=int((limits.cpus or 0) * 1e9),
            memory_limit=limits.memory or 0,
            network_egress=bool(limits.network),
            persistence=False,
            request_timeout_s=limits.wall_s or defaults.JOB_WALL_S,
            stop_grace_s=defaults.JOB_GRACE_S,
            bridge=bridge,
            model=model or self._models.config.default,
            runtime=RUNTIME_LABEL in image.labels,
        )


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as target:
        target.write(data[: max(0, defaults.MAX_JOB_LOG_BYTES - target.tell())])


def is_passing(error: AgentainerError) -> bool:
    """Whether an error says that engine or Redis may be back in a moment."""
    return isinstance(error, Unavailable) and error.code not in ("JOURNAL_FENCED", "REDIS_FULL")
