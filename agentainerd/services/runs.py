"""Runs: accepted, put in order, watched, cancelled, kept for a while; what a daemon before this one left is settled."""

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import msgspec
from gevent.lock import RLock

from agentainerd import clock, defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound, TooManyRequests, Unavailable
from agentainerd.model.bridges import Bridge
from agentainerd.model.interrupts import GivenAnswers, answers_to, spoken_to
from agentainerd.model.jobs import KIND
from agentainerd.model.media import parse_media
from agentainerd.model.runs import (
    CancelMode,
    OnBusy,
    Run,
    RunCode,
    RunEvent,
    RunRequest,
    RunStatus,
    is_run_id,
    new_run_id,
)
from agentainerd.model.sessions import Session
from agentainerd.services import run_pauses
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.run_executions import Execution
from agentainerd.services.run_forgetting import forget
from agentainerd.services.run_logs import RunLog, follow
from agentainerd.services.run_means import Means
from agentainerd.store.connection import Argument
from agentainerd.store.runs import Kept, RunStore

log = logging.getLogger(__name__)

MAX_KEY_CHARS = 256
SWEEP = 200  # runs that are forgotten in one go


@dataclass(frozen=True, slots=True)
class Identity:
    """An idempotency key as it is kept, and the fingerprint of what was asked for with it; "" for none."""

    scope: str = ""
    fingerprint: str = ""


