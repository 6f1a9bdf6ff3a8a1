"""Which tier an agent's containers speak: as its spec or its image says, else as one of them answers, once an image."""

from agentainerd.engine.engine import Engine
from agentainerd.errors import InvalidParameter, NotFound, NotSupported, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.bridges import LABEL, Bridge
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import CallBroken
from agentainerd.services.fleet import Fleet
from agentainerd.services.run_links import probe

PROBE_TIMEOUT_S = 5.0
MAX_KNOWN = 1000


class BridgeService:
    """`of` may be called from any greenlet; it blocks where a container has to be asked."""

    def __init__(self, fleet: Fleet, engine: Engine) -> None:
        self._fleet = fleet
        self._engine = engine
        self._known: dict[tuple[str, int], Bridge] = {}

    def of(self, agent_id: str, target: Target) -> Bridge:
        """Return the tier of an agent, one of whose containers is ready.

        Raises:
            NotFound: the agent is gone. NotSupported: it speaks none (code BRIDGE_UNKNOWN). Unavailable: it does not answer.
        """
        agent = self._fleet.find(agent_id)
        if agent.spec.bridge:
            return Bridge(agent.spec.bridge)
        key = (agent.image_id, agent.port)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = self._labelled(agent) or self._probed(agent, target)
        return self._known[key]

    def declared(self, agent_id: str) -> Bridge | None:
        """Return the tier that an agent's spec or its image names, None where neither does. Raises NotFound, InvalidParameter."""
        agent = self._fleet.find(agent_id)
        return Bridge(agent.spec.bridge) if agent.spec.bridge else self._labelled(agent)

    def _labelled(self, agent: Agent) -> Bridge | None:
        try:
            name = self._engine.image(agent.image_id).labels.get(LABEL, "")
        except NotFound:
            return None
        if name and name not in tuple(Bridge):
            raise InvalidParameter(
                LABEL, f"{name[:64]!r}, a label of the agent's image, is none of {', '.join(Bridge)}"
            )
        return Bridge(name) if name else None

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
