"""Named tokens: made, listed, rotated, revoked, and found when somebody shows one.

All of them are in memory, so that looking one up waits for nobody and a revocation holds at once; the store has them for the
next start. No method ever returns a token but the two that have just made it.
"""

import hmac
import logging
import time
from collections.abc import Callable

import msgspec
from gevent.lock import RLock

from agentainerd.errors import Conflict, NotFound, Unavailable
from agentainerd.model import tokens as model
from agentainerd.model.tokens import NamedToken, digest_of, id_of
from agentainerd.services.audit import Actor, AuditService
from agentainerd.store.tokens import TokenStore

log = logging.getLogger(__name__)

MAX_TOKENS = 1000
USE_S = 60.0  # how exactly it is known when a token was used last


class NamedTokenService:
    """Owns the tokens; `load` must have been called before anything else. May be used from any greenlet.

    `on_change` is called, and must not block, when tokens came, went or changed.
    """

    def __init__(self, store: TokenStore, audit: AuditService) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._store = store
        self._audit = audit
        self._tokens: dict[str, NamedToken] = {}
        self._used: dict[str, float] = {}
        self._lock = RLock()

    def load(self) -> None:
        """Read all tokens. Raises Unavailable."""
        self._tokens = {token.id: token for token in self._store.all()}
        self.on_change()

    def all(self) -> list[NamedToken]:
        """Return all tokens, oldest first."""
        return [self._shown(token) for token in self._tokens.values()]

    def get(self, ref: str) -> NamedToken:
        """Return a token by name or id. Raises NotFound."""
        for token in self._tokens.values():
            if ref in (token.name, token.id):
                return self._shown(token)
        raise NotFound("token", ref[:64], hint="agentainerctl token list")

    def create(self, actor: Actor, name: str, scopes: list[str], expires_in_s: float) -> tuple[NamedToken, str]:
        """Make a token; return what is kept of it, and the token itself. `expires_in_s`: 0 for never.

        Raises:
            InvalidParameter: no name, or no scopes, at all. Conflict: the name is taken (code TOKEN_NAME_TAKEN), or there are
                MAX_TOKENS. Unavailable: it can't be stored.
        """
        with self._audit.mutation(actor, "create_token", name) as entry, self._lock:
            model.check_name(name)
            known = model.check_scopes(scopes)
            if any(name == token.name for token in self._tokens.values()):
                raise Conflict(
                    f"there is a token '{name}' already",
                    code="TOKEN_NAME_TAKEN",
                    hint=f"agentainerctl token rotate {name}, or choose another name",
                )
            if len(self._tokens) >= MAX_TOKENS:
                raise Conflict(f"there are {MAX_TOKENS} tokens", code="TOO_MANY_TOKENS", hint="revoke those not used")
            entry.target = f"{name} ({', '.join(known)})"
            now = time.time()
            token_id = self._new_id()
            text = model.new_token(token_id)
            made = NamedToken(
                id=token_id,
                name=name,
                scopes=known,
                digest=digest_of(text),
                created_at=now,
                expires_at=now + expires_in_s if expires_in_s else 0.0,
            )
            self._put(made)
        return made, text

    def rotate(self, actor: Actor, ref: str, grace_s: float) -> tuple[NamedToken, str]:
        """Give a token a new secret; the old one is good for `grace_s` seconds more. Its time begins anew.

        Raises:
            NotFound. Unavailable: it can't be stored; the old one stays.
        """
        with self._audit.mutation(actor, "rotate_token", ref) as entry, self._lock:
            old = self.get(ref)
            entry.target = old.name
            now = time.time()
            text = model.new_token(old.id)
            lifetime_s = old.expires_at - (old.rotated_at or old.created_at) if old.expires_at else 0.0
            made = msgspec.structs.replace(
                old,
                digest=digest_of(text),
                rotated_at=now,
                expires_at=now + lifetime_s if lifetime_s else 0.0,
                old_digest=old.digest if grace_s and not old.is_expired(now) else "",
                old_until=now + grace_s,
            )
            self._put(made)
        return made, text

    def revoke(self, actor: Actor, ref: str) -> NamedToken:
        """Refuse a token from now on, and forget it.

        Raises:
            NotFound. Unavailable: it is refused, but would be taken again after a restart (code TOKEN_NOT_FORGOTTEN).
        """
        with self._audit.mutation(actor, "revoke_token", ref) as entry, self._lock:
            token = self.get(ref)
            entry.target = token.name
            del self._tokens[token.id]
            self._used.pop(token.id, None)
            self.on_change()
            try:
                self._store.remove(token.id)
            except Unavailable as error:
                self._tokens[token.id] = msgspec.structs.replace(token, digest="", old_digest="")
                raise Unavailable(
                    f"the token '{token.name}' is refused from now on, but is not forgotten: {error.message}",
                    code="TOKEN_NOT_FORGOTTEN",
                    hint=f"before the daemon is restarted: agentainerctl token revoke {token.name}",
                ) from error
        return token

    def find(self, given: str, now: float) -> NamedToken | None:
        """Return the token that was shown, expired or not; None where it is none of ours. Compares in constant time."""
        token = self._tokens.get(id_of(given))
        if token is None:
            return None
        digest = digest_of(given)
        if not any([hmac.compare_digest(digest, known) for known in token.digests(now)]):
            return None
        self._used[token.id] = now
        return token

    def used(self, token_id: str) -> None:
        """Note that a token was used now."""
        self._used[token_id] = time.time()

    def flush(self, now: float) -> int:
        """Store when tokens were used last, and forget old secrets whose grace is over; return how many changed."""
        with self._lock:
            changed = []
            for token in self._tokens.values():
                is_over = bool(token.old_digest) and now >= token.old_until
                used_at = self._used.get(token.id, 0.0)
                if token.digest and (is_over or used_at - token.used_at >= USE_S):
                    old = {"old_digest": "", "old_until": 0.0} if is_over else {}
                    changed.append(msgspec.structs.replace(token, used_at=max(token.used_at, used_at), **old))
            self._store.put(changed)
            self._tokens.update({token.id: token for token in changed})
        if changed:
            self.on_change()
        return len(changed)

    def _put(self, token: NamedToken) -> None:
        self._store.put([token])
        self._tokens[token.id] = token
        self.on_change()

    def _new_id(self) -> str:
        while (token_id := model.new_id()) in self._tokens:
            pass
        return token_id

    def _shown(self, token: NamedToken) -> NamedToken:
        """Return a token with its last use as it is known now."""
        return msgspec.structs.replace(token, used_at=max(token.used_at, self._used.get(token.id, 0.0)))
