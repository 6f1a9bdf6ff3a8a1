"""One provider of models as the data plane reaches it: an address by name, encrypted, with connections that are kept."""

import ssl

from gevent import socket

from agentainerd import defaults
from agentainerd.proxy.target import Target
from agentainerd.proxy.tls import TlsSocket
from agentainerd.proxy.upstream import Upstream
from agentainerd.proxy.wire import Stream, connected


class ProviderTarget(Target):
    """`host` and `port` of a provider; `context`: what is believed of its certificate, None without encryption."""

    __slots__ = ("_context", "_host", "_port")

    def __init__(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__((host, port))
        self._host = host
        self._port = port
        self._context = context

    def connect(self) -> Upstream:
        """Open a connection, to the first of its addresses that answers. Blocks the greenlet.

        Raises:
            OSError: the name is not known, no address answers, or the certificate is not good.
        """
        failure = OSError(f"{self._host} has no address")
        for address in self._addresses():
            try:
                stream = self._open((address, self._port))
            except OSError as error:
                failure = error
                continue
            self.refusals = 0
            return Upstream(self, stream)
        self.refusals += 1
        raise failure

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
