"""As much of a Redis client as the example needs, from Python's standard library. Use the package `redis` for more.

The daemon puts REDIS_URL into the environment: redis://USER:PASSWORD@HOST:PORT/0.
"""

import os
import socket
from urllib.parse import unquote, urlsplit


class Redis:
    """One connection. An error of the server is raised as ConnectionError, like one of the network."""

    def __init__(self, timeout_s=5.0):
        url = urlsplit(os.environ["REDIS_URL"])
        self._connection = socket.create_connection((url.hostname, url.port), timeout=timeout_s)
        self._replies = self._connection.makefile("rb")
        self.call("AUTH", unquote(url.username), unquote(url.password))

    def call(self, *words):
        """Send a command and return its reply."""
        self._send(words)
        return self._read()

    def subscribed(self, pattern):
        """Return each (channel, message) of the channels that fit the pattern, for ever; the first one is (None, None)."""
        self._send(("PSUBSCRIBE", pattern))
        self._connection.settimeout(None)
        while True:
            kind, *told = self._read()
            if kind == b"psubscribe":
                yield None, None
            elif kind == b"pmessage":
                yield told[1].decode(), told[2].decode()

    def close(self):
        self._connection.close()

    def _send(self, words):
        parts = [word.encode() for word in words]
        frames = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)
        self._connection.sendall(b"*%d\r\n%b" % (len(parts), frames))

    def _read(self):
        line = self._replies.readline()
        if not line:
            raise ConnectionError("Redis closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise ConnectionError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self._read() for _ in range(int(rest))]
        return rest
