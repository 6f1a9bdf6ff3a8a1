"""One apply under way: every agent's step in a greenlet of its own, which waits for its dependencies, and what it tells."""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore

from agentainerd.errors import AgentainerError, Conflict
from agentainerd.model.agents import Agent, AgentSpec
from agentainerd.model.deployments import Need, Plan, Step, Verb, Wish, needs_start
from agentainerd.model.events import Action
from agentainerd.model.replicas import AgentState
from agentainerd.services.agents import AgentService
from agentainerd.services.audit import Actor
from agentainerd.services.events import EventService
from agentainerd.services.fleet import Fleet
from agentainerd.services.lifecycle import MAX_AT_ONCE
from agentainerd.services.starting import Starting
from agentainerd.services.updates import UpdateService

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
Spawn = Callable[..., object]


_DEPENDS = "it depends on"


class Stage(StrEnum):
    """How far a step is."""

    WAITING = "waiting"  # for its dependencies
    DOING = "doing"
    STARTING = "starting"  # waiting until it is ready
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"  # because of another one


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a step. `agent_id`: of an agent that was there at its end. `message`: why, of one that failed or was
    skipped; `error`: of one that failed.
    """

    step: Step
    stage: Stage
    agent_id: str = ""
    message: str = ""
    error: AgentainerError | None = None


@dataclass(frozen=True, slots=True)
class Deeds:
    """The verbs that an apply is made of, for all of them. `places`: agents that are worked on side by side."""

    fleet: Fleet
    agents: AgentService
    updates: UpdateService
    starting: Starting
    events: EventService
    places: BoundedSemaphore
    replacing: BoundedSemaphore


def deeds(
    fleet: Fleet, agents: AgentService, updates: UpdateService, starting: Starting, events: EventService
) -> Deeds:
    """Return the verbs with the daemon's bounds: MAX_AT_ONCE agents side by side, and one that is replaced."""
    return Deeds(fleet, agents, updates, starting, events, BoundedSemaphore(MAX_AT_ONCE), BoundedSemaphore(1))


