"""Named ports: what an agent's container finds in its environment, and how a person gets to one of them."""

import time
from dataclasses import dataclass

from agentainerd.errors import NotFound
from agentainerd.model.agents import Agent
from agentainerd.model.ports import token_variable
from agentainerd.proxy.port_access import LOGIN_S, PARAMETER
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Login:
    """The way to one named port. `url`: good once, until `expires_at` (epoch seconds). `path`: for programs, with a token."""

    port: str
    url: str
    path: str
    expires_at: float


class PortService:
    """`domain`, `port`: `http://<port>.<agent>.<domain>:<port>` is where a named port is."""

    def __init__(self, fleet: Fleet, audit: AuditService, *, domain: str, port: int) -> None:
        self._fleet = fleet
        self._audit = audit
        self._domain = domain
        self._port = port

    def environment(self, agent: Agent) -> dict[str, str]:
        """Return the variables with the token that each port is shown with every request; nobody else is to be let in there."""
        access = self._fleet.routes.ports
        return {token_variable(name): access.token(agent.id, name) for name in agent.named_ports}

    def open(self, ref: str, port: str, actor: Actor) -> list[Login]:
        """Return the ways to an agent's named ports, or to one of them; each opens its port once, for a browser.

        Raises:
            NotFound: no such agent, it has no named ports (code NO_NAMED_PORTS), or none of this name (code PORT_NOT_FOUND).
        """
        with self._audit.mutation(actor, "open_port", ref) as entry:
            agent = self._fleet.find(ref)
            entry.target = f"{agent.id} ({agent.name})"
            return [self._login(agent, name) for name in _names(agent, port)]

    def _login(self, agent: Agent, name: str) -> Login:
        now = time.time()
        word = self._fleet.routes.ports.login(agent.id, name, now)
        host = f"{name}.{agent.name}.{self._domain}:{self._port}"
        return Login(
            name, f"http://{host}/?{PARAMETER.decode()}={word}", f"/agent/{agent.name}/:{name}/", now + LOGIN_S
        )


def _names(agent: Agent, port: str) -> list[str]:
    if not agent.named_ports:
        raise NotFound(
            "port", port, message=f"'{agent.name}' has no named ports", code="NO_NAMED_PORTS",
            hint="deploy it with --named-port NAME=PORT, or from an image with a desktop: docs/desktop.md",
        )  # fmt: skip
    if port and port not in agent.named_ports:
        known = ", ".join(agent.named_ports)
        raise NotFound("port", port, message=f"'{agent.name}' has no port '{port}'", hint=f"it has: {known}")
    return [port] if port else list(agent.named_ports)
