"""Holds a container against the contract of its tier (docs/bridge.md): gives it small tasks, and says how it met each rule.

It costs the agent a run or two (native: four). Nothing of it is in the list of runs or in a session.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from agentainerd import clock, defaults
from agentainerd.errors import Conflict, InvalidParameter
from agentainerd.model.agents import Agent
from agentainerd.model.bridge_rules import RULES, Finding, Outcome
from agentainerd.model.bridges import Bridge
from agentainerd.model.runs import Run, new_run_id
from agentainerd.model.sessions import Message, new_message_id
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.bridge_chats import chat_checks, execute_checks
from agentainerd.services.bridge_commands import Begin, command_checks
from agentainerd.services.bridge_invocations import agui_run, invoke, plain_run, robustness
from agentainerd.services.bridge_native import agent_status, cancelling, rejoining, unknown_run
from agentainerd.services.bridge_pings import idle_pings
from agentainerd.services.bridge_trials import Spawn, Trial, is_agui
from agentainerd.services.bridges import BridgeService
from agentainerd.services.fleet import Fleet
from agentainerd.services.run_links import Link, Task

TASK = "Write the numbers from 1 to 40, one on each line, and nothing else."
PAUSE_S = 1.1  # most containers tell whole seconds
_ALWAYS = ("unknown_fields", "bad_request")
LATER = {
    Bridge.AGENTCORE: _ALWAYS,
    Bridge.AGUI: _ALWAYS,
    Bridge.NATIVE: (*_ALWAYS, "agent_status", "disconnect", "rejoin", "same_run", "unknown_run", "cancel"),
}
"""What is looked at after the first run."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What is to be checked. `bridge`: the tier, None: the agent's own. `wall_s`: how long one task may take."""

    agent: str
    bridge: Bridge | None = None
    task: str = TASK
    wall_s: float = defaults.BRIDGE_CHECK_WALL_S

    @classmethod
    def of(cls, agent: str, bridge: Bridge | None, task: str | None, wall_s: float | None) -> "CheckRequest":
        """Return a request; None stands for the default.

        Raises:
            InvalidParameter.
        """
        found = cls(
            agent, bridge, TASK if task is None else task, defaults.BRIDGE_CHECK_WALL_S if wall_s is None else wall_s
        )
        if not found.task.strip():
            raise InvalidParameter("task", "is empty", hint="say what the agent is to do")
        if len(found.task) > defaults.MAX_RUN_INPUT_CHARS:
            raise InvalidParameter("task", f"is longer than {defaults.MAX_RUN_INPUT_CHARS} characters")
        if not 1 <= found.wall_s <= defaults.MAX_BRIDGE_CHECK_WALL_S:
            raise InvalidParameter(
                "timeout_s", f"{found.wall_s:g} is not between 1 and {defaults.MAX_BRIDGE_CHECK_WALL_S:g}"
            )
        return found


class BridgeCheckService:
    """`check` may be called from any greenlet."""

    def __init__(
        self, fleet: Fleet, bridges: BridgeService, spawn: Spawn, audit: AuditService, *, pause_s: float = PAUSE_S
    ) -> None:
        self._fleet = fleet
        self._bridges = bridges
        self._spawn = spawn
        self._audit = audit
        self._pause_s = pause_s

    def check(self, request: CheckRequest, actor: Actor) -> "Examination":
        """Begin a check; its findings are made as they are asked for.

        Raises:
            NotFound: the agent. Conflict: none of its containers is ready.
            NotSupported: it speaks no tier (BRIDGE_UNKNOWN), or names no command (BRIDGE_COMMAND_MISSING).
            Unavailable: it does not answer.
        """
        with self._audit.mutation(actor, "check_bridge", request.agent) as entry:
            agent = self._fleet.find(request.agent)
            route = self._fleet.route(agent.id)
            target = route.pick() if route is not None else None
            if target is None:
                raise Conflict(
                    f"agent '{agent.name}' has no container that is ready",
                    code="AGENT_NOT_RUNNING",
                    hint=f"agentainerctl start {agent.name} --wait",
                )
            declared = request.bridge or self._bridges.declared(agent.id)
            bridge = declared or self._bridges.of(agent.id, target)
            entry.target = agent.id

            def begin() -> Link:
                return self._bridges.link(bridge, target, _task(agent, request.task))

            begin().close()  # where no command is named, this says so
        trial = Trial(target, self._spawn, request.task, request.wall_s, self._pause_s)
        return Examination(trial, bridge, begin, is_declared=declared is not None)


class Examination:
    """One check under way: iterate over it once. `bridge`: the tier that its rules are of, for sure at the end.

    A container that was only recognised by its /ping may be one of AgentCore's, which have the same: its first answer tells.
    """

    def __init__(self, trial: Trial, bridge: Bridge, begin: Begin | None = None, *, is_declared: bool = True) -> None:
        """`begin`, for commands: gives a link for one run of the task. `is_declared`: the tier was named, and not asked for."""
        self.bridge = bridge
        self._begin = begin
        self._trial = trial
        self._is_declared = is_declared

    def __iter__(self) -> Iterator[Finding]:
        """Yield a finding for each rule of the tier."""
        match self.bridge:
            case Bridge.OPENAI:
                return chat_checks(self._trial)
            case Bridge.BRIDGE:
                return execute_checks(self._trial)
            case Bridge.EXEC | Bridge.ACP:
                assert self._begin is not None
                return command_checks(self._trial, self.bridge, self._begin)
            case _:
                return self._invocations()

    def close(self) -> None:
        """Nothing is held between two findings."""

    def _invocations(self) -> Iterator[Finding]:
        trial = self._trial
        yield from idle_pings(trial, self.bridge)
        run = invoke(trial)
        if self.bridge is Bridge.AGUI and not self._is_declared and run.heard.status == 200 and not is_agui(run.heard):
            self.bridge = Bridge.AGENTCORE
        bridge = self.bridge
        yield from plain_run(run) if bridge is Bridge.AGENTCORE else agui_run(bridge, run)
        if run.heard.status != 200 or not (run.heard.is_stream or bridge is Bridge.AGENTCORE):
            yield from (RULES[name].found(Outcome.SKIP, "there is no run to try it on") for name in LATER[bridge])
            return
        yield from robustness(trial, run.heard)
        if bridge is Bridge.NATIVE:
            yield agent_status(trial)
            yield from rejoining(trial, run.heard)
            yield unknown_run(trial)
            yield cancelling(trial, run.heard)


def _task(agent: Agent, text: str) -> Task:
    run = Run(id=new_run_id(), agent_id=agent.id, agent=agent.name, input=text, created_at=clock.now())
    return Task(run, [Message(id=new_message_id(), role="user", content=text)], {})
