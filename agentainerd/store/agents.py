"""Agents in Redis: one hash from id to JSON, one from name to id.

The names of replicas (`web-2`) are in the second one too, so that no agent can have one; they don't find the agent.
"""

import msgspec

from agentainerd.errors import Conflict, NotFound
from agentainerd.model.agents import Agent
from agentainerd.model.replicas import Replica
from agentainerd.store import keys, scripts
from agentainerd.store.connection import RedisClient

_decoder = msgspec.json.Decoder(Agent)
_only_container = msgspec.json.Decoder(Replica)
"""Up to 0.1.0 an agent had one container, whose fields were the agent's own."""
_CREATE = scripts.load("create_agent", is_fenced=True)
_PUT = scripts.load("put_agent", flags="allow-oom", is_fenced=True)
_REMOVE = scripts.load("remove_agent", flags="allow-oom", is_fenced=True)


class AgentStore:
    """What the daemon knows of its agents. Every method blocks its greenlet only, and raises Unavailable where Redis is away, or,
    where it would change something, another daemon has taken the journal over (code JOURNAL_FENCED).

    Who reads, changes and puts an agent holds its lock meanwhile (services); the store itself has none.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def create(self, agent: Agent) -> None:
        """Add an agent.

        Raises:
            Conflict: another one has its name, or that of one of its replicas (code AGENT_NAME_TAKEN).
        """
        self._claim(agent)

    def scale(self, agent: Agent) -> None:
        """Overwrite an agent whose spec has another number of replicas, and take or free their names.

        Raises:
            NotFound: it was removed; it stays so. Conflict: another one has a replica's name (code AGENT_NAME_TAKEN).
        """
        self.get(agent.id)
        self._claim(agent)

    def put(self, agent: Agent) -> None:
        """Overwrite an agent; its name stays what it was.

        Raises:
            NotFound: it was removed; it stays so.
        """
        if not self._client.run(_PUT, agent.id, msgspec.json.encode(agent)):
            raise NotFound("agent", agent.id)

    def get(self, agent_id: str) -> Agent:
        """Return an agent by id. Raises NotFound."""
        text = self._client.call("HGET", keys.AGENTS, agent_id)
        if text is None:
            raise NotFound("agent", agent_id)
        return _decode(text)

    def find(self, ref: str) -> Agent:
        """Return an agent by id or name. Raises NotFound."""
        text, agent_id = self._client.calls([("HGET", keys.AGENTS, ref), ("HGET", keys.NAMES, ref)])
        if text is None and agent_id is not None and b"/" not in agent_id:
            text = self._client.call("HGET", keys.AGENTS, agent_id)
        if text is None:
            raise NotFound("agent", ref)
        return _decode(text)

    def all(self) -> list[Agent]:
        """Return all agents, oldest first."""
        agents = [_decode(text) for text in self._client.call("HVALS", keys.AGENTS)]
        return sorted(agents, key=lambda agent: (agent.created_at, agent.id))

    def remove(self, agent_id: str) -> None:
        """Remove an agent and free its name; one that is not there is fine. Its requests: RequestStore.forget_agent."""
        self._client.run(_REMOVE, agent_id)

    def _claim(self, agent: Agent) -> None:
        text = msgspec.json.encode(agent)
        holder, name = (
            part.decode() for part in self._client.run(_CREATE, agent.id, agent.name, text, agent.spec.replicas)
        )
        if not holder:
            return
        owner, _, number = holder.partition("/")
        if name != agent.name:
            raise Conflict(
                f"replica {name.rpartition('-')[2]} would be called '{name}', and {owner} is called so",
                code="AGENT_NAME_TAKEN",
                hint=f"remove that one first: agentainerctl remove {name}",
            )
        raise Conflict(
            f"the name '{name}' is taken by {f'replica {number} of ' if number else ''}{owner}",
            code="AGENT_NAME_TAKEN",
            hint="choose another name" + ("" if number else f", or remove it: agentainerctl remove {name}"),
        )


def _decode(text: bytes) -> Agent:
    agent = _decoder.decode(text)
    if agent.replicas == (Replica(),):
        agent = msgspec.structs.replace(agent, replicas=(_only_container.decode(text),))
    return agent
