"""One provider of models as the data plane reaches it: an address by name, encrypted, with connections that are kept."""

import ssl
import time

from gevent import socket

from agentainerd import defaults
from agentainerd.proxy.target import Target
from agentainerd.proxy.tls import TlsSocket
from agentainerd.proxy.upstream import Upstream
from agentainerd.proxy.wire import Stream, connected


class ProviderTarget(Target):
    """`host` and `port` of a provider; `context`: what is believed of its certificate, None without encryption."""

    __slots__ = ("_context", "_host", "_port", "_refused_at")

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__((host, port))
        self._host = host
        self._port = port
        self._context = context
        self._refused_at = -defaults.PROVIDER_REST_S

    @property
    def is_resting(self) -> bool:
        """It could not be reached a moment ago: others are asked first."""
        return time.monotonic() - self._refused_at < defaults.PROVIDER_REST_S

    def connect(self) -> Upstream:
        """Open a connection, to the first of its addresses that answers. Blocks the greenlet.

        Raises:
            OSError: the name is not known, no address answers, or the certificate is not good.
        """
        failure = OSError(f"{self._host} has no address")
        try:
            addresses = self._addresses()
        except OSError:
            self._note_refusal()
            raise
        for address in addresses:
            try:
                stream = self._open((address, self._port))
            except OSError as error:
                failure = error
                continue
            self.refusals = 0
            self._refused_at = -defaults.PROVIDER_REST_S
            return Upstream(self, stream)
        self._note_refusal()
        raise failure

    def _note_refusal(self) -> None:
        self.refusals += 1
        self._refused_at = time.monotonic()

    def _addresses(self) -> list[str]:
        """Return the addresses of the host, IPv4 first."""
        found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
        return sorted(addresses, key=lambda address: ":" in address)

    def _open(self, address: tuple[str, int]) -> Stream:
        sock = connected(address, defaults.PROVIDER_CONNECT_TIMEOUT_S)
        if self._context is None:
            return Stream(sock, first=True)
        secure = TlsSocket(sock, self._context, self._host)
        try:
            secure.handshake(defaults.PROVIDER_CONNECT_TIMEOUT_S)
        except BaseException:
            secure.close()
            raise
        return Stream(secure, first=True)
