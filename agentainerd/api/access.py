"""The two doors. Behind the control socket everybody is an administrator: file mode and group decided. Behind the gateway
socket is what came over TCP: a token is needed, and a browser must not have been tricked into sending it.
"""

import ipaddress
import pwd
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from urllib.parse import urlsplit

from agentainerd.api.exchange import ApiRequest
from agentainerd.errors import AgentainerError, Forbidden
from agentainerd.services.audit import Actor
from agentainerd.services.tokens import TokenService

PEER = "agentainer.peer"
_OWN_NAMES = ("localhost", "host.docker.internal")


class Door(StrEnum):
    """Through which socket a request came."""

    CONTROL = "control"
    GATEWAY = "gateway"


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """`hosts`: names under which the daemon may be addressed, beside localhost and every IP address.

    `allow_query_token`: take `?token=`, as the original did.
    """

    hosts: frozenset[str] = frozenset()
    allow_query_token: bool = False


def admit(
    request: ApiRequest, door: Door, tokens: TokenService, options: AccessOptions, *, is_public: bool, is_probe: bool
) -> None:
    """Say who asks, or refuse. `is_public`: a token is not needed; `is_probe`: health, which is asked under any name.

    Raises:
        Unauthorized: no token, or a wrong one. TooManyRequests: wrong too often. Forbidden: addressed by a strange name.
    """
    request.is_local = door is Door.CONTROL
    if request.is_local:
        request.actor, request.is_admin = Actor(_peer_name(request.environ.get(PEER)), "unix"), True
        return
    source = _source(request)
    request.actor, request.is_admin = Actor("anonymous", source), False
    if not is_probe:
        _check_names(request, options.hosts)
    given = _token(request, options)
    try:
        if given or not is_public:
            tokens.verify(given, source)
            request.actor, request.is_admin = Actor("token", source), True
    except AgentainerError:
        if not is_public:
            raise


def _token(request: ApiRequest, options: AccessOptions) -> str:
    header: str = request.headers.get("Authorization", "")
    if header[:7].lower() == "bearer ":
        header = header[7:]
    if not header and options.allow_query_token:
        return request.args.get("token", "")
    return header.strip()


def _source(request: ApiRequest) -> str:
    """Return the client's address: what the data plane saw, or what a proxy said that it trusts (then that one is last)."""
    chain = [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]
    return chain[-2] if len(chain) > 1 else chain[0] if chain else "unknown"


def _check_names(request: ApiRequest, hosts: Iterable[str]) -> None:
    """Refuse requests that a browser was tricked into: DNS rebinding has a strange Host, another site's page an Origin."""
    host = request.headers.get("Host", "")
    if not _is_own(_host_name(host), hosts):
        raise Forbidden(
            f"this API is not addressed as {host[:128]!r}",
            code="HOST_NOT_ALLOWED",
            hint="set server.domain to that name",
        )
    origin = request.headers.get("Origin")
    if origin is not None and not _is_own(urlsplit(origin).hostname or "", hosts):
        raise Forbidden(f"pages of {origin[:128]!r} may not use this API", code="ORIGIN_NOT_ALLOWED")


def _is_own(name: str, hosts: Iterable[str]) -> bool:
    name = name.lower().rstrip(".")
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in _OWN_NAMES or name in hosts
    return True


def _host_name(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _peer_name(peer: object) -> str:
    if not isinstance(peer, tuple):
        return "unix"
    pid, uid, _ = peer
    return f"unix:{uid}({_user(uid)})/pid {pid}"


@lru_cache(maxsize=256)
def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "?"
