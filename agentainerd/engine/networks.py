"""The agents' two networks: one with a way out, one without (docs/decisions/0003-networks.md).

They are made when they are missing and otherwise used as they are found, whoever made them. A daemon that runs in a container
joins both, under the name by which agents call it.
"""

import logging
import threading
import time
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

import docker

from agentainerd import defaults
from agentainerd.engine import own_container
from agentainerd.engine.connection import Connection
from agentainerd.errors import Conflict, Failed, NotFound
from agentainerd.model.containers import Networks

log = logging.getLogger(__name__)

LABELS = {"managed-by": "agentainer"}
_BRIDGE_NAME = "com.docker.network.bridge.name"
_BRIDGES = {defaults.NETWORK: defaults.NETWORK_BRIDGE, defaults.ISOLATED_NETWORK: defaults.ISOLATED_BRIDGE}
"""Names of the Linux bridges, for people who look; only under the default names, since there can be one of each."""


_RIVAL_S = 0.2  # another daemon that makes the same network at the same time is seen after so long


class AgentNetworks:
    """The two networks of one engine, by name."""

    def __init__(self, connection: Connection, *, network: str, isolated: str) -> None:
        self.network = network
        self.isolated = isolated
        self._connection = connection
        self._own_container: str | None = None  # "": we are on the host; None: not known yet
        self._lock = threading.Lock()  # of those who make them; the engine itself would let two be made

    def ensure(self) -> Networks:
        """Make what is missing and return the gateways. Safe to repeat, also beside others who do the same.

        Raises:
            Conflict: the isolated network is there and has a way out (code NETWORK_NOT_ISOLATED).
            Failed: the engine can't make one, as when it has no address range left.
            Unavailable: the engine does not answer.
        """
        with self._lock:
            network = self._ensure(self.network, internal=False)
            isolated = self._ensure(self.isolated, internal=True)
            is_member = self._join()
        if not isolated.get("Internal"):
            raise Conflict(
                f"the network '{self.isolated}' has a way out, so it can't keep agents without egress in",
                code="NETWORK_NOT_ISOLATED",
                hint=f"docker network rm {self.isolated} (agentainerd makes it anew), or set docker.isolated_network",
            )
        return Networks(
            gateway=gateway_of(network),
            isolated_gateway=gateway_of(isolated),
            bridge=bridge_of(network),
            isolated_bridge=bridge_of(isolated),
            is_member=is_member,
            subnets=(*subnets_of(network), *subnets_of(isolated)),
        )

    def joined(self, egress: bool) -> tuple[str, ...]:
        """Return the names of the networks that an agent is in, the one that it is created on first."""
        return (self.network, self.isolated) if egress else (self.isolated,)

    def _join(self) -> bool:
        """Make our own container, where we run in one, a member of both; return whether it is."""
        if self._own_container is None:
            with self._connection.calling("ask", "engine") as client:
                self._own_container = own_container.find(client)
        if not self._own_container:
            return False
        with self._connection.calling("connect", "network", self.network) as client:
            known = client.inspect_container(self._own_container)["NetworkSettings"]["Networks"] or {}
            for name in (self.network, self.isolated):
                if name not in known:
                    client.connect_container_to_network(self._own_container, name, aliases=[defaults.DAEMON_NAME])
                    log.info("joined the agents' network", extra={"network": name})
        return True

    def _ensure(self, name: str, *, internal: bool) -> dict[str, Any]:
        found = self._find(name)
        if not found:
            self._create(name, internal=internal)
            time.sleep(_RIVAL_S)
            found = self._find(name)
        if len(found) > 1:
            found = self._settle(name, found)
        if not found:
            raise NotFound("network", name)
        return found[0]

    def _find(self, name: str) -> list[dict[str, Any]]:
        """Return the networks of this name, the oldest first: engines before 25 let two be made at once."""
        with self._connection.calling("list", "network", name) as client:
            found = [network for network in client.networks(names=[name]) if network["Name"] == name]
        return sorted(found, key=lambda network: (network["Created"], network["Id"]))

    def _create(self, name: str, *, internal: bool) -> None:
        bridge = _BRIDGES.get(name)
        try:
            self._try_create(name, bridge, internal=internal)
        except Conflict:
            return  # another one was faster
        except Failed as error:
            if bridge is None or "bridge name" not in error.message:
                raise
            log.warning("bridge name was taken, the engine chose one: %s", bridge, extra={"network": name})
            self._try_create(name, None, internal=internal)

    def _try_create(self, name: str, bridge: str | None, *, internal: bool) -> None:
        with self._connection.calling("create", "network", name) as client:
            client.create_network(
                name,
                driver="bridge",
                internal=internal,
                labels=LABELS,
                options={_BRIDGE_NAME: bridge} if bridge else None,
                check_duplicate=True,
            )
        log.info("network created", extra={"network": name})

    def _settle(self, name: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Remove all but one of the networks that were made at once, so that the name means something again.

        All who see them choose alike: the oldest stays. One in use can't be removed, and is left.
        """
        for network in found[1:]:
            with suppress(NotFound, Conflict, Failed), self._connection.calling("remove", "network", name) as client:
                client.remove_network(network["Id"])
        return self._find(name)


def rejoin(client: docker.APIClient, container_id: str, names: tuple[str, ...]) -> None:
    """Tie a stopped container to networks that were removed and made again: it knows them by an id that is gone.

    Its aliases are kept. Raises what docker's client raises.
    """
    known = client.inspect_container(container_id)["NetworkSettings"]["Networks"] or {}
    aliases = {alias for endpoint in known.values() for alias in endpoint.get("Aliases") or ()} - {container_id[:12]}
    for name in names:
        if name in known:
            client.disconnect_container_from_network(container_id, name, force=True)
        client.connect_container_to_network(container_id, name, aliases=sorted(aliases))


def gateway_of(found: dict[str, Any]) -> str:
    """Return the IPv4 address of the host in this network, "" where there is none."""
    for pool in (found.get("IPAM") or {}).get("Config") or ():
        subnet = ip_network(pool["Subnet"], strict=False)
        if subnet.version == 4:
            gateway = pool.get("Gateway") or str(subnet.network_address + 1)
            return str(ip_address(gateway.partition("/")[0]))
    return ""


def subnets_of(found: dict[str, Any]) -> tuple[str, ...]:
    """Return the addresses of a network, IPv4 and IPv6."""
    pools = (found.get("IPAM") or {}).get("Config") or ()
    return tuple(str(ip_network(pool["Subnet"], strict=False)) for pool in pools)


def bridge_of(found: dict[str, Any]) -> str:
    """Return the name of the Linux bridge behind a network, "" where it has none."""
    named = (found.get("Options") or {}).get(_BRIDGE_NAME)
    return str(named or f"br-{found['Id'][:12]}") if found.get("Driver") == "bridge" else ""
