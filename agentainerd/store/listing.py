"""Pages of an agent's requests. A page is put together from sources that are read one after the other; its cursor names the
source and the place in it of the last request shown, so that what is added or removed meanwhile does no harm.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from agentainerd.errors import InvalidParameter
from agentainerd.model.requests import RequestState, Summary
from agentainerd.store import keys, packing
from agentainerd.store.connection import RedisClient, pairs

_TIES = 500
"""As many of an index can have the same time: what one step of a purge or a sweep writes."""

_ORDER = (RequestState.PROCESSING, RequestState.PENDING, RequestState.FAILED, RequestState.COMPLETED)


@dataclass(frozen=True, slots=True)
class _Entry:
    place: str
    summary: Summary


_Read = Callable[[str, str, int], list[_Entry]]


class Listing:
    """Reads pages. `RequestStore.page` says in which order."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._sources: dict[RequestState, dict[str, _Read]] = {
            RequestState.PROCESSING: {"p": self._processing},
            RequestState.PENDING: {"q": self._queued, "d": self._delayed},
            RequestState.FAILED: {"f": self._failed},
            RequestState.COMPLETED: {"c": self._completed},
        }

    def page(
        self, agent_id: str, state: RequestState | None, limit: int, cursor: str
    ) -> tuple[list[Summary], str | None]:
        """Return up to `limit` summaries and the cursor of the next page, or None. Raises InvalidParameter."""
        sources = {name: read for part in _ORDER if state in (None, part) for name, read in self._sources[part].items()}
        first, _, place = cursor.partition(":")
        if cursor and (first not in sources or not place):
            raise InvalidParameter("cursor", f"{cursor!r} is not a cursor of this list")
        found: list[tuple[str, _Entry]] = []
        for name, read in sources.items():
            if first and name != first:
                continue
            first = ""
            found += [(name, entry) for entry in read(agent_id, place, limit + 1 - len(found))]
            place = ""
            if len(found) > limit:
                last, entry = found[limit - 1]
                return [entry.summary for _, entry in found[:limit]], f"{last}:{entry.place}"
        return [entry.summary for _, entry in found], None

    def _processing(self, agent_id: str, after: str, limit: int) -> list[_Entry]:
        live, leased = self._client.calls(
            [("HKEYS", keys.live(agent_id)), ("ZRANGE", keys.leased(agent_id), 0, -1)],
        )
        ids = sorted(request_id.decode() for request_id in {*live, *leased} if request_id.decode() > after)[:limit]
        if not ids:
            return []
        packed = self._client.call("HMGET", keys.live(agent_id), *ids)
        summaries = {
            request_id: packing.summary_of_live(packing.unpack_live(request_id, agent_id, blob))
            for request_id, blob in zip(ids, packed, strict=True)
            if blob
        }
        summaries |= self._records([request_id for request_id in ids if request_id not in summaries])
        return [_Entry(request_id, summaries[request_id]) for request_id in ids if request_id in summaries]

    def _queued(self, agent_id: str, after: str, limit: int) -> list[_Entry]:
        return self._indexed(keys.queued(agent_id), after, limit)

    def _delayed(self, agent_id: str, after: str, limit: int) -> list[_Entry]:
        return self._indexed(keys.delayed(agent_id), after, limit)

    def _failed(self, agent_id: str, after: str, limit: int) -> list[_Entry]:
        return self._indexed(keys.dead(agent_id), after, limit, newest_first=True)

    def _completed(self, agent_id: str, after: str, limit: int) -> list[_Entry]:
        past = [
            packing.unpack_past(agent_id, packed)
            for packed in self._client.call("LRANGE", keys.history(agent_id), 0, -1)
        ]
        if after:
            start = next((index for index, summary in enumerate(past, 1) if summary.id == after), len(past))
            past = past[start:]
        return [_Entry(summary.id, summary) for summary in past[:limit]]

    def _indexed(self, key: str, after: str, limit: int, *, newest_first: bool = False) -> list[_Entry]:
        """Read an index by score, then id, beyond the place `after` ("score,id")."""
        score, _, last = after.partition(",")
        if after and not _is_number(score):
            raise InvalidParameter("cursor", f"{after!r} is not a place in this list")
        start, end, order = (score or "+inf", "-inf", ("REV",)) if newest_first else (score or "-inf", "+inf", ())
        flat = self._client.call("ZRANGE", key, start, end, "BYSCORE", *order, "LIMIT", 0, limit + _TIES, "WITHSCORES")
        scores = {request_id.decode(): at.decode() for request_id, at in pairs(flat).items()}
        ids = list(scores)
        if after:
            ids = [one for one in ids if scores[one] != score or (one < last if newest_first else one > last)]
        summaries = self._records(ids[:limit])
        return [_Entry(f"{scores[one]},{one}", summaries[one]) for one in ids[:limit] if one in summaries]

    def _records(self, ids: list[str]) -> dict[str, Summary]:
        """Return the summaries of those records that are still there."""
        answers = self._client.calls([("HMGET", keys.record(one), *packing.SUMMARY_FIELDS) for one in ids])
        found = {}
        for one, answer in zip(ids, answers, strict=True):
            fields = cast(dict[str, bytes | None], dict(zip(packing.SUMMARY_FIELDS, answer, strict=True)))
            if fields["state"]:
                found[one] = packing.summary_of_record(one, fields)
        return found


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
