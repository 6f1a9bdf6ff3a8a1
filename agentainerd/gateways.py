"""Where agents find the daemon: the gateway addresses of their networks, and who may reach what of this host there.

The addresses exist once the engine has made the networks, which may be long after the daemon's start; `run_once` is the
body of a loop that binds what can be bound, sets the firewall, and looks again now and then.
"""

import errno
import logging
from collections.abc import Callable

from gevent import socket

from agentainerd import listeners
from agentainerd.engine.engine import Engine
from agentainerd.engine.firewall import Enforcement
from agentainerd.errors import Unavailable
from agentainerd.model.containers import Networks

log = logging.getLogger(__name__)

LOOP = "networks"
INTERVAL_S = 30.0

Serve = Callable[[socket.socket], None]
Protect = Callable[[Networks, int], Enforcement]


class Gateways:
    """Listens on the networks' gateways at one port. Used by its loop only.

    `is_covered`: the daemon listens on all addresses already, so there is nothing to bind. `closed_for`: why agents must
    not reach it at all; "" for no reason. `enforcement`: whether agents are kept from the rest of this host; None before that
    was tried.
    """

    def __init__(
        self, engine: Engine, serve: Serve, protect: Protect, *, port: int, is_covered: bool, closed_for: str
    ) -> None:
        self.addresses: list[str] = []
        self.enforcement: Enforcement | None = None
        self._engine = engine
        self._serve = serve
        self._protect = protect
        self._port = port
        self._is_covered = is_covered
        self._closed_for = closed_for
        if closed_for:
            log.warning("agents cannot reach the daemon: %s", closed_for)

    @property
    def isolation(self) -> str:
        """Return "enforced", why agents are not kept from the rest of this host, or "not yet"."""
        if self.enforcement is None:
            return "not yet"
        return "enforced" if self.enforcement.enforced else self.enforcement.why

    @property
    def warnings(self) -> list[str]:
        """Return what an administrator should know."""
        is_open = self.enforcement is not None and not self.enforcement.enforced
        return [f"agents can reach services of this host: {self.isolation}"] if is_open else []

    def run_once(self, now: float) -> int:
        """Make the networks, and listen where we do not yet; return how many addresses came new.

        Raises:
            Unavailable: the engine does not answer, or an address is taken.
            Conflict, Failed: a network is not what it should be, or cannot be made.
        """
        networks = self._engine.ensure_networks()
        self._close_host(networks)
        if self._is_covered or self._closed_for:
            return 0
        return sum(self._listen(address) for address in _addresses(networks) if address not in self.addresses)

    def _close_host(self, networks: Networks) -> None:
        before, self.enforcement = self.enforcement, self._protect(networks, self._port)
        if self.enforcement != before and not self.enforcement.enforced:
            log.warning(self.warnings[0])

    def _listen(self, address: str) -> bool:
        try:
            found = listeners.tcp(address, self._port)
        except Unavailable as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EADDRNOTAVAIL:
                log.debug("the gateway is not up yet", extra={"address": address})
                return False  # the engine makes the bridge with the first container
            raise
        for listener in found:
            self._serve(listener)
        self.addresses.append(address)
        log.info("serving agents on %s", listeners.place(address, self._port))
        return True


def _addresses(networks: Networks) -> list[str]:
    return [address for address in (networks.gateway, networks.isolated_gateway) if address]
