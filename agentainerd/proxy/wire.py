"""Sockets and the event loop, for the data plane: the only place that knows gevent's loop.

gevent's own sockets start and stop a watcher, and switch greenlets, for every wait; that was more than half of what a
small request cost. Here a watcher stays with its socket, and what arrives is given to a callback, in the hub: callbacks
must not block. Greenlets that have to wait can (`read`, `write`, `connect`).
"""

import _socket
import contextlib
import errno
import os
import socket as stdlib_socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent import get_hub, socket
from gevent.event import Event
from gevent.timeout import Timeout

if TYPE_CHECKING:
    from agentainerd.proxy.tls import TlsSocket

PIECE = 65536
_READ, _WRITE = 1, 2
_FIRST = 1  # libev's priorities go from -2 to 2
_ACCEPTS = 64  # then other sockets get their turn
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LINGER_RESET = b"\x01\0\0\0\0\0\0\0"  # struct linger {on, 0 s}: closing sends a reset
_PEEK = stdlib_socket.MSG_PEEK


class Listener:
    """A listening TCP socket, which belongs to it from now on.

    `accept(stream, peer)` is called for each client that connects, and says whether there may be another one now.
    `exhausted(listener, error)` is called when there is no file descriptor, or no memory, for one.
    """

    def __init__(
        self,
        listener: socket.socket,
        accept: Callable[["Stream", str], bool],
        exhausted: Callable[["Listener", OSError], None],
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._sock = getattr(listener, "_sock", listener)  # gevent's socket holds the real one
        self._family = listener.family
        self._accept = accept
        self._exhausted = exhausted
        self._watcher = get_hub().loop.io(listener.fileno(), _READ)
        self.resume()

    def resume(self) -> None:
        """Accept, from now on."""
        self._watcher.start(self._acceptable)

    def pause(self) -> None:
        """Leave who connects in the kernel's queue."""
        self._watcher.stop()

    def close(self) -> None:
        """Accept no more, and let go of the socket."""
        self._watcher.close()
        self._listener.close()

    def _acceptable(self) -> None:
        for _ in range(_ACCEPTS):
            try:
                descriptor, address = self._sock._accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._exhausted(self, error)
                return  # else it was a client that is gone already
            sock = _socket.socket(self._family, stdlib_socket.SOCK_STREAM, 0, descriptor)
            sock.setblocking(False)
            sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
            if not self._accept(Stream(sock), address[0]):
                return


class Stream:
    """One connected, non-blocking socket.

    Attributes:
        first (argument): what arrives is told before what arrives at other streams in the same turn of the loop.
        on_drained: called once, after a `push` that returned False, when all is written or the stream broke.
        broken: the error that writing ended with, or None.
    """

    __slots__ = ("_reader", "_rest", "_waiting", "_writer", "broken", "on_drained", "receive", "send", "sock")

    def __init__(self, sock: "_socket.socket | TlsSocket", *, first: bool = False) -> None:
        self.sock = sock
        self.receive = sock.recv
        self.send = sock.send
        self.on_drained: Callable[[], None] | None = None
        self.broken: OSError | None = None
        self._reader = get_hub().loop.io(sock.fileno(), _READ, priority=_FIRST if first else None)
        self._writer: Any = None
        self._waiting: Any = None
        self._rest = b""

    @property
    def fileno(self) -> int:
        """The file descriptor; -1 once it is closed."""
        return self.sock.fileno()

    @property
    def undrained(self) -> bool:
        """Something that was pushed is not written yet."""
        return bool(self._rest)

    # ---- in the hub

    def listen(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever there is something to read, or the end; replaces an earlier one."""
        if self.sock.fileno() >= 0:
            self._reader.start(callback)

    def pause(self) -> None:
        """Stop listening."""
        self._reader.stop()

    def push(self, data: bytes) -> bool:
        """Write without blocking; True: all of it. Else the rest is kept, written when there is room, and told of.

        Raises:
            OSError: the connection broke.
        """
        if self._rest:
            self._rest += data
            return False
        try:
            sent = self.send(data)
        except BlockingIOError:
            sent = 0
        if sent == len(data):
            return True
        self._rest = data[sent:]
        if self._writer is None:
            self._writer = get_hub().loop.io(self.sock.fileno(), _WRITE)
        self._writer.start(self._writable)
        return False

    def _writable(self) -> None:
        try:
            self._rest = self._rest[self.send(self._rest) :]
        except BlockingIOError:
            return
        except OSError as error:
            self._break(error)
        if not self._rest:
            self._writer.stop()
            self._drained()

    def _break(self, error: OSError) -> None:
        self.broken = error
        self._rest = b""

    def _drained(self) -> None:
        callback, self.on_drained = self.on_drained, None
        if callback is not None:
            callback()

    # ---- in a greenlet

    def read(self) -> bytes:
        """Block until there is something to read and return it; b"" at the end. Not while listening.

        Raises:
            OSError: the connection broke, or was closed here.
        """
        while True:
            try:
                return self.receive(PIECE)
            except BlockingIOError:
                self._wait()

    def _wait(self) -> None:
        hub = get_hub()
        self._waiting = watcher = hub.loop.io(self.sock.fileno(), _READ)
        try:
            hub.wait(watcher)
        finally:
            self._waiting = None
            watcher.close()

    def write(self, data: bytes) -> None:
        """Write all of it, blocking while the other side does not read.

        Raises:
            OSError: the connection broke, or was closed here.
        """
        if not self.push(data):
            drained = Event()
            self.on_drained = drained.set
            drained.wait()
            if self.broken is not None:
                raise self.broken

    # ---- both

    def has_ended(self) -> bool:
        """The other side closed, or the connection broke. False also where there is something to read before the end."""
        try:
            return not self.receive(1, _PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def is_quiet(self) -> bool:
        """The connection is open, and nothing is there to be read."""
        try:
            self.receive(1, _PEEK)
        except BlockingIOError:
            return True
        except OSError:
            pass
        return False

    def shut(self, how: int) -> None:
        """Shut down one direction, or both; whoever waits for it wakes."""
        with contextlib.suppress(OSError):  # it is down already
            self.sock.shutdown(how)

    def close(self, *, reset: bool = False) -> None:
        """Close it, with a reset where the other side must see that something was cut off; may be repeated."""
        if self.sock.fileno() < 0:
            return
        self._reader.close()
        if self._writer is not None:
            self._writer.close()
        gone = OSError(errno.ECONNABORTED, "the connection was closed here")
        if self._waiting is not None:
            get_hub().cancel_wait(self._waiting, gone, close_watcher=True)
        if reset:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_LINGER, _LINGER_RESET)
        self.sock.close()
        if self.on_drained is not None:
            self._break(gone)
            self._drained()


def connect(address: tuple[str, int] | str, timeout_s: float) -> Stream:
    """Connect to (IP address, port) or to the path of a Unix socket; blocks the greenlet. What the other side says is heard
    before what clients say in the same turn.

    Raises:
        OSError: refused, unreachable, or not within `timeout_s`.
    """
    return Stream(connected(address, timeout_s), first=True)


def connected(address: tuple[str, int] | str, timeout_s: float) -> _socket.socket:
    """Return a socket that is connected, as `connect` says, and non-blocking."""
    if isinstance(address, str):
        family = stdlib_socket.AF_UNIX
    else:
        family = stdlib_socket.AF_INET6 if ":" in address[0] else stdlib_socket.AF_INET
    sock = _socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if family != stdlib_socket.AF_UNIX:
            sock.setsockopt(stdlib_socket.IPPROTO_TCP, stdlib_socket.TCP_NODELAY, 1)
        failed = sock.connect_ex(address)
        if failed in (errno.EINPROGRESS, errno.EAGAIN):
            failed = _wait_connected(sock, timeout_s)
        if failed:
            raise OSError(failed, os.strerror(failed))
    except BaseException:
        sock.close()
        raise
    return sock


def _wait_connected(sock: _socket.socket, timeout_s: float) -> int:
    """Return the errno that connecting ended with, 0 for none."""
    hub = get_hub()
    watcher = hub.loop.io(sock.fileno(), _WRITE)
    try:
        with Timeout(timeout_s, False):
            hub.wait(watcher)
            return sock.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_ERROR)
    finally:
        watcher.close()
    return errno.ETIMEDOUT
