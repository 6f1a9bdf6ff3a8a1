"""One run from its turn to its end, in a greenlet that belongs to no client (decision 0014).

Whatever happens, it ends with one last event, which is written together with the run's last state.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from gevent.event import Event

from agentainerd import clock, defaults
from agentainerd.errors import AgentainerError, NotFound, Unavailable
from agentainerd.model.agents import AgentState
from agentainerd.model.agui import TERMINAL, EventType
from agentainerd.model.bridges import Bridge
from agentainerd.model.interrupts import Answer, abandoned, is_interrupted
from agentainerd.model.narration import encode, started
from agentainerd.model.run_results import RunResult
from agentainerd.model.runs import CancelMode, Limits, Run, RunCode, RunStatus
from agentainerd.model.sessions import Message
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.services import run_costs, run_pauses, run_places, run_stops
from agentainerd.services.agent_calls import CallBroken, CallTimedOut
from agentainerd.services.run_ends import LOST, OUT_OF_MEMORY, Gone, Last, Stop, Stopped, on_one_line, ours, outcome
from agentainerd.services.run_forgetting import forget
from agentainerd.services.run_links import Link, RunRefused, Sent, Task, ask_to_cancel
from agentainerd.services.run_logs import RunLog
from agentainerd.services.run_means import Means
from agentainerd.store.connection import Argument
from agentainerd.store.runs import RunStore

log = logging.getLogger(__name__)

ANSWERED = "run.answered"  # the name of the CUSTOM event, which follows the agent's first; its value: {"resume": [...]}
_MAY_COST = (EventType.STEP_FINISHED, EventType.TOOL_CALL_START, EventType.TOOL_CALL_RESULT)
"""Events behind which a call to a model may lie."""
_RESUMED = (Bridge.NATIVE, Bridge.AGUI, Bridge.AGENTCORE)
"""Tiers that are given answers: RunAgentInput's `resume`."""


