"""Which tier an agent's containers speak: as its spec or its image says, else as one of them answers, once an image."""

import contextlib
import shlex
from collections.abc import Callable
from functools import partial

from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, NotFound, NotSupported, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.bridges import COMMAND_LABEL, Bridge, labelled
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import CallBroken
from agentainerd.services.command_links import AcpLink, ExecLink
from agentainerd.services.fleet import Fleet
from agentainerd.services.run_links import Link, Task, link, probe

PROBE_TIMEOUT_S = 5.0
MAX_KNOWN = 1000
SWEEP_TIMEOUT_S = 10.0
_SWEEP = """for p in /proc/[0-9]*; do case "${p#/proc/}" in 1|$$) ;; *)
tr '\\0' '\\n' <"$p/environ" 2>/dev/null | grep -qxF "JOB_ID=$0" && kill -KILL "${p#/proc/}" 2>/dev/null;; esac; done; true"""


class BridgeService:
    """`of` may be called from any greenlet; it blocks where a container has to be asked."""

    def __init__(self, fleet: Fleet, engine: Engine, spawn: Callable[..., object]) -> None:
        self._fleet = fleet
        self._spawn = spawn
        self._engine = engine
        self._known: dict[tuple[str, int], Bridge] = {}

    def of(self, agent_id: str, target: Target) -> Bridge:
        """Return the tier of an agent, one of whose containers is ready.

        Raises:
            NotFound: the agent is gone. NotSupported: it speaks none (code BRIDGE_UNKNOWN). Unavailable: it does not answer.
        """
        agent = self._fleet.find(agent_id)
        if declared := self._declared(agent):
            return declared
        key = (agent.image_id, agent.port)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = self._probed(agent, target)
        return self._known[key]

    def declared(self, agent_id: str) -> Bridge | None:
        """Return the tier that an agent's spec or its image names, None where neither does. Raises NotFound, InvalidParameter."""
        return self._declared(self._fleet.find(agent_id))

    def link(self, bridge: Bridge, target: Target, task: Task, *, after: int = 0) -> Link:
        """Return a link to the container behind `target`. `after`: see run_links.link.

        Raises:
            NotFound: the agent is gone. NotSupported: it is to be given commands, and names none (BRIDGE_COMMAND_MISSING).
        """
        if not bridge.is_command:
            return link(bridge, target, task, after=after)
        agent = self._fleet.find(task.run.agent_id)
        image = self._engine.image(agent.image_id)
        try:
            command = agent.spec.bridge_command or tuple(shlex.split(image.labels.get(COMMAND_LABEL, "")))
        except ValueError:
            command = ()
        if not command:
            raise NotSupported(
                f"agent '{agent.name}' does not say which command a run is",
                code="BRIDGE_COMMAND_MISSING",
                hint=f"deploy it with --bridge-command, or give its image the label {COMMAND_LABEL}",
            )
        begin = partial(self._engine.attach, target.container_id, command)
        if bridge is Bridge.ACP:
            return AcpLink(begin, target, task, image.folder)
        return ExecLink(begin, target, task, self._spawn)

    def sweep(self, target: Target, run_id: str) -> None:
        """Kill what runs in a container for a run: all that has its id in its environment. Raises nothing."""
        with contextlib.suppress(AgentainerError):
            self._engine.execute(target.container_id, ["/bin/sh", "-c", _SWEEP, run_id], timeout_s=SWEEP_TIMEOUT_S)

    def _declared(self, agent: Agent) -> Bridge | None:
        if agent.spec.bridge or agent.bridge:
            return agent.spec.bridge or agent.bridge
        try:
            return labelled(self._engine.image(agent.image_id).labels)
        except NotFound:
            return None

    def _probed(self, agent: Agent, target: Target) -> Bridge:
        try:
            found = probe(target, PROBE_TIMEOUT_S)
        except CallBroken as error:
            raise Unavailable(f"agent '{agent.name}' does not say what it speaks: {error.reason}") from error
        if found is None:
            raise NotSupported(
                f"agent '{agent.name}' speaks nothing that runs can be given by",
                code="BRIDGE_UNKNOWN",
                hint=f"one of {', '.join(Bridge)} is needed, see docs/bridge.md; --bridge names it where it can't be asked",
            )
        return found
