"""TLS for connections that the data plane opens: what a socket of the event loop is, with encryption in it.

OpenSSL works on memory here, so that nothing ever blocks and `wire.Stream` needs to know nothing of it: `recv` and `send`
raise BlockingIOError exactly where those of a plain socket do.
"""

import _socket
import ssl
import time
from typing import Final

from gevent import get_hub
from gevent.timeout import Timeout

_RAW = 65536
_READ, _WRITE = 1, 2
_PEEK: Final = 2  # MSG_PEEK of Linux


class TlsSocket:
    """A connected, non-blocking socket whose other side speaks TLS; `handshake` comes before everything else."""

    def __init__(self, sock: _socket.socket, context: ssl.SSLContext, name: str) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=name)
        self._unsent = b""
        self._taken = 0

    def handshake(self, timeout_s: float) -> None:
        """Agree on keys and check who is there. Blocks the greenlet.

        Raises:
            OSError: the other side broke off, took too long, or its certificate is not good (ssl.SSLCertVerificationError).
        """
        end = time.monotonic() + timeout_s
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._exchange(end)
            else:
                self._flush_all(end)
                return

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return what has come, deciphered, however much of it: nothing may be left in here, where no event tells of it.

        `size` is for a peek only, which says whether anything came, not what. b"" at the end.

        Raises:
            BlockingIOError: nothing has. OSError: the connection broke.
        """
        if flags & _PEEK:
            return self._sock.recv(size, _PEEK)
        while True:
            data = self._sock.recv(_RAW)
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
            plain, has_ended = self._read_all()
            if plain or has_ended or not data:
                return plain

    def send(self, data: bytes) -> int:
        """Take bytes to be written; return how many were.

        Raises:
            BlockingIOError: there is no room now: the same bytes are to be given again. OSError: the connection broke.
        """
        if not self._taken:
            self._taken = self._tls.write(data[:_RAW])
            self._unsent += self._outgoing.read()
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def fileno(self) -> int:
        """The file descriptor; -1 once it is closed."""
        return self._sock.fileno()

    def shutdown(self, how: int) -> None:
        """Shut down one direction, or both."""
        self._sock.shutdown(how)

    def setsockopt(self, level: int, option: int, value: bytes) -> None:
        """Set an option of the socket."""
        self._sock.setsockopt(level, option, value)

    def close(self) -> None:
        """Close it."""
        self._sock.close()

    def _read_all(self) -> tuple[bytes, bool]:
        pieces: list[bytes] = []
        while True:
            try:
                piece = self._tls.read(_RAW)
            except ssl.SSLWantReadError:
                return b"".join(pieces), False
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b"".join(pieces), True
            if not piece:
                return b"".join(pieces), True
            pieces.append(piece)

    def _flush(self) -> None:
        while self._unsent:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]

    def _exchange(self, end: float) -> None:
        """Send what there is to say and wait for what the other side says."""
        self._flush_all(end)
        self._wait(_READ, end)
        data = self._sock.recv(_RAW)
        if not data:
            raise ConnectionResetError("the connection ended in the middle of the TLS handshake")
        self._incoming.write(data)

    def _flush_all(self, end: float) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                self._flush()
            except BlockingIOError:
                self._wait(_WRITE, end)

    def _wait(self, events: int, end: float) -> None:
        hub = get_hub()
        watcher = hub.loop.io(self._sock.fileno(), events)
        try:
            with Timeout(max(end - time.monotonic(), 0.001), False):
                hub.wait(watcher)
                return
        finally:
            watcher.close()
        raise TimeoutError("the TLS handshake took too long")
