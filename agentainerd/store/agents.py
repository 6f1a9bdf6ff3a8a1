"""Agents in Redis: one hash from id to JSON, one from name to id."""

import msgspec

from agentainerd.errors import Conflict, NotFound
from agentainerd.model.agents import Agent
from agentainerd.store import keys, scripts
from agentainerd.store.connection import RedisClient

_decoder = msgspec.json.Decoder(Agent)
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
            Conflict: another one has its name (code AGENT_NAME_TAKEN).
        """
        holder = self._client.run(_CREATE, agent.id, agent.name, msgspec.json.encode(agent)).decode()
        if holder not in ("", agent.id):
            raise Conflict(
                f"the name '{agent.name}' is taken by {holder}",
                code="AGENT_NAME_TAKEN",
                hint=f"choose another name, or remove it: agentainerctl remove {agent.name}",
            )

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
        return _decoder.decode(text)

    def find(self, ref: str) -> Agent:
        """Return an agent by id or name. Raises NotFound."""
        text, agent_id = self._client.calls([("HGET", keys.AGENTS, ref), ("HGET", keys.NAMES, ref)])
        if text is None and agent_id is not None:
            text = self._client.call("HGET", keys.AGENTS, agent_id)
        if text is None:
            raise NotFound("agent", ref)
        return _decoder.decode(text)

    def all(self) -> list[Agent]:
        """Return all agents, oldest first."""
        agents = [_decoder.decode(text) for text in self._client.call("HVALS", keys.AGENTS)]
        return sorted(agents, key=lambda agent: (agent.created_at, agent.id))

    def remove(self, agent_id: str) -> None:
        """Remove an agent and free its name; one that is not there is fine. Its requests: RequestStore.forget_agent."""
        self._client.run(_REMOVE, agent_id)
