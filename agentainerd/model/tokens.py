"""Named tokens: how they are written, what they may do, until when. Pure, but for the random numbers of a new one.

A token is `agt_<id>_<secret>_<checksum>`: a prefix that scanners for leaked secrets look for, eight characters by which it is
found, 256 random bits in base62, and the CRC-32 of all before it, which tells a typing mistake from a guess. Only its SHA-256
is kept.
"""

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from agentainerd.errors import InvalidParameter

PREFIX = "agt_"
ID_CHARS = 8
CHECKSUM_CHARS = 6  # base62 digits of 32 bits
SECRET_CHARS = 43  # base62 digits of 256 bits
AGENT_SCOPE = "agent:"
MAX_SCOPES = 32
_ALPHABET = string.digits + string.ascii_letters
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_AGENT = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TOKEN = re.compile(rf"agt_([0-9A-Za-z]{{{ID_CHARS}}})_[0-9A-Za-z]{{{SECRET_CHARS}}}_[0-9A-Za-z]{{{CHECKSUM_CHARS}}}")


class Scope(StrEnum):
    """What a caller may do with the API; each includes those before it.

    READ: see everything but secrets, bodies of requests, the audit log and the daemon's own log.
    OPERATE: start, stop, scale agents, manage their requests; it makes and removes no agent.
    ADMIN: everything but what only the control socket may.
    """

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"

    def covers(self, wanted: "Scope") -> bool:
        """Return whether who has this one may do what needs `wanted`."""
        return _ORDER.index(self) >= _ORDER.index(wanted)


_ORDER = tuple(Scope)


class NamedToken(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a token.

    Attributes:
        id: part of the token itself, and not secret. name: unique.
        scopes: of Scope, and "agent:<name>" for the path of one agent. digest: SHA-256 of the token, as hex.
        expires_at: epoch seconds, 0.0 for never. used_at: when it was used last, to the minute; 0.0 for never.
        old_digest: of the token before the last rotation, which is good until `old_until`.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    digest: str
    created_at: float
    expires_at: float = 0.0
    used_at: float = 0.0
    rotated_at: float = 0.0
    old_digest: str = ""
    old_until: float = 0.0

    @property
    def level(self) -> Scope | None:
        """The highest scope for the API; None for a token that is for agents only."""
        return max((Scope(scope) for scope in self.scopes if scope in _ORDER), key=_ORDER.index, default=None)

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents whose paths it opens."""
        return tuple(scope[len(AGENT_SCOPE) :] for scope in self.scopes if scope.startswith(AGENT_SCOPE))

    def is_expired(self, now: float) -> bool:
        """Return whether its time is over."""
        return bool(self.expires_at) and now >= self.expires_at

    def digests(self, now: float) -> tuple[str, ...]:
        """Return the digests that are good now, whether or not the token has expired."""
        return (self.digest, self.old_digest) if self.old_digest and now < self.old_until else (self.digest,)


def new_secret() -> str:
    """Return 256 random bits in base62."""
    return _base62(int.from_bytes(secrets.token_bytes(32)), SECRET_CHARS)


def new_id() -> str:
    """Return the id of a new token."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(ID_CHARS))


def new_token(token_id: str) -> str:
    """Return a new token with this id."""
    body = f"{PREFIX}{token_id}_{new_secret()}_"
    return body + _checksum(body)


def id_of(token: str) -> str:
    """Return the id in a token; "" where it is not written like one of ours, or has a typing mistake."""
    matched = _TOKEN.fullmatch(token)
    body = token[:-CHECKSUM_CHARS]
    return matched.group(1) if matched and token[-CHECKSUM_CHARS:] == _checksum(body) else ""


def digest_of(token: str) -> str:
    """Return what is kept of a token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def check_name(name: str) -> str:
    """Return `name`. Raises InvalidParameter: no token can be called so."""
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            "name", f"{name[:64]!r} is not a name", hint="use up to 63 lower-case letters, digits, '.', '_' and '-'"
        )
    return name


def check_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return scopes in their order, each once.

    Raises:
        InvalidParameter: there is none, there are more than MAX_SCOPES, or one is none.
    """
    known = set(scopes)
    for scope in known:
        is_agent = scope.startswith(AGENT_SCOPE) and _AGENT.fullmatch(scope[len(AGENT_SCOPE) :])
        if scope not in _ORDER and not is_agent:
            raise InvalidParameter(
                "scopes",
                f"{scope[:80]!r} is no scope",
                hint=f"use {', '.join(_ORDER)}, or agent:<name> for one agent's path",
            )
    if not 0 < len(known) <= MAX_SCOPES:
        raise InvalidParameter("scopes", f"{len(known)} scopes; there must be 1 to {MAX_SCOPES}")
    return tuple(sorted(known))


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), CHECKSUM_CHARS)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(digits)
