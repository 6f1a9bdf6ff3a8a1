"""Events in Redis: one stream, of which the last MAX_EVENTS are kept."""

from collections.abc import Sequence

import msgspec

from agentainerd import defaults
from agentainerd.model.events import Event
from agentainerd.store import keys, scripts
from agentainerd.store.connection import RedisClient

_APPEND = scripts.load("append_events", is_fenced=True)
_decoder = msgspec.json.Decoder(Event)


class EventStore:
    """The stream. Every method blocks its greenlet only, and raises Unavailable where Redis is away."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def append(self, events: Sequence[Event]) -> None:
        """Add events, whose ids ascend, after what is there; what is older than the last MAX_EVENTS is dropped.

        Those that are there already, because an earlier call got no answer, are left alone.
        """
        arguments = [part for event in events for part in (event.id, msgspec.json.encode(event))]
        self._client.run(_APPEND, defaults.MAX_EVENTS, *arguments)

    def after(self, event_id: str, limit: int) -> list[Event]:
        """Return up to `limit` events that came after this one, oldest first; "" is before all."""
        return self._read("XRANGE", f"({event_id}" if event_id else "-", "+", limit)

    def before(self, event_id: str, limit: int) -> list[Event]:
        """Return up to `limit` events that came before this one, newest first; "" is after all."""
        return self._read("XREVRANGE", f"({event_id}" if event_id else "+", "-", limit)

    def last_id(self) -> str:
        """Return the id of the last event, "" where there is none."""
        newest = self.before("", 1)
        return newest[0].id if newest else ""

    def _read(self, command: str, first: str, last: str, limit: int) -> list[Event]:
        rows = self._client.call(command, keys.EVENTS, first, last, "COUNT", limit)
        return [_decoder.decode(fields[1]) for _, fields in rows]
