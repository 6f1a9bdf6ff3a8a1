"""References to agents: a name, an id, or the unique beginning of an id.

The daemon knows names and ids. Only when it knows neither is the list fetched, to find the id that begins so, or a name
that was nearly typed.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from agentainerctl.client import Client, path_of
from agentainerctl.failures import ApiError
from agentainerd.errors import AgentainerError, NotFound

Result = TypeVar("Result")
_ID_PREFIX = "agent-"


def list_agents(client: Client, query: Mapping[str, object] | None = None) -> list[dict[str, Any]]:
    """Return all agents that the query (filters of the API) lets through, page by page.

    Raises:
        AgentainerError: as `Client.call`.
    """
    agents: list[dict[str, Any]] = []
    cursor: object = None
    while True:
        envelope = client.call("GET", path_of("agents"), query={**(query or {}), "cursor": cursor})
        data = envelope.get("data") or []
        page = data.get("agents", []) if isinstance(data, dict) else data
        agents += page
        cursor = (data.get("next_cursor") if isinstance(data, dict) else None) or envelope.get("next_cursor")
        if not cursor or not page:
            return agents


def with_agent(client: Client, ref: str, act: Callable[[str], Result]) -> Result:
    """Return `act(ref)`; where the daemon knows no such agent, `act` of the only id that begins so.

    Raises:
        NotFound: there is none; the hint has a name that is nearly the same.
        AgentainerError: several ids begin so, or whatever `act` raises.
    """
    if ref in ("", ".", "..") or "/" in ref:
        raise _not_found(ref, list_agents(client))
    try:
        return act(ref)
    except ApiError as error:
        if error.code != "AGENT_NOT_FOUND":
            raise
    agents = list_agents(client)
    return act(_complete(ref, agents))


def _complete(ref: str, agents: list[dict[str, Any]]) -> str:
    beginnings = (ref, _ID_PREFIX + ref)
    found = [str(agent["id"]) for agent in agents if str(agent["id"]).startswith(beginnings)] if len(ref) >= 2 else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise _not_found(ref, agents)
    shown = ", ".join(found[:5]) + (" ..." if len(found) > 5 else "")
    raise AgentainerError(f"'{ref}' is the beginning of {len(found)} ids: {shown}", code="AMBIGUOUS_AGENT")


def _not_found(ref: str, agents: list[dict[str, Any]]) -> NotFound:
    from difflib import get_close_matches

    near = get_close_matches(ref, [str(agent.get("name", "")) for agent in agents], n=1)
    hint = f"did you mean '{near[0]}'? see: agentainerctl list" if near else "agentainerctl list"
    return NotFound("agent", ref, message=f"no agent '{ref}'", hint=hint)
