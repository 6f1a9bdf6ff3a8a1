"""Deadlines of all exchanges, kept by one sweep instead of a timer each.

A timer per wait would cost the hot path more than the wait. So whoever waits on a socket writes down until when
(`deadline`, on the coarse clock `Sweeper.now`), and a sweep every SWEEP_S ends what is overdue by shutting the socket
down: the waiting greenlet wakes with an end of file and reads in `cause` why. The same sweep notices clients that left
while their agent is silent.
"""

import contextlib
import socket as stdlib_socket
import time
from enum import StrEnum

import gevent
from gevent import socket

SWEEP_S = 0.25
_PEEK = stdlib_socket.MSG_PEEK | stdlib_socket.MSG_DONTWAIT
_BATCH = 500  # then other greenlets get their turn
NEVER = float("inf")


class Cause(StrEnum):
    """Why a wait was ended from outside."""

    NONE = ""
    IDLE = "idle"  # a kept connection without a request
    SLOW_HEAD = "slow head"
    SLOW_BODY = "slow body"
    TIMEOUT = "timeout"  # the agent gave no (further) byte
    STALLED = "stalled"  # the other side does not read
    CLIENT_LEFT = "client left"
    STOPPED = "stopped"  # the data plane is going down


class Watched:
    """One greenlet's wait.

    Attributes:
        client: the client's connection, or None (a replay).
        upstream: the agent's connection while there is one.
        deadline: `Sweeper.now` at which the wait is over.
        overdue: what is the cause then; says also which socket is shut down.
        waits_for_agent: nothing is expected from the client, so its end of file means that it left.
        cause: set when the wait was ended from outside.
    """

    __slots__ = ("cause", "client", "deadline", "overdue", "upstream", "waits_for_agent")

    def __init__(self, client: socket.socket | None = None) -> None:
        self.client = client
        self.upstream: socket.socket | None = None
        self.deadline = NEVER
        self.overdue = Cause.NONE
        self.waits_for_agent = False
        self.cause = Cause.NONE

    def end(self, cause: Cause) -> None:
        """End the wait: its greenlet wakes with an end of file or an error."""
        self.cause = cause
        self.deadline = NEVER
        self.waits_for_agent = False
        if cause in (Cause.TIMEOUT, Cause.CLIENT_LEFT, Cause.STALLED, Cause.STOPPED):
            _shut(self.upstream, stdlib_socket.SHUT_RDWR)
        if cause in (Cause.STALLED, Cause.STOPPED):
            _shut(self.client, stdlib_socket.SHUT_RDWR)
        if cause in (Cause.IDLE, Cause.SLOW_HEAD, Cause.SLOW_BODY):
            _shut(self.client, stdlib_socket.SHUT_RD)

    def has_left(self) -> bool:
        """The client closed its side. False also where it sent more, which hides the end."""
        if self.client is None:
            return False
        try:
            return not self.client._sock.recv(1, _PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True


class Sweeper:
    """All waits of the data plane. `run` is its greenlet; everything else may be called from anywhere."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        """Coarse monotonic clock, at most SWEEP_S old."""
        self._watched: set[Watched] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def add(self, watched: Watched) -> None:
        """Keep an eye on it, until `remove`."""
        self._watched.add(watched)

    def remove(self, watched: Watched) -> None:
        """Forget it."""
        self._watched.discard(watched)

    def all(self) -> list[Watched]:
        """Return every wait there is now."""
        return list(self._watched)

    def run(self) -> None:
        """Sweep for ever."""
        while True:
            gevent.sleep(SWEEP_S)
            self.sweep()

    def sweep(self) -> None:
        """End what is overdue and what nobody waits for any more."""
        self.now = now = time.monotonic()
        for count, watched in enumerate(list(self._watched), 1):
            if now > watched.deadline:
                watched.end(watched.overdue)
            elif watched.waits_for_agent and watched.has_left():
                watched.end(Cause.CLIENT_LEFT)
            if count % _BATCH == 0:
                gevent.sleep(0)


def _shut(connection: socket.socket | None, how: int) -> None:
    if connection is None:
        return
    with contextlib.suppress(OSError):  # it is down already
        connection._sock.shutdown(how)
