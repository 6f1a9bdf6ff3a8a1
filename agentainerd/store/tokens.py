"""Named tokens in Redis: one hash from id to JSON. Of the tokens themselves only digests are there."""

from collections.abc import Iterable

import msgspec

from agentainerd.model.tokens import NamedToken
from agentainerd.store import keys, scripts
from agentainerd.store.connection import RedisClient

_PUT = scripts.load("put_tokens", is_fenced=True)
_REMOVE = scripts.load("remove_token", flags="allow-oom", is_fenced=True)
_decoder = msgspec.json.Decoder(NamedToken)


class TokenStore:
    """Every method blocks its greenlet only, and raises Unavailable where Redis is away, or, where it would change something,
    another daemon has taken the journal over (code JOURNAL_FENCED).
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def all(self) -> list[NamedToken]:
        """Return all tokens, oldest first."""
        tokens = [_decoder.decode(text) for text in self._client.call("HVALS", keys.TOKENS)]
        return sorted(tokens, key=lambda token: (token.created_at, token.id))

    def put(self, tokens: Iterable[NamedToken]) -> None:
        """Write tokens, new ones or over what was there."""
        arguments = [part for token in tokens for part in (token.id, msgspec.json.encode(token))]
        if arguments:
            self._client.run(_PUT, *arguments)

    def remove(self, token_id: str) -> None:
        """Forget a token; one that is not there is fine."""
        self._client.run(_REMOVE, token_id)
