"""Sessions in Redis: one JSON text a session, and one stream of its messages, whose entries have the ids `<number>-0`."""

from collections.abc import Sequence

import msgspec

from agentainerd import defaults
from agentainerd.errors import NotFound
from agentainerd.model.sessions import Message, Session
from agentainerd.store import keys
from agentainerd.store.beginnings import complete
from agentainerd.store.connection import Argument, RedisClient

_decoder = msgspec.json.Decoder(Session)
_messages = msgspec.json.Decoder(Message)
_SCAN = 500


class SessionStore:
    """Reads; and makes the operations that a RunWriter writes. Reading blocks its greenlet only, and raises Unavailable where
    Redis is away.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def get(self, session_id: str) -> Session:
        """Return a session. Raises NotFound."""
        text = self._client.call("GET", keys.session(session_id))
        if text is None:
            raise NotFound("session", session_id, hint="agentainerctl sessions list")
        return _decoder.decode(text)

    def complete(self, ref: str) -> str:
        """Return the id of the session whose id begins so. Raises NotFound, Conflict (several do)."""
        return complete(self._client, keys.SESSIONS, "session", ref)

    def count(self) -> int:
        """Return how many there are."""
        return int(self._client.call("ZCARD", keys.SESSIONS))

    def all(self) -> list[Session]:
        """Return all of them, newest first."""
        names = [keys.session(name.decode()) for name in self._client.call("ZREVRANGE", keys.SESSIONS, 0, -1)]
        found: list[Session] = []
        for start in range(0, len(names), _SCAN):
            texts = self._client.call("MGET", *names[start : start + _SCAN])
            found += [_decoder.decode(text) for text in texts if text is not None]
        return found

    def messages(
        self, session_id: str, after: int = 0, limit: int = defaults.MAX_SESSION_MESSAGES
    ) -> list[tuple[int, Message]]:
        """Return messages with their numbers, which ascend, after number `after`."""
        rows = self._client.call("XRANGE", keys.session_messages(session_id), f"({after}-0", "+", "COUNT", limit)
        return [_numbered(row) for row in rows]

    def last_messages(self, session_id: str, limit: int) -> list[Message]:
        """Return the last messages, oldest first."""
        rows = self._client.call("XREVRANGE", keys.session_messages(session_id), "+", "-", "COUNT", limit)
        return [_numbered(row)[1] for row in reversed(rows)]

    # What a RunWriter writes

    @staticmethod
    def begin(session: Session) -> list[Argument]:
        """A new session."""
        text = msgspec.json.encode(session)
        return ["S", keys.session(session.id), text, "Z", keys.SESSIONS, f"{session.created_at:.6f}", session.id]

    @staticmethod
    def put(
        session: Session, messages: Sequence[Message] = (), keep: int = defaults.MAX_SESSION_MESSAGES
    ) -> list[Argument]:
        """A session that changed, with the messages that are new, which `session.messages` counts, and how many are kept of all.
        Nothing happens where it was deleted meanwhile.
        """
        operations: list[Argument] = ["G", keys.session(session.id)]
        number = session.messages - len(messages)
        for message in messages:
            number += 1
            log = keys.session_messages(session.id)
            operations += ["T", log, number, keep, msgspec.json.encode(message)]
        return [*operations, "U", keys.session(session.id), msgspec.json.encode(session)]

    @staticmethod
    def remove(session_id: str) -> list[Argument]:
        """Forget a session; its runs are kept until they are too old."""
        return [
            "X", keys.session(session_id), "X", keys.session_messages(session_id), "R", keys.SESSIONS, session_id,
            "X", keys.session_runs(session_id),
        ]  # fmt: skip


def _numbered(row: tuple[bytes, list[bytes]]) -> tuple[int, Message]:
    name, fields = row
    return int(name.partition(b"-")[0]), _messages.decode(fields[1])
