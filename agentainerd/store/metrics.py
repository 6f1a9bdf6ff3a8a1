"""The history of agents' metrics in Redis: for each agent one string of HISTORY_BYTES, which never grows.

It is two rings of points: one with a place for each 10 seconds of the last hour, one with a place for each minute of the last
24 hours. A point lies where its time says, over the one that lay there an hour or a day before, and has its time with it,
so that nothing has to be removed.
"""

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from agentainerd import defaults
from agentainerd.model.metrics_history import TOTALS, Point, merged
from agentainerd.store import keys, scripts
from agentainerd.store.connection import RedisClient

_NAMES = tuple(name for name in Point.__struct_fields__ if name not in (*TOTALS, "at"))
_POINT = struct.Struct(f"<I{len(_NAMES)}f{len(TOTALS)}d")  # the time, means, counters
FINE_S = int(defaults.METRICS_INTERVAL_S)
FINE_PLACES = 3600 // FINE_S
COARSE_S = 60
COARSE_PLACES = 24 * 60
_COARSE_OFFSET = FINE_PLACES * _POINT.size
HISTORY_BYTES = (FINE_PLACES + COARSE_PLACES) * _POINT.size
_PUT = scripts.load("put_metrics", is_fenced=True)


class MetricsStore:
    """The histories. Every method blocks its greenlet only, and raises Unavailable where Redis is away or full."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def put(self, points: Mapping[str, Sequence[Point]]) -> None:
        """Add points, in order, to the histories of agents, by id; each whole minute of them becomes a point as well."""
        pieces: list[str | bytes | int] = []
        for agent_id, added in points.items():
            for offset, data in _pieces(added):
                pieces += (agent_id, offset, data)
        if pieces:
            self._client.run(_PUT, HISTORY_BYTES, *pieces)

    def get(self, agent_id: str, since: float, until: float = math.inf) -> list[Point]:
        """Return the points of an agent that begin at `since` (epoch seconds) or later, and before `until`, in order.

        Those of the last hour are of 10 seconds each, older ones of a minute. What lies after `until` was written while the
        machine's clock was wrong.
        """
        history = self._client.call("GET", keys.metrics(agent_id))
        if history is None or len(history) != HISTORY_BYTES:
            return []
        since = max(since, 1.0)  # a place that nothing was ever put in has the time 0
        fine = _points(history[:_COARSE_OFFSET], since, until)
        newest = fine[-1].at if fine else 0.0
        fine = [each for each in fine if each.at > newest - FINE_PLACES * FINE_S]
        until = fine[0].at // COARSE_S * COARSE_S if fine else until
        return _points(history[_COARSE_OFFSET:], since, until) + fine


def _pieces(points: Sequence[Point]) -> Iterator[tuple[int, bytes]]:
    """Return what is written where: neighbours of the fine ring together, and each minute."""
    places = {int(each.at) // FINE_S % FINE_PLACES: each for each in points}
    for _, run in groupby(enumerate(sorted(places)), lambda pair: pair[1] - pair[0]):
        run_places = [place for _, place in run]
        yield run_places[0] * _POINT.size, b"".join(_pack(places[place]) for place in run_places)
    for minute, group in groupby(points, lambda each: int(each.at) // COARSE_S):
        offset = _COARSE_OFFSET + minute % COARSE_PLACES * _POINT.size
        yield offset, _pack(merged(list(group), minute * COARSE_S))


def _pack(point: Point) -> bytes:
    means = (getattr(point, name) for name in _NAMES)
    return _POINT.pack(int(point.at), *means, *(getattr(point, name) for name in TOTALS))


def _points(ring: bytes, since: float, until: float) -> list[Point]:
    """Return the points of a ring, in order; those that are older than `since` were not overwritten because nothing came."""
    found = [
        Point(at=float(at), **dict(zip((*_NAMES, *TOTALS), values, strict=True)))
        for at, *values in _POINT.iter_unpack(ring)
        if since <= at < until
    ]
    return sorted(found, key=lambda each: each.at)
