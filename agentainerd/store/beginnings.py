"""Ids of runs and sessions by their beginnings, which people type: looked for in the index of all of them."""

import re

from agentainerd.errors import Conflict, NotFound
from agentainerd.store.connection import RedisClient

MIN_CHARS = 4
_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]{3,34}")  # of a UUID; nothing that means more than itself in a pattern
_SCAN = 1000
_SHOWN = 5


def complete(client: RedisClient, index: str, noun: str, ref: str) -> str:
    """Return the only id in a sorted set that begins with `ref`. Blocks its greenlet.

    Raises:
        NotFound: none does, or `ref` is no beginning of an id. Conflict: several do (AMBIGUOUS_RUN, AMBIGUOUS_SESSION).
        Unavailable.
    """
    hint = f"agentainerctl {noun}s list"
    if not _BEGINNING.fullmatch(ref):
        raise NotFound(noun, ref[:64], hint=hint)
    found: set[str] = set()
    cursor = "0"
    while True:
        answer = client.call("ZSCAN", index, cursor, "MATCH", f"{ref}*", "COUNT", _SCAN)
        found |= {name.decode() for name in answer[1][::2]}
        cursor = answer[0].decode()
        if cursor == "0":
            break
    if not found:
        raise NotFound(noun, ref, hint=hint)
    if len(found) > 1:
        shown = ", ".join(sorted(found)[:_SHOWN]) + (" ..." if len(found) > _SHOWN else "")
        raise Conflict(
            f"'{ref}' is the beginning of {len(found)} {noun}s: {shown}",
            code=f"AMBIGUOUS_{noun.upper()}",
            hint="type more of it",
        )
    return found.pop()