class Execution:
    """One run under way. `go` is the greenlet; `begin` and `stop` are for others, and do not block.

    Attributes:
        run: as it is now. log: its events. result: what they come to. ended: set when its end is on disk. settled: also while it
            waits for an answer. wanted: set when it is its turn, when it was answered, and when it is to end.
        bridge, target, link: how and where it was given to its agent, None before; `link` while it is spoken with.
        ends_at: when it may take no longer, in the time of time.monotonic(). has_begun: its agent sent something since it was
            given it, or answers. joined_at: how far it was when its connection was lost the last time.
        is_being_answered: somebody's answers are being written.
    """

    def __init__(
        self, run: Run, run_log: RunLog, means: Means, is_alone: Callable[["Execution"], bool] = lambda execution: True
    ) -> None:
        self.run = run
        self.log = run_log
        self.ended = Event()
        self.settled = Event()
        self._means = means
        self.is_alone = is_alone
        self._is_turn = False
        self.wanted = Event()
        self._stop: Stop | None = None
        self.link: Link | None = None
        self.target: Target | None = None
        self.bridge: Bridge | None = Bridge(run.bridge) if run.bridge else None
        self.result = RunResult()
        self.has_begun = False
        self.is_being_answered = False
        self.joined_at = 0
        self._wall_s = run.limits.wall_s or defaults.RUN_WALL_S
        self.ends_at = self.end_of_time()
        if run.status is RunStatus.INPUT_REQUIRED:
            run_log.paused_seq = run_log.last_seq
            self.settled.set()

    def begin(self) -> None:
        """It is this run's turn in its session."""
        self._is_turn = True
        self.wanted.set()

    def stop(self, code: RunCode, message: str, mode: CancelMode = CancelMode.INTERRUPT) -> bool:
        """Have it end for this reason; return False where it was told to end before."""
        if self._stop is not None and mode is CancelMode.INTERRUPT:
            return False
        is_first, self._stop = self._stop is None, self._stop or Stop(code, message)
        self.wanted.set()
        if is_first and not self.run.status.is_final:
            self.change(status=RunStatus.CANCELLING)
        self._means.spawn(f"stop run {self.run.id}", run_stops.insist, self, self._means, mode)
        return is_first

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for an answer, and nothing else ends it."""
        return self.run.status is RunStatus.INPUT_REQUIRED and self._stop is None

    def end_of_time(self) -> float:
        """Return what `ends_at` is by what is known now. While it waits for an answer only a limit of its own goes on."""
        if not self.run.started_at:
            return time.monotonic() + defaults.MAX_RUN_WALL_S
        waited_s = 0.0 if self.run.limits.wall_s else self.run.waited_s
        return time.monotonic() + self._wall_s - (clock.now() - self.run.started_at - waited_s)

    def go(self) -> None:
        """Run to the end. Raises nothing but what kills a greenlet."""
        try:
            self._finish(self._conclusion())
        except Unavailable as error:
            log.warning("a run could not be written down: %s", error, extra={"run_id": self.run.id})
        finally:
            self.ended.set()
            self.settled.set()

    def await_start(self) -> None:
        """Wait until it may begin, or is to end."""
        while self._stop is None and (left_s := self.run.starts_at - clock.now()) > 0:
            self.wanted.wait(min(left_s, run_pauses.LOOK_S))

    # ---- from the beginning to the last event

    def _conclusion(self) -> Last:
        """Return the last event, the agent's or one of ours."""
        try:
            return self._work()
        except Stopped:
            assert self._stop is not None
            return ours(self._stop.message, self._stop.code)
        except RunRefused as error:
            return ours(error.reason, RunCode.ERROR)
        except NotFound:
            return ours(f"agent '{self.run.agent}' was removed", RunCode.AGENT_REMOVED)
        except AgentainerError as error:
            if error.code == "JOURNAL_FENCED":
                raise
            return ours(error.message, RunCode.AGENT_UNAVAILABLE)
        except Exception as exc:
            log.error("internal error in run %s", self.run.id, exc_info=exc)
            return ours("internal error: the daemon's log has more", RunCode.ERROR)

    def _work(self) -> Last:
        self._recall()
        if self.run.is_given and self._stop is not None:
            self._sweep()
        self._await_turn()
        return self._carry_out()

    def _recall(self) -> None:
        for payload in self.log.recall(self._means.store):
            event = msgspec.json.decode(payload)
            self.result.take(event)
            self.has_begun = not is_interrupted(event)

    def _carry_out(self) -> Last:
        """Have the agent work on it until it is done, over as many answers as it asks for."""
        while True:
            if self.is_waiting and not run_pauses.await_answer(self, self._means):
                return ours("nobody answered what it asked for in time", RunCode.TIMEOUT)
            last = self._part()
            event = msgspec.json.decode(last.payload)
            if last.is_ours or not is_interrupted(event):
                return last
            self.check()
            run_pauses.pause(self, self._means, last.payload, event)

    def _part(self) -> Last:
        """Have the agent work on it until it is done, or asks for something; return the last event."""
        task = self._task()
        broken: Last | None = None
        silent = 0
        while silent <= defaults.RUN_REJOINS:
            try:
                route, target = run_places.ready(self, self._means)
            except NotFound:
                raise  # the agent was removed, which is why its answer broke off
            except Gone as error:
                return error.last
            except AgentainerError:
                if broken is None:
                    raise
                return broken  # what happened to it says more than that it did not come back
            before = self.log.source_seq
            broken, goes_on = self._attempt(route, target, task)
            if not goes_on:
                return broken
            self.check()
            silent = 0 if self.log.source_seq > before else silent + 1
        assert broken is not None
        return broken

    def _sweep(self) -> None:
        """Have the agent end what a daemon before this one gave it, and what is not gone on with."""
        route = self._means.fleet.route(self.run.agent_id)
        if route is None or route.wait_open(run_places.NOTED_S) is not Gate.OPEN:
            return  # its container does not run, and so nothing in it
        target = run_places.chosen(self.run, self._means, route)
        if target is not None and self.bridge is Bridge.NATIVE:
            ask_to_cancel(target, self.run.part_id, run_stops.CANCEL_TIMEOUT_S)
        elif target is not None and self.bridge is not None and self.bridge.is_command:
            self._means.bridges.sweep(target, self.run.id)

    def _await_turn(self) -> None:
        while not self._is_turn:
            self.wanted.wait()
            self.wanted.clear()
            self.check()

    def _attempt(self, route: Route, target: Target, task: Task) -> tuple[Last, bool]:
        """Send the run, or join it again where it was; return the end that came of it, and whether it may yet go on."""
        is_known = self.run.is_given
        bridge = self.bridge if is_known and self.bridge else self._means.bridges.of(route.agent_id, target)
        self.bridge = bridge
        if not is_known:
            self._started(bridge, target.number)
        try:
            after = self.log.source_seq if is_known else 0
            return self._converse(self._means.bridges.link(bridge, target, task, after=after), target), False
        except CallTimedOut as error:
            return self._timed_out(error), False
        except CallBroken as error:
            self.check()
            if not error.is_sent and not is_known:
                self.run = self.run.not_given()
                self.change()
            return self._broken(route, target, bridge, error)
        except RunRefused as error:
            if is_known and error.status == 404:
                return ours(*LOST), False  # the container that is there now knows nothing of it
            raise

    def _task(self) -> Task:
        messages: list[Message] = []
        state: dict[str, Any] = {}
        unanswered: Sequence[Answer] = ()
        if self.run.session_id:
            try:
                session = self._means.sessions.get(self.run.session_id)
                state, unanswered = session.state, abandoned(session.unanswered)
                messages = self._means.sessions.conversation(self.run.session_id)
            except NotFound:
                if not self.run.answered:
                    self.change(session_id="")  # it was deleted meanwhile: the run stands alone
        if self.run.answered:
            said = self.result.messages(self.run.id, clock.now(), is_over=False)
            state = state if self.result.state is None else self.result.state
            return Task(self.run, [*messages, self._question(), *said], state, self.run.answers, self._left())
        return Task(self.run, [*messages, self._question()], state, unanswered, self._left())

    def _left(self) -> Limits:
        """Return what is left of its limits, for an agent that counts anew when it goes on; at least a little of each."""
        limits = self.run.limits
        if not self.run.answered:
            return limits
        cost = self.result.usage.cost_usd or 0.0
        return Limits(
            steps=limits.steps and max(1, limits.steps - self.result.steps),
            wall_s=limits.wall_s and max(1.0, self.ends_at - time.monotonic()),
            cost_usd=limits.cost_usd and max(1e-6, limits.cost_usd - cost),
        )

    def _question(self) -> Message:
        """Return the input, always by the same id: an agent that keeps the conversation too is to know it again."""
        return Message(
            id=f"msg-{self.run.id}", role="user", content=self.run.input, run_id=self.run.id, at=self.run.created_at
        )

    def _started(self, bridge: Bridge, number: int) -> None:
        """Write down that it is sent, before it is: whoever comes after us does not send it again."""
        if self.run.answers and bridge not in _RESUMED:
            raise RunRefused(f"the agent can't be given the answer: it speaks {bridge.value} now")
        self.run = self.run.given(bridge.value, number, clock.now())
        self.ends_at = self.end_of_time()
        self._means.writer.write(RunStore.put(self.run), insists=True).wait()

    def _converse(self, opened: Link, target: Target | None) -> Last:
        """Take events until the last one, which is returned."""
        self.link, self.target = opened, target
        try:
            self.check()
            for sent in opened.events(self._wait_s):
                if sent.number and sent.number <= self.log.source_seq:
                    continue
                if self._take(sent):
                    return Last(on_one_line(sent.payload), is_ours=False)
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
        is_first, self.has_begun = not self.has_begun, True
        if is_first and kind != EventType.RUN_STARTED:
            self._first()
        self.result.take(event)
        if kind in TERMINAL:
            return True
        self.log.append(kind, on_one_line(sent.payload), source_seq=sent.number)
        if is_first and self.run.answers:
            resume = [answer.entry() for answer in self.run.answers]
            self.log.append(
                EventType.CUSTOM, encode(EventType.CUSTOM, name=ANSWERED, value={"resume": resume}), synthetic=True
            )
        if kind in _MAY_COST and run_costs.is_spent(self._means, self.run):
            self.stop(RunCode.COST_LIMIT, run_costs.spent(self.run))
        return False

    def _first(self) -> None:
        thread_id = self.run.session_id or self.run.id
        self.log.append(EventType.RUN_STARTED, started(self.run.part_id, thread_id), synthetic=True)

    def check(self) -> None:
        """Raise Stopped where it is to end for a reason of ours."""
        if self._stop is not None:
            raise Stopped

    def _check_limits(self) -> None:
        steps = self.run.limits.steps
        if steps is not None and self.result.steps > steps:
            self.stop(RunCode.STEP_LIMIT, f"it took more than {steps} steps")
        elif self.log.bytes > defaults.MAX_RUN_BYTES:
            self.stop(RunCode.ERROR, f"its events take more than {defaults.MAX_RUN_BYTES // 2**20} MiB")
            self.check()  # not one more, whatever the agent does

    def _wait_s(self) -> float:
        """How long the next piece of the answer may take."""
        route = self._means.fleet.route(self.run.agent_id)
        stall_s = route.request_timeout_s if route else defaults.REQUEST_TIMEOUT_S
        return max(0.001, min(stall_s, self.ends_at - time.monotonic()))

    def late(self) -> str:
        """Say that it took too long."""
        return f"it was not done within {self._wall_s:g} s"

    def _timed_out(self, error: CallTimedOut) -> Last:
        self.check()
        is_late = time.monotonic() >= self.ends_at - 0.01
        message = self.late() if is_late else f"the agent said nothing more: {error.reason}"
        if self.bridge is Bridge.NATIVE and self.target is not None:
            ask_to_cancel(self.target, self.run.part_id, run_stops.CANCEL_TIMEOUT_S)
        if self.bridge in run_stops.PINGED and self.target is not None:
            self._means.spawn(f"stop run {self.run.id}", run_stops.see_idle, self, self._means, self.target)
        return ours(message, RunCode.TIMEOUT)

    def _broken(self, route: Route, target: Target, bridge: Bridge, error: CallBroken) -> tuple[Last, bool]:
        """Return how the run ends by this, and whether it may yet go on."""
        is_native = bridge.can_rejoin
        if not error.is_sent:
            self._means.fleet.routes.on_suspect(route, target)
        elif is_native and self.log.source_seq > self.joined_at:
            self.joined_at = self.log.source_seq
            return ours(f"the agent broke its answer off: {error.reason}", RunCode.ERROR), True
        if not (error.is_sent or (is_native and self.run.is_given)):
            return ours(f"the agent can't be connected: {error.reason}", RunCode.AGENT_UNAVAILABLE), True
        if not self._means.dead_check(route, target):
            return ours(f"the agent lives, and broke its answer off: {error.reason}", RunCode.ERROR), is_native
        replica = run_places.after_the_end_of(self.run, self._means, target)
        goes_on = is_native and replica is not None and replica.is_expected
        if replica is not None and replica.last_exit is not None and replica.last_exit.oom_killed:
            return ours(*OUT_OF_MEMORY), goes_on
        if replica is not None and replica.state is AgentState.STOPPED and not (replica.is_expected or replica.reason):
            return ours(f"agent '{self.run.agent}' was stopped while it worked", RunCode.CONTAINER_LOST), goes_on
        return ours(*LOST), goes_on

    # ---- the end

    def change(self, **changes: Any) -> None:
        """Change the run; it is written soon."""
        self.run = msgspec.structs.replace(self.run, **changes)
        self._means.writer.write(RunStore.put(self.run), insists=True)

    def _spent(self) -> str:
        return run_costs.spent(self.run) if run_costs.is_spent(self._means, self.run) else ""

    def _finish(self, last: Last) -> None:
        """Write the last event, the run's last state, and the session's messages: all or nothing."""
        event: dict[str, Any] = msgspec.json.decode(last.payload)
        status, error = outcome(event, self._stop, self._spent())
        if error is not None and not last.is_ours and (event.get("code") or RunCode.ERROR) != error.code:
            last = ours(error.message, RunCode(error.code))  # it says "cancelled", and the reason is a limit of ours
            event = msgspec.json.decode(last.payload)
        if last.is_ours:
            self.result.take(event)
        if not self.log.last_seq:
            self._first()
        final = (event["type"], last.payload, last.is_ours)
        usage = run_costs.used(self._means, self.run, self.result.usage)

        def ended() -> list[Argument]:
            run = msgspec.structs.replace(
                self.run, status=status, error=error, output=self.result.output, usage=usage,
                steps=self.result.steps, finished_at=clock.now(), last_seq=self.log.last_seq,
            )  # fmt: skip
            self.run = msgspec.structs.replace(run, bytes=self.log.bytes + len(msgspec.json.encode(run)))
            return [*RunStore.end(self.run), *self._also_ended()]

        if not self.run.session_id:
            self.log.end([final], ended)
            return
        messages = [self._question(), *self.result.messages(self.run.id, clock.now())]
        try:
            with self._means.sessions.locked(self.run.session_id) as session:
                self.log.end(
                    [final],
                    lambda: [
                        *ended(),
                        *self._means.sessions.after_run(session, self.run, messages, self.result.state),
                    ],
                )
        except NotFound:
            self.log.end([final], ended)
            self._means.spawn(
                f"forget {self.run.session_id}", forget, self._means, self.run.agent_id, self.run.session_id
            )

    def _also_ended(self) -> list[Argument]:
        """What else is written with the end."""
        return []
