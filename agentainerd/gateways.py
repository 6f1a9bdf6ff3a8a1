"""Where agents find the daemon: the gateway addresses of their networks, and who may reach what of this host there.

The addresses exist once the engine has made the networks, which may be long after the daemon's start; `run_once` is the
body of a loop that binds what can be bound, sets the firewall, and looks again now and then.
"""

import errno
import logging
from collections.abc import Callable, Mapping

from gevent import socket
from gevent.lock import BoundedSemaphore

from agentainerd import listeners
from agentainerd.engine.engine import Engine
from agentainerd.engine.firewall import Enforcement
from agentainerd.errors import AgentainerError, Unavailable
from agentainerd.model.containers import Networks

log = logging.getLogger(__name__)

LOOP = "networks"
INTERVAL_S = 30.0

Serve = Callable[[socket.socket], None]
Protect = Callable[[Networks, int, Mapping[str, int]], Enforcement]
Doors = Callable[[Networks], Mapping[str, int]]


class Gateways:
    """Listens on the networks' gateways at one port. Used by its loop, and by whoever needs a door open at once.

    `doors`: returns the addresses at which agents may reach one more port, and these ports. `is_covered`: the daemon listens on
    all addresses already, so there is nothing to bind. `closed_for`: why agents must not reach it at all; "" for no reason.
    `enforcement`: whether agents are kept from the rest of this host; None before that was tried.
    """

    def __init__(
        self,
        engine: Engine,
        serve: Serve,
        protect: Protect,
        *,
        doors: Doors,
        port: int,
        is_covered: bool,
        closed_for: str,
    ) -> None:
        self.addresses: list[str] = []
        self.enforcement: Enforcement | None = None
        self._engine = engine
        self._serve = serve
        self._protect = protect
        self._doors = doors
        self._opened: dict[str, int] = {}
        self._lock = BoundedSemaphore()
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
            AgentainerError: of `doors`; all else was done.
        """
        with self._lock:
            networks = self._engine.ensure_networks()
            failure = self._close_host(networks)
            found = 0
            if not self._is_covered and not self._closed_for:
                found = sum(self._listen(address) for address in _addresses(networks) if address not in self.addresses)
        if failure is not None:
            raise failure
        return found

    def open_doors(self) -> None:
        """Make the networks and open what `doors` says now. Raises as `run_once`."""
        with self._lock:
            failure = self._close_host(self._engine.ensure_networks())
        if failure is not None:
            raise failure

    def _close_host(self, networks: Networks) -> AgentainerError | None:
        """Set the firewall, whatever becomes of the doors, which are left as they were where that is not known; return why."""
        failure = None
        try:
            self._opened = dict(self._doors(networks))
        except AgentainerError as error:
            failure = error
        before, self.enforcement = self.enforcement, self._protect(networks, self._port, self._opened)
        if self.enforcement != before and not self.enforcement.enforced:
            log.warning(self.warnings[0])
        return failure

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
