"""Runs in Redis: one JSON text a run, one stream of its events, and the indices by which they are found.

An entry of the stream has the id `<seq>-0`, and one field: "<at> <synthetic> <source seq> <type>", a line feed, the payload.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile

import msgspec

from agentainerd import defaults
from agentainerd.errors import InvalidParameter, NotFound
from agentainerd.model.jobs import KIND
from agentainerd.model.runs import Run, RunEvent, RunStatus
from agentainerd.store import keys
from agentainerd.store.beginnings import complete
from agentainerd.store.connection import Argument, RedisClient

_decoder = msgspec.json.Decoder(Run)
_SCAN = 200


@dataclass(frozen=True, slots=True)
class Kept:
    """A run that ended: when (epoch seconds), and what its events take."""

    id: str
    finished_at: float
    bytes: int


class RunStore:
    """Reads; and makes the operations that a RunWriter writes. Reading blocks its greenlet only, and raises Unavailable where
    Redis is away.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    # Reading

    def get(self, run_id: str) -> Run:
        """Return a run. Raises NotFound."""
        text = self._client.call("GET", keys.run(run_id))
        if text is None:
            raise NotFound("run", run_id, hint="agentainerctl runs list")
        return _decoder.decode(text)

    def complete(self, ref: str) -> str:
        """Return the id of the run whose id begins so. Raises NotFound, Conflict (several do)."""
        return complete(self._client, keys.RUNS, "run", ref)

    def some(self, run_ids: Iterable[str]) -> list[Run]:
        """Return those of them that are there, in this order."""
        names = [keys.run(run_id) for run_id in run_ids]
        found = self._client.call("MGET", *names) if names else []
        return [_decoder.decode(text) for text in found if text is not None]

    def page(
        self, *, agent_id: str, session_id: str, status: RunStatus | None, limit: int, cursor: str
    ) -> tuple[list[Run], str]:
        """Return one page, newest first, and where the next one begins ("" at the end); "" as an id: of any.

        Raises:
            InvalidParameter: not a cursor of ours.
        """
        index = keys.session_runs(session_id) if session_id else keys.agent_runs(agent_id) if agent_id else keys.RUNS
        score, run_id = _position(cursor)
        found: list[Run] = []
        while True:
            rows = self._rows(index, score, run_id)
            runs = {run.id: run for run in self.some(name for name, _ in rows)}
            for name, _ in rows:
                run = runs.get(name)
                if run and (status is None or run.status is status) and (not agent_id or run.agent_id == agent_id):
                    if len(found) == limit:
                        return found, f"{found[-1].created_at:.6f}_{found[-1].id}"
                    found.append(run)
            if len(rows) < _SCAN:
                return found, ""
            run_id, score = rows[-1]

    def of_session(self, session_id: str, limit: int = 0) -> list[Run]:
        """Return the last runs of a session that are kept, oldest first; 0: all of them."""
        names = self._client.call("ZRANGE", keys.session_runs(session_id), -limit, -1)
        return self.some(name.decode() for name in names)

    def active(self) -> list[Run]:
        """Return the runs that had not ended when they were written last, oldest first."""
        return self.some(name.decode() for name in self._client.call("ZRANGE", keys.RUNS_ACTIVE, 0, -1))

    def kept(self) -> list[Kept]:
        """Return the runs that ended, the one first that ended first."""
        names = self._client.call("ZRANGE", keys.RUNS_ENDED, 0, -1, "WITHSCORES")
        sizes = self._client.call("HGETALL", keys.RUNS_SIZES)
        size_of = dict(zip(sizes[::2], map(int, sizes[1::2]), strict=True))
        return [
            Kept(name.decode(), float(at), size_of.get(name, 0))
            for name, at in zip(names[::2], names[1::2], strict=True)
        ]

    def events(self, run_id: str, after: int, limit: int) -> list[RunEvent]:
        """Return up to `limit` events that come after number `after`."""
        rows = self._client.call("XRANGE", keys.run_events(run_id), f"({after}-0", "+", "COUNT", limit)
        return [_event(row)[0] for row in rows]

    def last_event(self, run_id: str) -> tuple[RunEvent | None, int]:
        """Return the last event, and the greatest number that its agent gave one of the last _SCAN, or of those since a pause."""
        rows = self._client.call("XREVRANGE", keys.run_events(run_id), "+", "-", "COUNT", _SCAN)
        found = [_event(row) for row in rows]
        since = takewhile(lambda one: not one[0].is_pause, found)
        return (found[0][0] if found else None), max((source for _, source in since), default=0)

    def of_key(self, scope: str) -> tuple[str, str]:
        """Return the run that an idempotency key stands for, and the fingerprint of what was asked; "" where it is new."""
        text = self._client.call("GET", keys.run_key(scope))
        run_id, _, fingerprint = (text or b"").decode().partition(" ")
        return run_id, fingerprint

    # What a RunWriter writes

    @staticmethod
    def begin(run: Run, scope: str = "", fingerprint: str = "") -> list[Argument]:
        """A new run, with its idempotency key."""
        score = f"{run.created_at:.6f}"
        operations: list[Argument] = [
            *RunStore.put(run), "Z", keys.RUNS, score, run.id, "Z", keys.RUNS_ACTIVE, score, run.id,
        ]  # fmt: skip
        if run.agent_id:
            operations += ["Z", keys.agent_runs(run.agent_id), score, run.id]
        if run.session_id:
            operations += ["Z", keys.session_runs(run.session_id), score, run.id]
        if scope:
            ttl_ms = int(defaults.RUN_KEY_TTL_S * 1000)
            operations += ["P", keys.run_key(scope), f"{run.id} {fingerprint}", ttl_ms]
        return operations

    @staticmethod
    def put(run: Run) -> list[Argument]:
        """What is known of a run."""
        return ["S", keys.run(run.id), msgspec.json.encode(run)]

    @staticmethod
    def append(run_id: str, event: RunEvent, source_seq: int) -> list[Argument]:
        """One more event."""
        head = f"{event.at:.6f} {int(event.synthetic)} {source_seq} {event.type}\n".encode("utf-8", "replace")
        return ["A", keys.run_events(run_id), event.seq, 0, head + bytes(event.payload)]

    @staticmethod
    def end(run: Run) -> list[Argument]:
        """A run that is over."""
        index = keys.JOBS_ENDED if run.kind == KIND else keys.RUNS_ENDED
        return [
            *RunStore.put(run), "R", keys.RUNS_ACTIVE, run.id, "Z", index, f"{run.finished_at:.6f}", run.id,
            "H", keys.RUNS_SIZES, run.id, run.bytes,
        ]  # fmt: skip

    @staticmethod
    def remove(run: Run) -> list[Argument]:
        """Forget a run."""
        operations: list[Argument] = [
            "X", keys.run(run.id), "X", keys.run_events(run.id), "R", keys.RUNS, run.id, "R", keys.RUNS_ACTIVE, run.id,
            "R", keys.RUNS_ENDED, run.id, "R", keys.JOBS_ENDED, run.id, "J", keys.RUNS_SIZES, run.id,
            "R", keys.agent_runs(run.agent_id), run.id,
        ]  # fmt: skip
        if run.session_id:
            operations += ["R", keys.session_runs(run.session_id), run.id]
        if run.key:
            operations += ["X", keys.run_key(run.key)]
        return operations

    def _rows(self, index: str, score: float, run_id: str) -> list[tuple[str, float]]:
        """Return the next of an index, newest first, after a place in it."""
        rows: list[tuple[str, float]] = []
        skip = 0
        while len(rows) < _SCAN:
            flat = self._client.call("ZREVRANGEBYSCORE", index, repr(score), "-inf", "WITHSCORES", "LIMIT", skip, _SCAN)
            found = [(name.decode(), float(at)) for name, at in zip(flat[::2], flat[1::2], strict=True)]
            rows += [row for row in found if not run_id or (row[1], row[0]) < (score, run_id)]
            skip += _SCAN
            if len(found) < _SCAN:
                break
        return rows[:_SCAN]


def _position(cursor: str) -> tuple[float, str]:
    if not cursor:
        return float("inf"), ""
    score, _, run_id = cursor.partition("_")
    try:
        return float(score), run_id
    except ValueError:
        raise InvalidParameter("cursor", f"{cursor[:64]!r} is not a cursor of ours") from None


def _event(row: tuple[bytes, list[bytes]]) -> tuple[RunEvent, int]:
    name, fields = row
    head, _, payload = fields[1].partition(b"\n")
    at, synthetic, source, kind = head.decode().split(" ", 3)
    event = RunEvent(
        seq=int(name.partition(b"-")[0]),
        at=float(at),
        type=kind,
        payload=msgspec.Raw(payload),
        synthetic=synthetic == "1",
    )
    return event, int(source)
