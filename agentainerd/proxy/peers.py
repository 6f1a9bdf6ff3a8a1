"""Whose word is taken for who asks: the addresses and networks of `server.trusted_proxies`. Pure."""

import ipaddress
from collections.abc import Container, Iterable

MAX_KNOWN = 4096


class Peers(Container[str]):
    """`address in peers`: one look-up for an address that came before. May be used from any greenlet.

    `networks` are addresses or networks as text. An IPv4 address that came over an IPv6 socket (::ffff:10.0.0.1) counts as
    the IPv4 address that it is.
    """

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[str] = ()) -> None:
        self._networks = tuple(ipaddress.ip_network(network) for network in networks)
        self._known: dict[str, bool] = {}

    def __contains__(self, address: object) -> bool:
        known = self._known.get(address) if isinstance(address, str) else False
        if known is None:
            known = self._look_up(str(address))
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[str(address)] = known
        return known

    def _look_up(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address):
            parsed = parsed.ipv4_mapped or parsed
        return any(parsed in network for network in self._networks)
