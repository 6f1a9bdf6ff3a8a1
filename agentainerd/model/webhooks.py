"""Webhooks as Standard Webhooks have them: secrets, signatures, when a telling is repeated, and which addresses get none.

The signed text is `<webhook-id>.<webhook-timestamp>.<body>`; the id is that of the message, the same however often it is sent.
"""

import base64
import binascii
import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from urllib.parse import SplitResult, urlsplit

from agentainerd import defaults
from agentainerd.errors import InvalidParameter

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
RETRY_AFTER_S = (5.0, 60.0, 300.0, 900.0, 1800.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 12 * 3600.0)
"""How long after each attempt that failed the next one is made: ten in all, over about a day."""
MAX_ATTEMPTS = len(RETRY_AFTER_S) + 1
MAX_RETRY_AFTER_S = 86400.0
JITTER = 0.2
PORTS = {"http": 80, "https": 443}

_VISIBLE = re.compile(r"[!-~]+")
_NEVER = ("0.0.0.0/8", "224.0.0.0/3", "::/128", "ff00::/8")
"""Nowhere, and everywhere: no receiver has such an address."""
_LOOPBACK = ("127.0.0.0/8", "::1/128")
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
WORDS = ("metadata", "agents", "loopback", "private")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def new_secret() -> str:
    """Return a random secret of SECRET_BYTES."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def check(url: str, secret: str) -> None:
    """Raise InvalidParameter where a webhook can't be told. A secret may be "": one is made."""
    if len(url) > defaults.MAX_WEBHOOK_URL_CHARS:
        raise InvalidParameter("webhook.url", f"is longer than {defaults.MAX_WEBHOOK_URL_CHARS} characters")
    try:
        parts = urlsplit(url)
        is_url = bool(parts.scheme in PORTS and parts.hostname and _VISIBLE.fullmatch(url) and parts.port != 0)
    except ValueError:
        is_url = False
    if not is_url:
        raise InvalidParameter(
            "webhook.url", "is not a URL of http or https", hint="write it as https://example.com/hook"
        )
    if "@" in parts.netloc:
        raise InvalidParameter(
            "webhook.url", "has a user's name in it", hint="the signature says who calls; or put a token into the path"
        )
    if secret:
        key_of(secret)


def key_of(secret: str) -> bytes:
    """Return the bytes that a secret stands for.

    Raises:
        InvalidParameter: it is not `whsec_` and 24 to 64 bytes in base64.
    """
    try:
        text = secret.removeprefix(SECRET_PREFIX)
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)  # others write it without its padding
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise InvalidParameter(
            "webhook.secret",
            f"is not {SECRET_PREFIX} with {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in base64",
            hint="leave it out, and one is made",
        )
    return key


def headers(secret: str, message_id: str, body: bytes, now: float) -> dict[str, str]:
    """Return the fields that say what a message is, and that it is ours. `now`: epoch seconds of this attempt."""
    moment = str(int(now))
    text = b".".join((message_id.encode(), moment.encode(), body))
    signature = base64.b64encode(hmac.digest(key_of(secret), text, hashlib.sha256)).decode()
    return {"webhook-id": message_id, "webhook-timestamp": moment, "webhook-signature": f"v1,{signature}"}


def pause_s(attempts: int, asked_s: float, draw: float) -> float:
    """Return how long to wait after so many attempts (from 1). `asked_s`: what the receiver wants; `draw`: from 0 to 1."""
    usual = RETRY_AFTER_S[min(attempts, len(RETRY_AFTER_S)) - 1] * (1 + JITTER * (2 * draw - 1))
    return max(usual, min(asked_s, MAX_RETRY_AFTER_S))


def receiver(url: str) -> str:
    """Return "host:port" of a URL: whoever shares it shares what may be under way at once."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{port_of(parts)}"


def port_of(parts: SplitResult) -> int:
    """Return the port of a URL that was checked."""
    return parts.port or PORTS[parts.scheme]


class AddressRule:
    """Which addresses get nothing. `words`: networks, and names of sets of them (WORDS); `metadata`, `agents`: what these mean.

    `own_port`: of the daemon, whose API listens on loopback: it is no receiver, but its agents are.
    """

    def __init__(self, words: Iterable[str], *, metadata: Iterable[str], agents: Iterable[str], own_port: int) -> None:
        sets = {"metadata": metadata, "agents": agents, "loopback": _LOOPBACK, "private": _PRIVATE}
        named: list[tuple[str, Iterable[str]]] = [("", _NEVER)]
        named += [(word, sets.get(word, (word,))) for word in words]
        self._networks = [(word, ipaddress.ip_network(text)) for word, each in named for text in each]
        self._own_port = own_port

    def refusal(self, address: str, port: int, path: str) -> str:
        """Return why an address is told nothing, "" where it may be told."""
        places = _places(ipaddress.ip_address(address.partition("%")[0]))
        for place in places:
            for word, network in self._networks:
                if place.version == network.version and place in network:
                    return (
                        f"{address} is in {network}{f' (jobs.webhook_refuse: {word})' if word else ', where nobody is'}"
                    )
        is_own = port == self._own_port and any(place.is_loopback for place in places)
        return f"{address}:{port} is the daemon itself" if is_own and not path.startswith("/agent/") else ""


def _places(address: Address) -> list[Address]:
    """Return an address and the IPv4 address that it stands for, where it is one of IPv6 that does."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
    if inner is None and address in _NAT64:
        inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return [address, inner] if inner else [address]


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
