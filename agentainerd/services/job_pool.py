"""Containers that stand ready for the next jobs: agents without a job, made in the background and given away once."""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from agentainerd.errors import AgentainerError
from agentainerd.model.agents import Agent
from agentainerd.model.bridges import Bridge
from agentainerd.model.jobs import Job
from agentainerd.model.runs import Run, new_run_id
from agentainerd.services.agents import new_agent_id
from agentainerd.services.job_sandboxes import Sandboxes

log = logging.getLogger(__name__)

MAX_FAILURES = 5  # in a row: then nothing is tried until the setting, or the image, is another one


@dataclass(frozen=True, slots=True)
class WarmJob:
    """What a job must be to take a container that stands ready: any but for its prompt, files and limits of the run."""

    image: str
    memory: int | None
    cpus: float | None
    pids: int | None
    network: bool | None


class JobPool:
    """`wanted` returns how many are to stand ready, and a job as those are that may take one. Only `refill` starts anything."""

    def __init__(
        self, sandboxes: Sandboxes, spawn: Callable[..., object], wanted: Callable[[], tuple[int, Job]]
    ) -> None:
        self._sandboxes = sandboxes
        self._spawn = spawn
        self._wanted = wanted
        self._ready: deque[tuple[WarmJob, Job]] = deque()
        self._making: Job | None = None
        self._failures = 0
        self._failed: WarmJob | None = None

    @property
    def agent_ids(self) -> frozenset[str]:
        """The agents that stand ready, or are about to."""
        return frozenset(warm.agent_id for warm in self._all())

    @property
    def folder_ids(self) -> frozenset[str]:
        """The names of their folders."""
        return frozenset(warm.id for warm in self._all())

    def take(self, job: Job, run: Run) -> Agent | None:
        """Return an agent that is ready and has a job's files and prompt now; None: there is none for it. Raises Failed."""
        if job.env or job.command or job.bridge or run.model:
            return None
        kind = _kind(job)
        for entry in list(self._ready):
            if entry[0] != kind:
                continue
            self._ready.remove(entry)
            if agent := self._sandboxes.adopt(entry[1], job, run):
                self.refill()
                return agent
            self._discard(entry[1])
        return None

    def refill(self) -> None:
        """Make one more where too few stand ready, and remove what nobody can take any more; does not block."""
        count, usual = self._wanted()
        kind = _kind(usual)
        for entry in [each for each in self._ready if each[0] != kind] + list(self._ready)[count:]:
            if entry in self._ready:
                self._ready.remove(entry)
                self._spawn("warm job", self._discard, entry[1])
        gave_up = self._failed == kind and self._failures >= MAX_FAILURES
        if len(self._ready) < count and not self._making and not gave_up:
            warm = msgspec.structs.replace(usual, id=new_run_id(), agent_id=new_agent_id())
            self._making = warm
            self._spawn("warm job", self._make, kind, warm)

    def _make(self, kind: WarmJob, warm: Job) -> None:
        try:
            if self._sandboxes.bridge(warm) is not Bridge.NATIVE:
                log.warning("jobs.warm: %s is not of the tier native, and can't stand ready", warm.image)
                self._failed, self._failures = kind, MAX_FAILURES
                return
            self._sandboxes.make_warm(warm)
            self._ready.append((kind, warm))
            self._failures = 0
        except AgentainerError as error:
            self._failures = self._failures + 1 if self._failed == kind else 1
            self._failed = kind
            log.warning("a container for jobs could not be made ready: %s", error, extra={"image": warm.image})
            self._discard(warm)
        finally:
            self._making = None
        self.refill()

    def _all(self) -> list[Job]:
        return [*([self._making] if self._making else []), *(warm for _, warm in self._ready)]

    def _discard(self, warm: Job) -> None:
        try:
            self._sandboxes.discard(warm.agent_id)
        except AgentainerError as error:
            log.info("a container that stood ready is removed later: %s", error)


def _kind(job: Job) -> WarmJob:
    limits = job.limits
    return WarmJob(job.image, limits.memory, limits.cpus, limits.pids, limits.network)