class Application:
    """Iterate over it once: a report of each change of a step, None where there was none for a second, then nothing more.

    `results` has the last report of each step.

    `close` lets what is under way end, and begins nothing more. `on_end` is called once, when all have ended.
    """

    def __init__(
        self,
        plan: Plan,
        specs: Sequence[AgentSpec],
        wish: Wish,
        actor: Actor,
        verbs: Deeds,
        *,
        spawn: Spawn,
        on_end: Callable[[], object],
    ) -> None:
        self.plan = plan
        self.results: dict[str, Report] = {}
        self._specs = {spec.name: spec for spec in specs}
        self._wish = wish
        self._actor = actor
        self._verbs = verbs
        self._on_end = on_end
        self._is_closed = False
        self._reports: deque[Report] = deque()
        self._told = Event()
        self._ends: dict[str, AsyncResult] = {step.agent: AsyncResult() for step in plan.steps}
        for step in plan.steps:
            spawn(f"apply {step.agent}", self._run, step)

    def __iter__(self) -> Iterator[Report | None]:
        """Return what is told, until all steps have ended."""
        while True:
            while self._reports:
                yield self._reports.popleft()
            if len(self.results) == len(self.plan.steps):
                return
            self._told.clear()
            if not self._told.wait(HEARTBEAT_S):
                yield None

    def close(self) -> None:
        """Begin nothing more; from any greenlet."""
        self._is_closed = True

    @property
    def failed(self) -> list[Report]:
        """The steps that failed."""
        return [report for report in self.results.values() if report.stage is Stage.FAILED]

    def _run(self, step: Step) -> None:
        report = Report(step=step, stage=Stage.SKIPPED, message="agentainerd stops")
        try:
            report = self._perform(step)
        except AgentainerError as error:
            report = Report(step=step, stage=Stage.FAILED, message=error.message, error=error)
        finally:
            self._end(report)

    def _perform(self, step: Step) -> Report:
        why_not = self._wait_for_turn(step)
        if why_not:
            return Report(step=step, stage=Stage.SKIPPED, message=why_not)
        place = self._verbs.replacing if step.verb is Verb.REPLACE else self._verbs.places
        with place:
            if self._is_closed:
                return Report(step=step, stage=Stage.SKIPPED, message="the apply was broken off")
            self._do(step)
        return Report(step=step, stage=Stage.DONE)

    def _wait_for_turn(self, step: Step) -> str:
        """Block until all that comes before a step is done; return why it never will be, or ""."""
        before = self._before(step)
        if any(not self._ends[name].ready() for name in before):
            self._tell(Report(step=step, stage=Stage.WAITING))
        for name in before:
            end: Report = self._ends[name].get()
            if end.stage is not Stage.DONE and step.verb is Verb.REMOVE:
                return f"'{name}' was not done"
            if end.stage is not Stage.DONE:
                return f"{_DEPENDS} '{name}', which {_how(end)}"
        if self._wish.start and step.verb is not Verb.REMOVE:
            self._wait_for_others(step)
        return ""

    def _before(self, step: Step) -> list[str]:
        """Return the steps that have to be done before: dependencies; of a removal all that are none, and those of what depends
        on it.
        """
        if step.verb is not Verb.REMOVE:
            return [name for name in step.dependencies if name in self._ends]
        return [
            other.agent
            for other in self.plan.steps
            if other.verb is not Verb.REMOVE or step.agent in other.dependencies
        ]

    def _wait_for_others(self, step: Step) -> None:
        """Wait for dependencies that are in no file."""
        for name in step.dependencies:
            if name in self._ends:
                continue
            other = self._verbs.fleet.find(name)
            if other.state is not AgentState.RUNNING and not other.is_idle:
                raise Conflict(
                    f"'{step.agent}' depends on '{name}', which is {other.state}",
                    code="DEPENDENCY_NOT_RUNNING",
                    hint=f"agentainerctl start {name}",
                )
            if other.state is AgentState.RUNNING:
                self._verbs.starting.when_ready(other, self._wish.timeout_s)

    def _do(self, step: Step) -> None:
        verbs, name, actor = self._verbs, step.agent, self._actor
        if step.verb is not Verb.KEEP:
            self._tell(Report(step=step, stage=Stage.DOING))
        if step.verb is Verb.REMOVE:
            verbs.agents.remove(name, actor)
            return
        if step.verb is Verb.CREATE:
            verbs.agents.deploy(self._specs[name], actor)
        elif step.verb in (Verb.UPDATE, Verb.REPLACE):
            verbs.updates.update(name, self._specs[name], actor, wait_s=self._wish.timeout_s)
        agent = verbs.fleet.find(name)
        if not self._wish.start or agent.is_idle:
            return
        if needs_start(agent):
            self._tell(Report(step=step, stage=Stage.STARTING))
            bring_up = verbs.agents.resume if agent.state is AgentState.PAUSED else verbs.agents.start
            bring_up(name, actor, wait_s=self._wish.timeout_s)
        elif not self._is_ready(agent, step):
            self._tell(Report(step=step, stage=Stage.STARTING))
            verbs.starting.when_ready(agent, self._wish.timeout_s)

    def _is_ready(self, agent: Agent, step: Step) -> bool:
        """Requests get through to an agent; where it was given more replicas, to all of them."""
        route = self._verbs.fleet.route(agent.id)
        serving = {target.number for target in route.serving} if route else set()
        is_other_number = any(change.needs is Need.REPLICAS for change in step.changes)
        return len(serving) >= (agent.spec.replicas if is_other_number else 1)

    def _tell(self, report: Report) -> None:
        self._reports.append(report)
        self._told.set()

    def _end(self, report: Report) -> None:
        route = self._verbs.fleet.routes.find(report.step.agent.encode())
        report = msgspec.structs.replace(report, agent_id=route.agent_id if route else "")
        self.results[report.step.agent] = report
        self._ends[report.step.agent].set(report)
        if len(self.results) == len(self.plan.steps):
            self._on_end()
            self._publish()
        self._tell(report)

    def _publish(self) -> None:
        counts: dict[str, float] = {}
        for report in self.results.values():
            word = report.step.verb.value if report.stage is Stage.DONE else report.stage.value
            counts[word] = counts.get(word, 0) + 1
        for deployment in self._wish.deployments:
            self._verbs.events.publish(Action.DEPLOY, agent_id="", agent="", message=deployment.name, **counts)


def _how(end: Report) -> str:
    """Return how a step ended that was not done, to be said after "which"."""
    if end.stage is Stage.FAILED:
        return "failed"
    return end.message.removeprefix("it ") if end.message.startswith(_DEPENDS) else "was skipped"
