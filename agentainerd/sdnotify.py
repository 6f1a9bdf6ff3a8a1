"""systemd's notification protocol: READY, STOPPING, RELOADING, STATUS, WATCHDOG; silent where nobody listens.

One datagram to the Unix socket that NOTIFY_SOCKET names (sd_notify(3)). Nothing here fails: a message that cannot be
sent changes nothing for the daemon.
"""

import logging
import os
import socket
import time
from collections.abc import MutableMapping

log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager how the daemon is doing."""

    def __init__(self, address: str = "", watchdog_us: int = 0) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_us = watchdog_us

    @property
    def watchdog_timeout_s(self) -> float:
        """How long the manager waits for `alive` before it starts us anew; 0.0: it does not wait."""
        return self._watchdog_us / 1_000_000

    def ready(self, status: str) -> None:
        """It serves."""
        self._send(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """It takes a new configuration; `ready` says when that is over."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """It is on its way down."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def status(self, status: str) -> None:
        """One line for `systemctl status`."""
        self._send(f"STATUS={status}")

    def alive(self) -> None:
        """It does its work."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(1.0)
                channel.connect(self._address)
                channel.send(message.encode())
        except OSError as exc:
            log.debug("service manager was not told", extra={"error": str(exc)})


def from_environment(environment: MutableMapping[str, str]) -> Notifier:
    """Return the notifier that the environment asks for, and remove its variables, so that no child speaks for us."""
    address = environment.pop("NOTIFY_SOCKET", "")
    usec = environment.pop("WATCHDOG_USEC", "")
    pid = environment.pop("WATCHDOG_PID", "")
    mine = usec.isdecimal() and pid in ("", str(os.getpid()))
    return Notifier(address, int(usec) if mine else 0)