class RunService:
    """Every method may be called from any greenlet. `load` comes before all others, once."""

    def __init__(self, means: Means, audit: AuditService) -> None:
        self.sessions = means.sessions
        self.bridges = means.bridges
        self._store = means.store
        self._writer = means.writer
        self._means = means
        self._audit = audit
        self._active: dict[str, Execution] = {}
        self._turns: dict[str, deque[Execution]] = {}  # per session, in order; the first one is under way
        self._kept: deque[Kept] = deque()
        self._kept_bytes = 0
        means.sessions.on_deleted = self._forget
        self._keyed = RLock()
        self.is_closing = False
        """The daemon stops: connections end by that, and no run."""
        self.answer_timeout_s = defaults.RUN_ANSWER_TIMEOUT_S
        """How long a run may wait for an answer."""

    # ---- for clients

    def create(self, request: RunRequest, actor: Actor, *, key: str = "") -> Run:
        """Accept a run; it is on disk when this returns, and goes on by itself. The same `key` with the same request returns
        the run that it stands for.

        Raises:
            InvalidParameter. NotFound: the agent, or the session. Conflict: the session is busy (SESSION_BUSY), belongs to
            another agent (SESSION_OF_OTHER_AGENT), or the key stands for another request (IDEMPOTENCY_MISMATCH).
            TooManyRequests: MAX_ACTIVE_RUNS are under way. Unavailable: it was not accepted.
        """
        with self._audit.mutation(actor, "create_run", request.agent_id) as entry:
            run = self._create(request, key)
            entry.target = run.id
        return run

    def _create(self, request: RunRequest, key: str) -> Run:
        request.check()
        agent = self._means.fleet.find(request.agent_id)
        if request.session_id:
            session = self._means.sessions.get(request.session_id)
            request = msgspec.structs.replace(request, session_id=session.id)
            if session.agent_id not in (agent.id, agent.name):
                raise Conflict(
                    f"session {session.id} belongs to agent '{session.agent_id}', not to '{agent.name}'",
                    code="SESSION_OF_OTHER_AGENT",
                    hint="begin a session with this agent, or bind that one to it",
                )
        return self.once(key, agent.id, request, lambda identity: self._accept(request, agent.id, agent.name, identity))

    def once(self, key: str, scope: str, request: msgspec.Struct, accept: Callable[[Identity], Run]) -> Run:
        """Return the run that `accept` makes, or the one that it made for the same key; a key counts within its scope.

        Raises:
            InvalidParameter: not a key. Conflict: it stands for another request (IDEMPOTENCY_MISMATCH). Unavailable.
        """
        if not key:
            return accept(Identity())
        if len(key) > MAX_KEY_CHARS:
            raise InvalidParameter("Idempotency-Key", f"is longer than {MAX_KEY_CHARS} characters")
        scope = hashlib.sha256(f"{scope}\n{key}".encode()).hexdigest()
        fingerprint = hashlib.sha256(msgspec.json.encode(request)).hexdigest()
        with self._keyed:
            run_id, known = self._store.of_key(scope)
            if run_id and known != fingerprint:
                raise Conflict(
                    f"the key was used for another request, which is run {run_id}", code="IDEMPOTENCY_MISMATCH"
                )
            if run_id:
                try:
                    return self.get(run_id)
                except NotFound:
                    log.info("the run of an idempotency key is not kept any more", extra={"run_id": run_id})
            return accept(Identity(scope, fingerprint))

    def get(self, run_id: str) -> Run:
        """Return a run as it is now, by its id or the beginning of it. Raises NotFound, Conflict (several begin so)."""
        if not is_run_id(run_id):
            run_id = self._store.complete(run_id)
        if execution := self._active.get(run_id):
            return msgspec.structs.replace(execution.run, last_seq=execution.log.stored_seq)
        return self._store.get(run_id)

    def page(
        self, *, agent: str = "", session_id: str = "", status: RunStatus | None = None, limit: int, cursor: str = ""
    ) -> tuple[list[Run], str]:
        """Return one page, newest first, and the cursor of the next one ("" at the end); `agent` is an id or a name.

        Raises:
            NotFound: no such agent. InvalidParameter: not a cursor of ours. Unavailable.
        """
        agent_id = self._means.fleet.find(agent).id if agent else ""
        found, following = self._store.page(
            agent_id=agent_id,
            session_id=session_id and self._means.sessions.resolve(session_id),
            status=status,
            limit=limit,
            cursor=cursor,
        )
        return [self._active[run.id].run if run.id in self._active else run for run in found], following

    def events(self, run_id: str, after: int, limit: int) -> list[RunEvent]:
        """Return up to `limit` events after number `after`. Raises NotFound, Unavailable."""
        return self._store.events(self.get(run_id).id, after, limit)

    def follow(self, run_id: str, after: int = 0) -> Iterator[RunEvent | None]:
        """Return the events after number `after`, and those that come, to the last; None is "still here".

        Raises:
            NotFound, Unavailable: before the first event; Unavailable also later.
        """
        run_id = self.get(run_id).id
        return follow(self._store, run_id, max(0, after), lambda: self._log_of(run_id))

    def wait(self, run_id: str, timeout_s: float, *, is_over: bool = False) -> Run:
        """Block until a run is over, or, unless `is_over`, waits for an answer, at most so long; return it as it is then.

        Raises:
            NotFound, Unavailable.
        """
        run_id = self.get(run_id).id
        if execution := self._active.get(run_id):
            (execution.ended if is_over else execution.settled).wait(timeout_s)
        return self.get(run_id)

    def cancel(self, run_id: str, actor: Actor, mode: CancelMode = CancelMode.INTERRUPT) -> tuple[Run, bool]:
        """Have a run end; return it, and whether this did it: one that is over stays as it is. Does not wait for the end.

        Raises:
            NotFound, Unavailable.
        """
        with self._audit.mutation(actor, "cancel_run", run_id) as entry:
            run = self.get(run_id)
            entry.target = run_id = run.id
            execution = self._active.get(run_id)
            if execution is None or run.status.is_final:
                return run, False
            is_first = execution.stop(RunCode.CANCELLED, f"it was cancelled by {actor.name}", mode)
        return self.get(run_id), is_first

    def cancel_all(
        self,
        actor: Actor,
        *,
        agent: str = "",
        session_id: str = "",
        status: RunStatus | None = None,
        mode: CancelMode = CancelMode.INTERRUPT,
    ) -> list[Run]:
        """Have all runs end that are not over and match, the oldest first; return those that this did it to.

        Raises:
            InvalidParameter: nothing is said that they must match. NotFound: the agent, or the session. Unavailable.
        """
        with self._audit.mutation(actor, "cancel_runs", agent or session_id or status or ""):
            if not (agent or session_id or status):
                raise InvalidParameter(
                    "agent_id", "at least one of agent_id, session_id and status is required", hint="status: running"
                )
            agent_id = self._means.fleet.find(agent).id if agent else ""
            session_id = session_id and self._means.sessions.get(session_id).id
            found = [
                execution.run
                for execution in self._active.values()
                if (not agent_id or execution.run.agent_id == agent_id)
                and (not session_id or execution.run.session_id == session_id)
                and (not status or execution.run.status is status)
            ]
        ended = (self.cancel(run.id, actor, mode) for run in sorted(found, key=lambda run: run.created_at))
        return [run for run, is_first in ended if is_first]

    def answer(self, run_id: str, given: GivenAnswers | str, actor: Actor) -> Run:
        """Have a run that waits go on with an answer to each of its interrupts: a text is something said in a conversation
        (`spoken_to`). The same answers once more change nothing.

        Raises:
            NotFound. InvalidParameter: they are not what is asked for. Conflict: it does not wait (RUN_NOT_WAITING).
            Unavailable: they were not taken.
        """
        with self._audit.mutation(actor, "answer_run", run_id) as entry:
            run = self.get(run_id)
            entry.target = run_id = run.id
            if run.status is not RunStatus.INPUT_REQUIRED and not run.answers:
                raise _not_waiting(run)
            asked = run.interrupts
            try:
                answers = spoken_to(asked, given) if isinstance(given, str) else answers_to(asked, given)
            except InvalidParameter:
                if run.status is RunStatus.INPUT_REQUIRED:
                    raise
                raise _not_waiting(run) from None
            execution = self._active.get(run.id)
            is_taken = execution is not None and run_pauses.answer(execution, self._means, answers)
            if not is_taken and self.get(run_id).answers != answers:
                raise _not_waiting(self.get(run_id))
            return self.get(run_id)

    def abandon(self, run_id: str) -> None:
        """The client that started a run with `on_disconnect: cancel` went away; nothing happens where the daemon left it."""
        if (execution := self._active.get(run_id)) and not self.is_closing:
            execution.stop(RunCode.CANCELLED, "its client went away")

    def active(self, agent_id: str) -> list[Run]:
        """Return the runs of an agent that are not over."""
        return [execution.run for execution in self._active.values() if execution.run.agent_id == agent_id]

    # ---- for jobs

    def accept(self, execution: Execution, operations: Sequence[Argument], undo: Sequence[Argument]) -> None:
        """Write a new run that is more than a run, and have it go; `undo` takes what is more away again.

        Raises:
            Unavailable: it was not accepted, and nothing is there of it.
        """
        is_lined_up = self._enlist(execution)
        self._begin(execution, operations, undo)
        self._means.spawn(f"run {execution.run.id}", self._go, execution, is_lined_up)

    def take_over(self, execution: Execution) -> None:
        """Have a run go on that a daemon before this one left."""
        self._means.spawn(f"run {execution.run.id}", self._go, execution, self._enlist(execution))

    def line(self, session_id: str) -> list[Run]:
        """Return the runs of a session that are under way, or wait for their turn, in that order; memory only."""
        return [execution.run for execution in self._turns.get(session_id, ())]

    # ---- for the daemon

    def load(self) -> int:
        """Take over what another daemon left: what was not sent goes on, what can be joined again too, the rest has failed.

        Returns how many there were.

        Raises:
            Unavailable.
        """
        self._kept = deque(self._store.kept())
        self._kept_bytes = sum(kept.bytes for kept in self._kept)
        runs = [run for run in self._store.active() if run.kind != KIND]
        for run in runs:
            last, source_seq = self._store.last_event(run.id)
            run_log = RunLog(run.id, self._writer, last_seq=last.seq if last else 0, source_seq=source_seq)
            execution = Execution(run, run_log, self._means, self._is_alone)
            is_lined_up = self._enlist(execution)
            if run.status is RunStatus.CANCELLING:
                execution.stop(RunCode.CANCELLED, "it was cancelled")
            elif run.is_given and not (run.bridge and Bridge(run.bridge).can_rejoin):
                execution.stop(RunCode.INTERRUPTED, "the daemon was restarted while it was under way")
            self._means.spawn(f"run {run.id}", self._go, execution, is_lined_up)
        if runs:
            log.info("runs taken over", extra={"runs": len(runs)})
        return len(runs)

    def sweep(self, now: float) -> int:
        """Forget ended runs that are too old, too many or too large in all; return how many. Raises Unavailable."""
        swept: list[Kept] = []
        while self._kept and len(swept) < SWEEP:
            first = self._kept[0]
            is_over = len(self._kept) > defaults.MAX_RUNS or self._kept_bytes > defaults.MAX_RUNS_BYTES
            if not is_over and first.finished_at > now - defaults.RUNS_KEEP_S:
                break
            swept.append(self._kept.popleft())
            self._kept_bytes -= first.bytes
        for run in self._store.some(kept.id for kept in swept):
            self._writer.write(RunStore.remove(run), insists=True)
        return len(swept)

    # ---- inside

    def _accept(self, request: RunRequest, agent_id: str, agent: str, identity: Identity) -> Run:
        if sum(execution.run.kind != KIND for execution in self._active.values()) >= defaults.MAX_ACTIVE_RUNS:
            raise TooManyRequests(
                f"{defaults.MAX_ACTIVE_RUNS} runs are under way or wait",
                code="TOO_MANY_RUNS",
                hint="agentainerctl runs list",
                retry_after_s=5,
            )
        busy = self._turns.get(request.session_id, ()) if request.session_id else ()
        if busy and request.on_busy is OnBusy.REJECT:
            raise Conflict(
                f"run {busy[0].run.id} is under way in session {request.session_id}",
                code="SESSION_BUSY",
                hint='wait for it, or send "on_busy": "queue" or "interrupt"',
            )
        now = clock.now()
        run = Run(
            id=new_run_id(), agent_id=agent_id, agent=agent, input=request.input, created_at=now,
            starts_at=now + request.after_seconds if request.after_seconds else 0.0,
            session_id=request.session_id, media=[msgspec.to_builtins(one) for one in parse_media(request.media)],
            model=request.model, limits=request.limits, on_disconnect=request.on_disconnect, key=identity.scope,
        )  # fmt: skip
        execution = Execution(run, RunLog(run.id, self._writer), self._means, self._is_alone)
        before = tuple(busy)
        is_lined_up = self._enlist(execution)
        self._begin(execution, RunStore.begin(run, identity.scope, identity.fingerprint))
        if request.on_busy is OnBusy.INTERRUPT:
            for other in before:
                other.stop(RunCode.CANCELLED, f"run {run.id} took its place in the session")
        self._means.spawn(f"run {run.id}", self._go, execution, is_lined_up)
        return run

    def _begin(self, execution: Execution, operations: Sequence[Argument], undo: Sequence[Argument] = ()) -> None:
        """Write a new run; one that was refused is not there later either."""
        write = self._writer.write(operations)
        try:
            if write.wait(defaults.JOURNAL_WAIT_S):
                return
            raise Unavailable(
                "the run was not accepted: Redis does not answer",
                code="REDIS_UNAVAILABLE",
                hint="try it again: agentainerctl doctor says what is wrong",
                retry_after_s=2,
            )
        except BaseException:
            self._delist(execution)
            if not self._writer.withdraw(write):
                self._writer.write([*RunStore.remove(execution.run), *undo], insists=True)
            raise

    def _enlist(self, execution: Execution) -> bool:
        """Count it as under way; return whether it is in the line of its session: one that is to begin later is not yet."""
        self._active[execution.run.id] = execution
        is_due = execution.run.starts_at <= clock.now()
        if is_due:
            self._line_up(execution)
        return is_due

    def _line_up(self, execution: Execution) -> None:
        session_id = execution.run.session_id
        line = self._turns.setdefault(session_id, deque()) if session_id else deque()
        line.append(execution)
        if line[0] is execution and execution.run.kind != KIND:
            execution.begin()

    def _delist(self, execution: Execution) -> None:
        self._active.pop(execution.run.id, None)
        for session_id, line in list(self._turns.items()):
            if execution in line:
                is_first = line[0] is execution
                line.remove(execution)
                if not line:
                    del self._turns[session_id]
                elif is_first:
                    line[0].begin()

    def _go(self, execution: Execution, is_lined_up: bool) -> None:
        try:
            if not is_lined_up:
                execution.await_start()
                self._line_up(execution)
            execution.go()
        finally:
            self._delist(execution)
            run = execution.run
            if run.status.is_final and run.kind != KIND:
                self._kept.append(Kept(run.id, run.finished_at, run.bytes))
                self._kept_bytes += run.bytes

    def _forget(self, session: Session) -> None:
        """Have the agent of a session forget it too; where a run of it is under way, that does so at its end."""
        if session.run_count and session.id not in self._turns:
            self._means.spawn(f"forget {session.id}", forget, self._means, session.agent_id, session.id)

    def _is_alone(self, execution: Execution) -> bool:
        """Whether no other run is under way at the same container."""
        run = execution.run
        return not any(
            (other.run.agent_id, other.run.replica) == (run.agent_id, run.replica)
            for other in self._active.values()
            if other is not execution and other.run.is_given
        )

    def _log_of(self, run_id: str) -> RunLog | None:
        execution = self._active.get(run_id)
        return execution.log if execution else None


def _not_waiting(run: Run) -> Conflict:
    return Conflict(
        f"run {run.id} does not wait for an answer: it is {run.status.value}",
        code="RUN_NOT_WAITING",
        hint=f"see what became of it: agentainerctl runs show {run.id}",
    )
