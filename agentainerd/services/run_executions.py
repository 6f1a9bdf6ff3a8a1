"""One run from its turn to its end, in a greenlet that belongs to no client (decision 0014).

Whatever happens, it ends with one last event, which is written together with the run's last state.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
import msgspec
from gevent.event import Event

from agentainerd import clock, defaults
from agentainerd.errors import AgentainerError, NotFound, Unavailable
from agentainerd.model.agui import TERMINAL, EventType, is_cancelled
from agentainerd.model.bridges import Bridge
from agentainerd.model.narration import failed, started
from agentainerd.model.replicas import Replica
from agentainerd.model.run_results import RunResult
from agentainerd.model.runs import CancelMode, Run, RunCode, RunError, RunStatus, Usage
from agentainerd.model.sessions import Message
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.services import run_stops
from agentainerd.services.agent_calls import CallBroken, CallTimedOut
from agentainerd.services.run_links import Link, RunRefused, Sent, Task, ask_to_cancel
from agentainerd.services.run_logs import RunLog
from agentainerd.services.run_means import Means
from agentainerd.store.connection import Argument
from agentainerd.store.runs import RunStore

log = logging.getLogger(__name__)

MAX_MESSAGE_CHARS = 2000
NOTED_S = 5.0  # for the end of a container to be written down, once the engine tells of it
_MAY_COST = (EventType.STEP_FINISHED, EventType.TOOL_CALL_START, EventType.TOOL_CALL_RESULT)
"""Events behind which a call to a model may lie."""
_NO_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")
_OUT_OF_MEMORY = ("its container had more memory than its limit allows", RunCode.OOM)
_LOST = ("its container ended while it worked", RunCode.CONTAINER_LOST)


class _Gone(Exception):
    """The container that has the run is gone for good, or for too long; `last` is how the run ends by that."""

    def __init__(self, why: tuple[str, RunCode]) -> None:
        super().__init__(why[0])
        self.last = _ours(*why)


class _Stopped(Exception):
    """The run is to end for a reason of ours: it was cancelled, or reached a limit."""


@dataclass(frozen=True, slots=True)
class _Stop:
    code: RunCode
    message: str


class Execution:
    """One run under way. `go` is the greenlet; `begin` and `stop` are for others, and do not block.

    Attributes:
        run: as it is now. log: its events. ended: set when its end is on disk.
        bridge, target, link: how and where it was given to its agent, None before; `link` while it is spoken with.
    """

    def __init__(
        self, run: Run, run_log: RunLog, means: Means, is_alone: Callable[["Execution"], bool] = lambda execution: True
    ) -> None:
        self.run = run
        self.log = run_log
        self.ended = Event()
        self._means = means
        self.is_alone = is_alone
        self._is_turn = False
        self._wanted = Event()
        self._stop: _Stop | None = None
        self.link: Link | None = None
        self.target: Target | None = None
        self.bridge: Bridge | None = Bridge(run.bridge) if run.bridge else None
        self._result = RunResult()
        self._joined_at = 0  # how far it was when its connection was lost the last time
        began_s = clock.now() - run.started_at if run.started_at else 0.0  # ago: under a daemon before this one
        self._wall_s = run.limits.wall_s or defaults.RUN_WALL_S
        self._ends_at = time.monotonic() + (self._wall_s - began_s if run.started_at else defaults.MAX_RUN_WALL_S)

    def begin(self) -> None:
        """It is this run's turn in its session."""
        self._is_turn = True
        self._wanted.set()

    def stop(self, code: RunCode, message: str, mode: CancelMode = CancelMode.INTERRUPT) -> bool:
        """Have it end for this reason; return False where it was told to end before."""
        if self._stop is not None and mode is CancelMode.INTERRUPT:
            return False
        is_first, self._stop = self._stop is None, self._stop or _Stop(code, message)
        self._wanted.set()
        if is_first and not self.run.status.is_final:
            self._set(status=RunStatus.CANCELLING)
        self._means.spawn(f"stop run {self.run.id}", run_stops.insist, self, self._means, mode)
        return is_first

    def go(self) -> None:
        """Run to the end. Raises nothing but what kills a greenlet."""
        try:
            self._finish(self._conclusion())
        except Unavailable as error:
            log.warning("a run could not be written down: %s", error, extra={"run_id": self.run.id})
        finally:
            self.ended.set()

    # ---- from the beginning to the last event

    def _conclusion(self) -> "_Last":
        """Return the last event, the agent's or one of ours."""
        try:
            return self._work()
        except _Stopped:
            assert self._stop is not None
            return _ours(self._stop.message, self._stop.code)
        except RunRefused as error:
            return _ours(error.reason, RunCode.ERROR)
        except NotFound:
            return _ours(f"agent '{self.run.agent}' was removed", RunCode.AGENT_REMOVED)
        except AgentainerError as error:
            if error.code == "JOURNAL_FENCED":
                raise
            return _ours(error.message, RunCode.AGENT_UNAVAILABLE)
        except Exception as exc:
            log.error("internal error in run %s", self.run.id, exc_info=exc)
            return _ours("internal error: the daemon's log has more", RunCode.ERROR)

    def _work(self) -> "_Last":
        for payload in self.log.recall(self._means.store):
            self._result.take(msgspec.json.decode(payload))
        if self.run.started_at and self._stop is not None:
            self._sweep()
        self._await_turn()
        task = self._task()
        broken: _Last | None = None
        silent = 0
        while silent <= defaults.RUN_REJOINS:
            try:
                route, target = self._ready()
            except NotFound:
                raise  # the agent was removed, which is why its answer broke off
            except _Gone as error:
                return error.last
            except AgentainerError:
                if broken is None:
                    raise
                return broken  # what happened to it says more than that it did not come back
            before = self.log.source_seq
            broken, goes_on = self._attempt(route, target, task)
            if not goes_on:
                return broken
            self._check()
            silent = 0 if self.log.source_seq > before else silent + 1
        assert broken is not None
        return broken

    def _sweep(self) -> None:
        """Have the agent end what a daemon before this one gave it, and what is not gone on with."""
        route = self._means.fleet.route(self.run.agent_id)
        if route is None or route.wait_open(NOTED_S) is not Gate.OPEN:
            return  # its container does not run, and so nothing in it
        target = self._chosen(route)
        if target is not None and self.bridge is Bridge.NATIVE:
            ask_to_cancel(target, self.run.id, run_stops.CANCEL_TIMEOUT_S)
        elif target is not None and self.bridge is not None and self.bridge.is_command:
            self._means.bridges.sweep(target, self.run.id)

    def _await_turn(self) -> None:
        while not self._is_turn:
            self._wanted.wait()
            self._wanted.clear()
            self._check()

    def _attempt(self, route: Route, target: Target, task: Task) -> "tuple[_Last, bool]":
        """Send the run, or join it again where it was; return the end that came of it, and whether it may yet go on."""
        bridge = self.bridge = self.bridge or self._means.bridges.of(route.agent_id, target)
        is_known = bool(self.run.started_at)
        if not is_known:
            self._started(bridge, target)
        try:
            after = self.log.source_seq if is_known else 0
            return self._converse(self._means.bridges.link(bridge, target, task, after=after), target), False
        except CallTimedOut as error:
            return self._timed_out(error), False
        except CallBroken as error:
            self._check()
            if not error.is_sent and not is_known:
                self._set(started_at=0.0)
            return self._broken(route, target, bridge, error)
        except RunRefused as error:
            if is_known and error.status == 404:
                return _ours(*_LOST), False  # the container that is there now knows nothing of it
            raise

    def _ready(self) -> tuple[Route, Target]:
        """Wait until the agent takes requests."""
        end = time.monotonic() + defaults.RUN_READY_TIMEOUT_S
        while True:
            self._check()
            route = self._means.fleet.route(self.run.agent_id)
            if route is None:
                raise NotFound("agent", self.run.agent)
            if route.gate is not Gate.OPEN and self.run.status is RunStatus.QUEUED:
                self._set(status=RunStatus.STARTING)
            left_s = min(end, self._ends_at) - time.monotonic()
            is_open = route.wait_open(min(1.0, max(0.0, left_s)), even_closed=True) is Gate.OPEN
            if is_open and (target := self._chosen(route)):
                return route, target
            if self.run.started_at and not is_open:
                self._check_return()
            if is_open:  # others of its containers are there, and not the one that has it
                gevent.sleep(defaults.READY_PROBE_INTERVAL_S)
            if self.run.started_at and time.monotonic() >= self._ends_at:
                raise _Gone((self._late(), RunCode.TIMEOUT))
            if left_s <= 0:
                raise Unavailable(
                    f"agent '{self.run.agent}' was not ready within {defaults.RUN_READY_TIMEOUT_S:g} s",
                    code="AGENT_NOT_READY",
                )

    def _check_return(self) -> None:
        """Raise _Gone where the container that has the run was stopped, or ended, and will not be started by itself."""
        agent = self._means.fleet.find(self.run.agent_id)
        replica = next((one for one in agent.replicas if one.number == self.run.replica), None)
        if replica is not None and (replica.is_expected or replica.is_alive):
            return
        if replica is not None and replica.last_exit is not None and replica.last_exit.oom_killed:
            raise _Gone(_OUT_OF_MEMORY)
        why = f" ({replica.reason})" if replica is not None and replica.reason else ""
        raise _Gone((f"agent '{self.run.agent}' was stopped while it worked{why}", RunCode.CONTAINER_LOST))

    def _chosen(self, route: Route) -> Target | None:
        """Return the container that has the run, or any where none has."""
        if not (self.run.started_at and self.run.replica):
            return route.pick()
        return next((target for target in route.serving if target.number == self.run.replica), None)

    def _task(self) -> Task:
        messages: list[Message] = []
        state: dict[str, Any] = {}
        if self.run.session_id:
            try:
                state = self._means.sessions.get(self.run.session_id).state
                messages = self._means.sessions.conversation(self.run.session_id)
            except NotFound:
                self._set(session_id="")  # it was deleted meanwhile: the run stands alone
        return Task(self.run, [*messages, self._question()], state)

    def _question(self) -> Message:
        """Return the input, always by the same id: an agent that keeps the conversation too is to know it again."""
        return Message(
            id=f"msg-{self.run.id}", role="user", content=self.run.input, run_id=self.run.id, at=self.run.created_at
        )

    def _started(self, bridge: Bridge, target: Target) -> None:
        """Write down that it is sent, before it is: whoever comes after us does not send it again."""
        now = clock.now()
        self._ends_at = time.monotonic() + self._wall_s
        self.run = msgspec.structs.replace(
            self.run, status=RunStatus.RUNNING, started_at=now, attempt=self.run.attempt + 1, bridge=bridge.value,
            replica=target.number,
        )  # fmt: skip
        self._means.writer.write(RunStore.put(self.run), insists=True).wait()

    def _converse(self, opened: Link, target: Target) -> "_Last":
        """Take events until the last one, which is returned."""
        self.link, self.target = opened, target
        try:
            self._check()
            for sent in opened.events(self._wait_s):
                if sent.number and sent.number <= self.log.source_seq:
                    continue
                if self._take(sent):
                    return _Last(_on_one_line(sent.payload), is_ours=False)
                self._check_limits()
        finally:
            self.link = None
            opened.close()
        raise CallBroken("it ended without the run's last event", is_sent=True)

    def _take(self, sent: Sent) -> bool:
        """Store one event; return whether it is the last, which is stored with the end."""
        try:
            event = msgspec.json.decode(sent.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            event = None
        if not isinstance(event, dict) or not isinstance(event.get("type"), str):
            raise RunRefused(
                f"the agent sent what is no event of AG-UI: {sent.payload[:200].decode('utf-8', 'replace')}"
            )
        kind = event["type"]
        if not self.log.last_seq and kind != EventType.RUN_STARTED:
            self._first()
        self._result.take(event)
        if kind in TERMINAL:
            return True
        self.log.append(kind, _on_one_line(sent.payload), source_seq=sent.number)
        if kind in _MAY_COST and self._is_spent():
            self.stop(RunCode.COST_LIMIT, self._spent())
        return False

    def _first(self) -> None:
        self.log.append(EventType.RUN_STARTED, started(self.run.id, self.run.session_id or self.run.id), synthetic=True)

    def _is_spent(self) -> bool:
        """Whether what its calls to models cost, as far as they went through the daemon, is what it may cost."""
        limit = self.run.limits.cost_usd
        used = self._means.used(self.run.id) if limit is not None else None
        return limit is not None and used is not None and used.cost_usd is not None and used.cost_usd >= limit

    def _spent(self) -> str:
        return f"it cost what it may: ${self.run.limits.cost_usd:g}"

    def _check(self) -> None:
        if self._stop is not None:
            raise _Stopped

    def _check_limits(self) -> None:
        steps = self.run.limits.steps
        if steps is not None and self._result.steps > steps:
            self.stop(RunCode.STEP_LIMIT, f"it took more than {steps} steps")
        elif self.log.bytes > defaults.MAX_RUN_BYTES:
            self.stop(RunCode.ERROR, f"its events take more than {defaults.MAX_RUN_BYTES // 2**20} MiB")
            self._check()  # not one more, whatever the agent does

    def _wait_s(self) -> float:
        """How long the next piece of the answer may take."""
        route = self._means.fleet.route(self.run.agent_id)
        stall_s = route.request_timeout_s if route else defaults.REQUEST_TIMEOUT_S
        return max(0.001, min(stall_s, self._ends_at - time.monotonic()))

    def _late(self) -> str:
        return f"it was not done within {self._wall_s:g} s"

    def _timed_out(self, error: CallTimedOut) -> "_Last":
        self._check()
        is_late = time.monotonic() >= self._ends_at - 0.01
        message = self._late() if is_late else f"the agent said nothing more: {error.reason}"
        if self.bridge is Bridge.NATIVE and self.target is not None:
            ask_to_cancel(self.target, self.run.id, run_stops.CANCEL_TIMEOUT_S)
        if self.bridge in run_stops.PINGED and self.target is not None:
            self._means.spawn(f"stop run {self.run.id}", run_stops.see_idle, self, self._means, self.target)
        return _ours(message, RunCode.TIMEOUT)

    def _broken(self, route: Route, target: Target, bridge: Bridge, error: CallBroken) -> "tuple[_Last, bool]":
        """Return how the run ends by this, and whether it may yet go on."""
        is_native = bridge.can_rejoin
        if not error.is_sent:
            self._means.fleet.routes.on_suspect(route, target)
        elif is_native and self.log.source_seq > self._joined_at:
            self._joined_at = self.log.source_seq
            return _ours(f"the agent broke its answer off: {error.reason}", RunCode.ERROR), True
        if not (error.is_sent or (is_native and self.run.started_at)):
            return _ours(f"the agent can't be connected: {error.reason}", RunCode.AGENT_UNAVAILABLE), True
        if not self._means.dead_check(route, target):
            return _ours(f"the agent lives, and broke its answer off: {error.reason}", RunCode.ERROR), is_native
        replica = self._after_the_end_of(target)
        goes_on = is_native and replica is not None and replica.is_expected
        if replica is not None and replica.last_exit is not None and replica.last_exit.oom_killed:
            return _ours(*_OUT_OF_MEMORY), goes_on
        return _ours(*_LOST), goes_on

    def _after_the_end_of(self, target: Target) -> Replica | None:
        """Return the replica whose container ended, when that is written down; that takes a moment."""
        target.retired.wait(NOTED_S)
        if self._means.fleet.route(self.run.agent_id) is None:
            raise NotFound("agent", self.run.agent)
        with self._means.fleet.locked(
            self.run.agent_id
        ) as agent:  # whoever takes note of an end holds it until it is written
            return next((one for one in agent.replicas if one.number == target.number), None)

    # ---- the end

    def _set(self, **changes: Any) -> None:
        """Change the run; it is written soon."""
        self.run = msgspec.structs.replace(self.run, **changes)
        self._means.writer.write(RunStore.put(self.run), insists=True)

    def _used(self) -> Usage:
        """Return what the agent says that it used; where it says nothing, or no cost, what was counted of it."""
        told = self._result.usage
        if told.cost_usd is not None:
            return told
        counted = self._means.used(self.run.id)
        if counted is None or told == Usage():
            return counted or told
        return msgspec.structs.replace(told, cost_usd=counted.cost_usd, cost_source=counted.cost_source)

    def _finish(self, last: "_Last") -> None:
        """Write the last event, the run's last state, and the session's messages: all or nothing."""
        event: dict[str, Any] = msgspec.json.decode(last.payload)
        status, error = self._outcome(event)
        if error is not None and not last.is_ours and (event.get("code") or RunCode.ERROR) != error.code:
            last = _ours(error.message, RunCode(error.code))  # it says "cancelled", and the reason is a limit of ours
            event = msgspec.json.decode(last.payload)
        if last.is_ours:
            self._result.take(event)
        if not self.log.last_seq:
            self._first()
        final = (event["type"], last.payload, last.is_ours)
        usage = self._used()

        def ended() -> list[Argument]:
            run = msgspec.structs.replace(
                self.run, status=status, error=error, output=self._result.output, usage=usage,
                steps=self._result.steps, finished_at=clock.now(), last_seq=self.log.last_seq,
            )  # fmt: skip
            self.run = msgspec.structs.replace(run, bytes=self.log.bytes + len(msgspec.json.encode(run)))
            return RunStore.end(self.run)

        if not self.run.session_id:
            self.log.end([final], ended)
            return
        messages = [self._question(), *self._result.messages(self.run.id, clock.now())]
        try:
            with self._means.sessions.locked(self.run.session_id) as session:
                self.log.end(
                    [final],
                    lambda: [
                        *ended(),
                        *self._means.sessions.after_run(session, self.run, messages, self._result.state),
                    ],
                )
        except NotFound:
            self.log.end([final], ended)

    def _outcome(self, event: dict[str, Any]) -> tuple[RunStatus, RunError | None]:
        if event.get("type") == EventType.RUN_FINISHED and not is_cancelled(event):
            return RunStatus.COMPLETED, None
        if is_cancelled(event):
            event = {"code": RunCode.CANCELLED, "message": "the agent says that it was cancelled"}
        code, message = str(event.get("code") or RunCode.ERROR), str(event.get("message") or "the agent failed")
        if self._stop is not None:
            code, message = self._stop.code, self._stop.message
        elif code in (RunCode.ERROR, RunCode.MODEL_ERROR) and self._is_spent():
            code, message = (
                RunCode.COST_LIMIT,
                self._spent(),
            )  # it was refused a call, and knows no better word for that
        status = RunStatus.CANCELLED if code == RunCode.CANCELLED else RunStatus.FAILED
        return status, RunError(code, message[:MAX_MESSAGE_CHARS])


@dataclass(frozen=True, slots=True)
class _Last:
    """The event that a run ends with; `is_ours`: the daemon says it, not the agent."""

    payload: bytes
    is_ours: bool


def _on_one_line(payload: bytes) -> bytes:
    """Return JSON without line ends, which are white space there: it goes into one line of a stream."""
    return payload.translate(_NO_LINE_ENDS)


def _ours(message: str, code: RunCode) -> _Last:
    return _Last(failed(message, code), is_ours=True)
