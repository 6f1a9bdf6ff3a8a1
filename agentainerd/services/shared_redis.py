"""The Redis that agents share: there while an agent asked for it, with a user for each of those, and no other.

What is said at once, when an agent starts or is removed, is said again by `doors`, in the loop of the networks: whatever
a crash of the daemon or of the server left behind is settled there.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping

from gevent import socket
from gevent.lock import RLock

from agentainerd.errors import Unavailable
from agentainerd.model.agents import REDIS_VARIABLE, Agent
from agentainerd.model.containers import Networks
from agentainerd.store.agents import AgentStore
from agentainerd.store.shared_redis import SharedRedisServer

log = logging.getLogger(__name__)

ADMISSION_S = 3600.0  # longer than any update takes

Doors = Mapping[str, int]


class SharedRedisService:
    """Every method may be called from any greenlet. `host`: how agents call this host; `port`: where they find the server.

    `on_wanted` has the networks looked at now: it calls `doors`, and opens the firewall for what that returns. `on_unwanted` has
    that done soon.
    """

    def __init__(self, server: SharedRedisServer, agents: AgentStore, *, host: str, port: int) -> None:
        self.on_wanted: Callable[[], object] = lambda: None
        self.on_unwanted: Callable[[], object] = lambda: None
        self._server = server
        self._agents = agents
        self._host = host
        self._port = port
        self._lock = RLock()
        self._users: set[str] = set()  # ids of the agents that are let in
        self._admitted: dict[str, tuple[bool, float]] = {}  # id -> whether it has egress, and when it was admitted
        self._offered: frozenset[bool] = frozenset()  # for which of both networks the door is open

    def environment(self, agent: Agent) -> dict[str, str]:
        """Return the variables that tell an agent of the services that it asked for."""
        if not agent.spec.services.redis:
            return {}
        return {REDIS_VARIABLE: f"redis://{agent.id}:{self._server.password(agent.id)}@{self._host}:{self._port}/0"}

    def admit(self, agent: Agent) -> None:
        """Make sure that an agent finds what it asked for when it starts. Safe to repeat.

        Raises:
            Failed, NotSupported: the server can't be started. Unavailable: it does not answer, or agents can't reach it.
        """
        if not agent.spec.services.redis:
            return
        egress = agent.spec.network_egress
        with self._lock:
            self._start()
            if agent.id not in self._users:
                self._server.put_users({agent.id: agent.name})
                self._users.add(agent.id)
            self._admitted[agent.id] = (egress, time.monotonic())
            is_offered = egress in self._offered and bool(self._server.addresses)
        if not is_offered:
            self.on_wanted()
            if egress not in self._offered:
                raise Unavailable(
                    "agents can't reach the shared Redis: the gateway of their network is no address of this host",
                    code="SHARED_REDIS_UNREACHABLE",
                    hint="it needs an engine on this host; is it one that runs in a virtual machine, or elsewhere?",
                )

    def forget(self, agent: Agent) -> None:
        """An agent was removed: let it in no more, and remove its keys. What can't be done now is done by `doors`."""
        with self._lock:
            self._users.discard(agent.id)
            self._admitted.pop(agent.id, None)
            if not self._server.is_started:
                return
            try:
                if agent.id in self._server.users():
                    self._dismiss(agent.id, agent.name, ())
            except Unavailable as error:
                log.warning("a removed agent's keys are still there, and will be removed: %s", error)
        self.on_unwanted()

    def doors(self, networks: Networks) -> Doors:
        """Bring server and users up to date, listen where agents wait for it, and return those addresses and ports.

        Raises:
            Failed, NotSupported, Unavailable: as `admit`; also where Redis does not tell which agents there are.
        """
        with self._lock:
            agents = {agent.id: agent for agent in self._agents.all()}
            guests = self._guests(agents)
            wanted = {agent.id: agent for agent in agents.values() if agent.spec.services.redis or agent.id in guests}
            if not wanted and not self._server.is_started:
                return {}
            self._start()
            self._settle(agents, wanted)
            if not wanted:
                self._server.stop()
                self._offered = frozenset()
                log.info("no agent wants the shared Redis any more: it is stopped")
                return {}
            recorded = {agent.spec.network_egress for agent in wanted.values() if agent.spec.services.redis}
            return self._listen(networks, recorded | set(guests.values()))

    def close(self) -> None:
        """End the server with the daemon."""
        self._server.close()

    def facts(self) -> dict[str, object]:
        """Return what `system info` tells of it."""
        if not self._server.is_started:
            return {"running": False}
        facts: dict[str, object] = {
            "running": self._server.pid is not None,
            "listen": [f"{address}:{self._port}" for address in self._server.addresses],
            "agents": len(self._users),
        }
        try:
            facts["memory_bytes"] = self._server.memory_bytes()
        except Unavailable:
            facts["running"] = False
        return facts

    def _start(self) -> None:
        if not self._server.is_started:
            self._server.start()
            log.info("shared Redis started", extra={"redis_pid": self._server.pid})

    def _guests(self, agents: Mapping[str, Agent]) -> dict[str, bool]:
        """Return who was admitted lately, and whether with egress: the record of an agent that is updated says so only when its
        new containers are ready.
        """
        since = time.monotonic() - ADMISSION_S
        for agent_id, (_, at) in list(self._admitted.items()):
            if at < since or agent_id not in agents:
                del self._admitted[agent_id]
        return {agent_id: egress for agent_id, (egress, _) in self._admitted.items()}

    def _settle(self, agents: Mapping[str, Agent], wanted: Mapping[str, Agent]) -> None:
        """Let in who is wanted, and nobody else. Who is there without the service keeps its keys, for when it has it again."""
        known = self._server.users()
        names = {agent.name for agent in agents.values()}
        for agent_id, name in known.items():
            if agent_id not in agents:
                self._dismiss(agent_id, name, names)
            elif agent_id not in wanted:
                self._server.suspend_user(agent_id)
        new = [agent for agent in wanted.values() if agent.id not in self._users or agent.id not in known]
        self._server.put_users({agent.id: agent.name for agent in new})
        self._users = set(wanted)

    def _dismiss(self, agent_id: str, name: str, names: Collection[str]) -> None:
        """Remove a user, and its keys unless another agent has that name by now. The user goes last: it tells the name."""
        if name not in names:
            self._server.drop_keys(name)
        self._server.drop_user(agent_id)

    def _listen(self, networks: Networks, kinds: Collection[bool]) -> Doors:
        gateways = {True: networks.gateway, False: networks.isolated_gateway}
        places = {kind: _own_address(gateways[kind], is_member=networks.is_member) for kind in sorted(kinds)}
        offered = {kind: address for kind, address in places.items() if address}
        addresses = tuple(dict.fromkeys(offered.values()))
        if addresses != self._server.addresses:
            self._server.listen(addresses, self._port)
            log.info("shared Redis listens for agents", extra={"addresses": ", ".join(addresses) or "none"})
        self._offered = frozenset(offered)
        return {address: self._port for address in addresses}


def _own_address(gateway: str, *, is_member: bool) -> str:
    """Return our own address in the network that has this gateway: the gateway, or for a member the one that leads there.

    "" where we have none, as with an engine on another machine.
    """
    if not gateway:
        return ""
    try:
        with socket.socket(type=socket.SOCK_DGRAM) as probe:
            if not is_member:
                probe.bind((gateway, 0))
                return gateway
            probe.connect((gateway, 9))  # of UDP: nothing is sent, the kernel looks for the way only
            return str(probe.getsockname()[0])
    except OSError:
        return ""
