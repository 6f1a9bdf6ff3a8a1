"""The two doors. Behind the control socket everybody is an administrator: file mode and group decided. Behind the gateway
socket is what came over TCP: a token is needed, and a browser must not have been tricked into sending it.
"""

import pwd
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from agentainerd.api.exchange import ApiRequest
from agentainerd.errors import AgentainerError, Forbidden
from agentainerd.model.tokens import Scope
from agentainerd.services.audit import Actor
from agentainerd.services.tokens import TokenService

PEER = "agentainer.peer"
Judge = Callable[[bytes, bytes | None], str]


class Door(StrEnum):
    """Through which socket a request came."""

    CONTROL = "control"
    GATEWAY = "gateway"


def _unknown(host: bytes, origin: bytes | None) -> str:
    return "host"


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """`judge`: from the values of Host and Origin, which of them is not ours, "host", "origin" or "" (proxy/origins.py).

    `allow_query_token`: take `?token=`, as the original did. `open_prefixes`: paths, and what is under them, that programs of
    this machine may use without a token.
    """

    judge: Judge = _unknown
    allow_query_token: bool = False
    open_prefixes: tuple[str, ...] = ()

    def is_open(self, request: ApiRequest) -> bool:
        """Return whether a request needs no token: it came from a loopback address, from nobody else before that, and from no
        page that an agent serves: those are of our own port.
        """
        if _is_own_page(request) or not any(
            request.path == prefix or request.path.startswith(prefix + "/") for prefix in self.open_prefixes
        ):
            return False
        came_from = _chain(request)
        try:
            return len(came_from) == 1 and ip_address(came_from[0]).is_loopback
        except ValueError:
            return False


def admit(
    request: ApiRequest,
    door: Door,
    tokens: TokenService,
    options: AccessOptions,
    *,
    needed: Scope | None,
    is_probe: bool,
) -> None:
    """Say who asks, or refuse. `needed`: what the caller's token must be good for; None: a token is not needed. `is_probe`:
    health, which is asked under any name.

    Raises:
        Unauthorized: no token, or a wrong one. TooManyRequests: wrong too often. Forbidden: addressed by a strange name, or the
            token is not good for this (code SCOPE_MISSING).
    """
    request.is_local = door is Door.CONTROL
    if request.is_local:
        name = _peer_name(request.environ.get(PEER))
        request.actor, request.scope = Actor(name, "unix", request.id), Scope.ADMIN
        return
    source = _source(request)
    request.actor, request.scope = Actor("anonymous", source, request.id), None
    if not is_probe:
        _check_names(request, options.judge)
        request.is_page = "Origin" in request.headers
    given = _token(request, options)
    if needed and not given and options.is_open(request):
        request.scope = needed
        return
    try:
        if given or needed:
            caller = tokens.verify(given, source, request.id)
            request.actor, request.scope = Actor(caller.name, source, request.id), caller.level
    except AgentainerError:
        if needed:
            raise
    if needed and not request.may(needed):
        tokens.refuse_scope(request.actor, f"{request.method} {request.path}", request.scope, needed)


def _token(request: ApiRequest, options: AccessOptions) -> str:
    header: str = request.headers.get("Authorization", "")
    if header[:7].lower() == "bearer ":
        header = header[7:]
    if not header and options.allow_query_token:
        return request.args.get("token", "")
    return header.strip()


def _source(request: ApiRequest) -> str:
    """Return the client's address: what the data plane saw, or what a proxy said that it trusts (then that one is last)."""
    chain = _chain(request)
    return chain[-2] if len(chain) > 1 else chain[0] if chain else "unknown"


def _is_own_page(request: ApiRequest) -> bool:
    """Return whether a page sent it that was loaded from the daemon's port; both fields are the browser's, not the page's."""
    if request.headers.get("Sec-Fetch-Site") == "same-origin":
        return True
    origin = request.headers.get("Origin")
    return origin is not None and _port(origin) == _port(f"http://{request.headers.get('Host', '')}")


def _port(address: str) -> int | None:
    try:
        parts = urlsplit(address)
        return parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None


def _chain(request: ApiRequest) -> list[str]:
    return [part.strip() for part in request.headers.get("X-Forwarded-For", "").split(",") if part.strip()]


def _check_names(request: ApiRequest, judge: Judge) -> None:
    """Refuse requests that a browser was tricked into: DNS rebinding has a strange Host, another site's page an Origin."""
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    strange = judge(_raw(host), None if origin is None else _raw(origin))
    if strange == "host":
        raise Forbidden(
            f"this API is not addressed as {host[:128]!r}",
            code="HOST_NOT_ALLOWED",
            hint="use localhost or an IP address, or add that name to server.allowed_hosts",
        )
    if strange == "origin":
        raise Forbidden(
            f"pages of {(origin or '')[:128]!r} may not use this API",
            code="ORIGIN_NOT_ALLOWED",
            hint="add it to server.allowed_origins, or what it is served under to server.allowed_hosts",
        )


def _raw(value: str) -> bytes:
    return value.encode("latin-1", "replace")


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
