"""One job under way: a run that gets a container of its own first, and once more where that is lost under it (decision 0018)."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from agentainerd import defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, NotFound
from agentainerd.model.agui import EventType
from agentainerd.model.bridges import Bridge
from agentainerd.model.event_sequences import SequenceChecker
from agentainerd.model.jobs import Job
from agentainerd.model.narration import encode
from agentainerd.model.run_results import JOB_ATTEMPT
from agentainerd.model.runs import CancelMode, Run, RunCode, RunStatus
from agentainerd.services.agent_calls import CallBroken, CallTimedOut
from agentainerd.services.agents import new_agent_id
from agentainerd.services.job_links import EntrypointLink
from agentainerd.services.job_pool import JobPool
from agentainerd.services.job_sandboxes import Sandboxes, is_passing
from agentainerd.services.run_ends import LOST, Last, ours
from agentainerd.services.run_executions import Execution
from agentainerd.services.run_logs import PAGE, RunLog
from agentainerd.services.run_means import Means
from agentainerd.store.connection import Argument
from agentainerd.store.jobs import JobStore

log = logging.getLogger(__name__)

PAUSE_S = 0.5  # between two tries while the engine is away
SIGNALLED = (137, 143)
ENGINE_WAIT_S = 60.0
ENGINE_END_S = 2.0  # an engine that ends ends its containers first, and answers for so long
_TRIED_AGAIN = (RunCode.CONTAINER_LOST, RunCode.INTERRUPTED)


class JobExecution(Execution):
    """See Execution. The queue calls `begin`; `over` is called when the end is on disk, or never will be.

    Attributes:
        job: as it is now.
    """

    def __init__(
        self,
        job: Job,
        run: Run,
        run_log: RunLog,
        means: Means,
        *,
        sandboxes: Sandboxes,
        pool: JobPool,
        engine: Engine,
        over: Callable[["JobExecution"], object],
    ) -> None:
        super().__init__(run, run_log, replace(means, restart=lambda agent_id, number: self._halt()))
        self.job = job
        self._sandboxes = sandboxes
        self._pool = pool
        self._engine = engine
        self._over = over
        self._was_away = False
        self._grace_s = defaults.JOB_GRACE_S

    def stop(self, code: RunCode, message: str, mode: CancelMode = CancelMode.INTERRUPT) -> bool:
        """See Execution."""
        if mode is CancelMode.KILL:
            self._grace_s = 0.0
        return super().stop(code, message, mode)

    def go(self) -> None:
        """See Execution."""
        agent_id = ""
        try:
            super().go()
            agent_id, self.job = self.job.agent_id, msgspec.structs.replace(self.job, agent_id="", agent="")
        finally:
            self._over(self)
        if agent_id and self.run.status.is_final:
            self._discard(agent_id)

    # ---- to its end

    def _work(self) -> Last:
        self._recall()
        self._await_turn()
        if self.run.started_at and self.bridge is Bridge.EXEC and self._stop is None:
            self._take_back()
        while True:
            last = self._attempt_once()
            is_last = self._stop is not None or self.run.attempt >= defaults.JOB_ATTEMPTS
            if is_last or _code(last) not in _TRIED_AGAIN:
                return last
            self._begin_again(last)

    def _attempt_once(self) -> Last:
        try:
            if not self.run.started_at:
                self._prepare()
            return self._watch() if self.bridge is Bridge.EXEC else self._carry_out()
        except NotFound as error:
            if error.noun not in ("agent", "container"):
                raise
            return ours(*LOST)

    def _prepare(self) -> None:
        """Get a container of its own; while engine or Redis are away, the job waits."""
        told = ""
        while True:
            self.check()
            try:
                self._make()
            except AgentainerError as error:
                if not is_passing(error):
                    self._note(exit_code=_exit_code(error))
                    raise
                if error.code != told:
                    log.warning("a job waits for its container: %s", error, extra={"job_id": self.job.id})
                    told = error.code
                if self.run.started_at:
                    self.change(started_at=0.0, attempt=self.run.attempt - 1)
                self._pause()
            else:
                return

    def _make(self) -> None:
        self.ends_at = time.monotonic() + defaults.MAX_RUN_WALL_S
        if self.job.agent_id:
            self._sandboxes.discard(self.job.agent_id)
        if agent := self._pool.take(self.job, self.run):
            self._note(agent_id=agent.id, agent=agent.name)
            self.change(agent_id=agent.id, agent=agent.name, status=RunStatus.STARTING)
            return
        bridge = self._sandboxes.bridge(self.job)
        self._note(agent_id=new_agent_id(), agent="")  # before it is there: whoever comes after us finds it
        agent = self._sandboxes.make(self.job, self.run, bridge)
        self._note(agent=agent.name)
        self.change(agent_id=agent.id, agent=agent.name, status=RunStatus.STARTING)
        if bridge is Bridge.EXEC:
            self.bridge = bridge
            self._started(bridge, agent.replicas[0].number)
        self._sandboxes.start(self.job)

    def _take_back(self) -> None:
        """A start that was written down, and that a daemon before this one did not come to, has not been."""
        while True:
            try:
                has_run = self._sandboxes.has_run(self.job)
            except AgentainerError:
                self._pause()
                self.check()
                continue
            if not has_run:
                self.change(started_at=0.0, attempt=self.run.attempt - 1)
            return

    def _begin_again(self, last: Last) -> None:
        """Let go of a container that is lost, and forget what came of it but for what was told."""
        reason = msgspec.json.decode(last.payload)["message"]
        log.warning("a job is run again: %s", reason, extra={"job_id": self.job.id})
        self._leave(0.0)
        for event in self._left_open():
            self.log.append(event["type"], msgspec.json.encode(event), synthetic=True)
        if not self.log.last_seq:
            self._first()
        told = {"attempt": self.run.attempt + 1, "reason": reason}
        payload = encode(EventType.CUSTOM, name=JOB_ATTEMPT, value=told)
        self.log.append(EventType.CUSTOM, payload, synthetic=True)
        self.result.take(msgspec.json.decode(payload))
        self._discard(self.job.agent_id)
        self.bridge = None
        self.joined_at = 0
        self._note(agent_id="", agent="")
        self.change(started_at=0.0, status=RunStatus.STARTING, bridge="", replica=0)

    def _left_open(self) -> list[dict[str, Any]]:
        """Return the events that end what the log has open."""
        checker, after = SequenceChecker(), 0
        self.log.wait(defaults.JOURNAL_WAIT_S, self.log.last_seq - 1)
        while page := self._means.store.events(self.run.id, after, PAGE):
            for event in page:
                checker.feed(msgspec.json.decode(event.payload))
            after = page[-1].seq
        return checker.closing()

    # ---- a container whose own program is the job

    def _watch(self) -> Last:
        while True:
            link = EntrypointLink(
                self._engine,
                lambda: self._sandboxes.container(self.job),
                self.run,
                lambda: self._sandboxes.halt(self.job, self._grace_s),
                after=self.log.source_seq,
                is_speaking=bool(self.result.output),
                spawn=self._means.spawn,
            )
            try:
                last = self._converse(link, None)
            except CallTimedOut as error:
                self._sandboxes.halt(self.job, self._grace_s)
                return self._timed_out(error)
            except CallBroken:
                if over := self._after_break():
                    return over
                continue
            if self._stop is None and link.exit_code in SIGNALLED and not link.oom_killed and self._is_taken_away():
                return ours(*LOST)
            self._note(exit_code=link.exit_code)
            self.check()  # one that was told to end was ended, whatever it says
            return last

    def _after_break(self) -> Last | None:
        """The engine told no more of the container: return how the job ends by that; None: there may be more to read."""
        while True:
            self._pause()
            self.check()
            if time.monotonic() >= self.ends_at:
                return ours(self.late(), RunCode.TIMEOUT)
            try:
                container = self._sandboxes.container(self.job)
            except NotFound:
                return ours(*LOST)
            except AgentainerError:
                self._was_away = True
                continue
            return ours(*LOST) if self._was_away and not container.is_alive else None

    def _is_taken_away(self) -> bool:
        """Whether an end by a signal was that of the engine, which ends containers first, or of one that is being removed."""
        end = time.monotonic() + ENGINE_END_S
        while time.monotonic() < end and self._stop is None:
            try:
                self._sandboxes.container(self.job)
            except AgentainerError:
                return True
            self._pause()
        return False

    # ---- the end

    def _finish(self, last: Last) -> None:
        self._leave(self._grace_s if last.is_ours else 0.0)
        super()._finish(last)

    def _also_ended(self) -> list[Argument]:
        return JobStore.put(msgspec.structs.replace(self.job, agent_id="", agent=""))

    def _leave(self, grace_s: float) -> None:
        """Have all that runs in the container end, and keep what it wrote: nothing changes any more.

        An engine that is away is waited for, if not for ever: what it stopped has its output yet.
        """
        end = time.monotonic() + ENGINE_WAIT_S
        while self.job.agent_id:
            self._sandboxes.halt(self.job, grace_s)
            try:
                self._sandboxes.keep_logs(self.job, max(1, self.run.attempt))
            except AgentainerError as error:
                if is_passing(error) and time.monotonic() < end:
                    self._pause()
                    continue
                log.warning("the output of a job could not be kept: %s", error, extra={"job_id": self.job.id})
            return

    def _halt(self) -> None:
        if self.job.agent_id:
            self._sandboxes.halt(self.job, 0)

    def _discard(self, agent_id: str) -> None:
        try:
            self._sandboxes.discard(agent_id)
        except AgentainerError as error:
            log.warning("the container of a job is removed later: %s", error, extra={"job_id": self.job.id})

    def _note(self, **changes: object) -> None:
        """Change what is kept of the job; it is written soon, before what is done after it is told to anybody."""
        self.job = msgspec.structs.replace(self.job, **changes)
        self._means.writer.write(JobStore.put(self.job), insists=True).wait()

    def _pause(self) -> None:
        self.wanted.clear()
        self.wanted.wait(PAUSE_S)


def _code(last: Last) -> str:
    return str(msgspec.json.decode(last.payload).get("code", "")) if last.is_ours else ""


def _exit_code(error: AgentainerError) -> int | None:
    code = error.details.get("exit_code")
    return code if isinstance(code, int) else None
