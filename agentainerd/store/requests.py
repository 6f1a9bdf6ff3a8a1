"""Requests as people and background duties see them: lists, one whole, cancel, deliver again, purge, retention.

Everything here is one script or one read, atomic and bounded; longer work is done in steps. What changes something is
refused, as the journal's own writes are, once another daemon has taken the journal over.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from agentainerd import clock, defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.requests import Detail, RequestState, Summary
from agentainerd.store import keys, packing, scripts
from agentainerd.store.connection import RedisClient, pairs
from agentainerd.store.listing import Listing
from agentainerd.store.spool import Spool

_CANCEL = scripts.load("cancel", flags="allow-oom", is_fenced=True)
_COUNTS = scripts.load("counts", flags="no-writes")
_DISCARD = scripts.load("discard", flags="allow-oom", is_fenced=True)
_DUE = scripts.load("due", flags="no-writes")
_FIND = scripts.load("find", flags="no-writes")
_FIND_PAST = scripts.load("find_past", flags="no-writes")
_FORGET = scripts.load("forget", flags="allow-oom", is_fenced=True)
_PURGE = scripts.load("purge", flags="allow-oom", is_fenced=True)
_REQUEUE = scripts.load("requeue", is_fenced=True)
_SWEEP = scripts.load("sweep", flags="allow-oom", is_fenced=True)
_UNREFERENCED = scripts.load("unreferenced", flags="no-writes")

_STEP = 500
_TOMBSTONE_S = 24 * 3600.0
_SPARE_MEMORY = 0.75  # of maxmemory; above, stored answers are kept shorter, down to nothing at
_NO_MEMORY = 0.95


@dataclass(frozen=True, slots=True)
class Counts:
    """An agent's requests now.

    `completed` is how many the history lists (at most about HISTORY_LENGTH). `oldest_pending_at` is when the first in line,
    queued or waiting for its next attempt, came (epoch seconds); 0.0: none is pending.
    """

    pending: int = 0
    processing: int = 0
    completed: int = 0
    failed: int = 0
    pending_bytes: int = 0
    oldest_pending_at: float = 0.0


class RequestStore:
    """All methods block their greenlet only; they raise Unavailable where Redis does not answer, and those that change
    something also where another daemon has taken the journal over (code JOURNAL_FENCED).
    """

    def __init__(
        self,
        client: RedisClient,
        spool: Spool,
        *,
        response_ttl_s: float = defaults.RESPONSE_TTL_S,
        failed_ttl_s: float = defaults.FAILED_TTL_S,
        max_age_s: float = defaults.MAX_AGE_S,
    ) -> None:
        self._client = client
        self._spool = spool
        self._response_ttl_s = response_ttl_s
        self._failed_ttl_s = failed_ttl_s
        self._max_age_s = max_age_s
        self._listing = Listing(client)

    # ---- reading

    def page(
        self, agent_id: str, *, state: RequestState | None = None, limit: int = defaults.PAGE_LIMIT, cursor: str = ""
    ) -> tuple[list[Summary], str | None]:
        """Return up to `limit` requests and the cursor of the next page, None after the last one.

        Order: processing by id; pending as they will be sent: those that are due by arrival, then those that wait for
        their time by that; failed and completed newest first. Without a state, these four one after the other. Completed
        ones are those of the history, HISTORY_LENGTH at most.

        Raises:
            InvalidParameter: this is no cursor of ours.
        """
        return self._listing.page(agent_id, state, limit, cursor)

    def detail(self, agent_id: str, request_id: str) -> Detail:
        """Return one request of an agent, whatever state it is in. Of one that only the history has, the summary is all.

        Raises:
            NotFound: this agent has no such request.
        """
        detail = self._find(request_id, agent_id) or self._find_past(request_id, agent_id)
        if detail is None or detail.summary.agent_id != agent_id:
            raise NotFound("request", request_id)
        return detail

    def locate(self, request_id: str) -> Detail:
        """Return one request of any agent. Raises NotFound."""
        detail = self._find(request_id, "")
        if detail is None:
            for agent in self._client.call("SMEMBERS", keys.KNOWN):
                detail = self._find_past(request_id, agent.decode())
                if detail is not None:
                    break
        if detail is None:
            raise NotFound("request", request_id)
        return detail

    def counts(self, agent_id: str) -> Counts:
        """Return how many requests an agent has."""
        return self.counts_of([agent_id])[agent_id]

    def counts_of(self, agent_ids: Sequence[str]) -> dict[str, Counts]:
        """Return how many requests each of these agents has, in one round trip."""
        if not agent_ids:
            return {}
        answers = self._client.run(_COUNTS, *agent_ids)
        return {agent_id: _counts(answer) for agent_id, answer in zip(agent_ids, answers, strict=True)}

    def due(self, now: float) -> list[str]:
        """Return the ids of the agents of which something can be claimed at `now`."""
        return [agent.decode() for agent in self._client.run(_DUE, now)]

    # ---- changing

    def cancel(self, agent_id: str, request_id: str) -> None:
        """Make a pending request a dead letter (failed, cancelled).

        Raises:
            NotFound: this agent has no such request.
            Conflict: it is with the agent now (code REQUEST_IN_FLIGHT), or has ended (REQUEST_ENDED).
        """
        was = self._client.run(_CANCEL, agent_id, request_id, _text(clock.now())).decode()
        self._require(agent_id, request_id, was, RequestState.PENDING, "cancelled")

    def discard(self, agent_id: str, request_id: str) -> None:
        """Remove a dead letter for good.

        Raises:
            NotFound: this agent has no such request.
            Conflict: it has not failed (code REQUEST_IN_FLIGHT, REQUEST_PENDING or REQUEST_ENDED).
        """
        was, *files = self._client.run(_DISCARD, agent_id, request_id)
        self._require(agent_id, request_id, was.decode(), RequestState.FAILED, "removed")
        self._remove_files(files)

    def requeue(self, agent_id: str, request_id: str) -> None:
        """Deliver a dead letter again, from its first attempt and with a new deadline, or a pending request at once.

        Raises:
            NotFound: this agent has no such request.
            Conflict: it is with the agent now (code REQUEST_IN_FLIGHT), was answered (REQUEST_ENDED), or is not stored whole
                (REQUEST_NOT_REPLAYABLE).
        """
        packed, spool = self._client.call("HMGET", keys.record(request_id), "meta", "spool")
        if packed is not None:
            whole = packing.unpack_meta(packed).body_bytes >= 0 and (not spool or self._spool.exists(spool.decode()))
            if not whole:
                raise Conflict(
                    f"request {request_id} can't be sent again: its body was not stored whole",
                    code="REQUEST_NOT_REPLAYABLE",
                )
        was = self._client.run(_REQUEUE, agent_id, request_id, _text(clock.now() + self._max_age_s)).decode()
        if was != RequestState.PENDING:
            self._require(agent_id, request_id, was, RequestState.FAILED, "sent again")

    def purge(self, agent_id: str, *, state: RequestState) -> int:
        """Cancel all pending requests of an agent, or remove all its dead letters; return how many.

        Raises:
            InvalidParameter: neither pending nor failed.
        """
        if state not in (RequestState.PENDING, RequestState.FAILED):
            raise InvalidParameter("state", f"{state} requests can't be purged: pending or failed ones can")
        total = 0
        while True:
            done, *files = self._client.run(_PURGE, agent_id, state, _STEP, _text(clock.now()))
            self._remove_files(files)
            total += int(done)
            if done < _STEP:
                return total

    def forget_agent(self, agent_id: str) -> int:
        """Remove every request of an agent, and refuse those that are still on their way; return how many there were."""
        total = 0
        while True:
            done, *files = self._client.run(_FORGET, agent_id, _text(clock.now()), _STEP)
            self._remove_files(files)
            total += int(done)
            if done < _STEP:
                return total

    def sweep(self, now: float, limit: int = _STEP) -> int:
        """Fail what is past its deadline, forget what was kept long enough, remove bodies that nobody needs.

        At most `limit` of each; return how many. Where Redis runs short of memory, stored answers are kept shorter.
        """
        oldest_completed = now - self._response_ttl_s * self._memory_left()
        done, *files = self._client.run(
            _SWEEP,
            _text(now),
            limit,
            _text(oldest_completed),
            _text(now - self._failed_ttl_s),
            _text(now - _TOMBSTONE_S),
        )
        self._remove_files(files)
        return int(done) + self._sweep_spool(limit)

    # ----

    def _find(self, request_id: str, agent_id: str) -> Detail | None:
        kind, *rest = self._client.run(_FIND, request_id, agent_id) or [b""]
        if kind == b"live":
            record = packing.unpack_live(request_id, rest[0].decode(), rest[1])
            return Detail(packing.summary_of_live(record), record.head, record.body, record.spool, None)
        if kind != b"record":
            return None
        fields = {name.decode(): value for name, value in pairs(rest).items()}
        return Detail(
            packing.summary_of_record(request_id, fields),
            fields["head"],
            fields.get("body", b""),
            fields["spool"].decode(),
            packing.unpack_response(fields.get("response")),
        )

    def _find_past(self, request_id: str, agent_id: str) -> Detail | None:
        packed = self._client.run(_FIND_PAST, request_id, agent_id)
        return Detail(packing.unpack_past(agent_id, packed), b"", b"", "", None) if packed else None

    def _require(self, agent_id: str, request_id: str, was: str, wanted: RequestState, verb: str) -> None:
        """Raise where a request was not in the state in which it can be `verb`."""
        if was == wanted:
            return
        if was in (RequestState.PROCESSING, RequestState.PENDING):
            where = "with the agent now" if was == RequestState.PROCESSING else "still waiting"
            code = "REQUEST_IN_FLIGHT" if was == RequestState.PROCESSING else "REQUEST_PENDING"
            raise Conflict(f"request {request_id} can't be {verb}: it is {where}", code=code)
        if not was and self._find_past(request_id, agent_id) is None:
            raise NotFound("request", request_id)
        raise Conflict(f"request {request_id} can't be {verb}: it is {was or 'completed'}", code="REQUEST_ENDED")

    def _remove_files(self, files: Iterable[bytes]) -> None:
        self._spool.remove(file.decode() for file in files)

    def _sweep_spool(self, limit: int) -> int:
        names = self._spool.unclaimed(defaults.SPOOL_GRACE_S)[:limit]
        if not names:
            return 0
        ids = {name.partition(".")[0] for name in names}
        unknown = {request_id.decode() for request_id in self._client.run(_UNREFERENCED, *ids)}
        orphans = [name for name in names if name.partition(".")[0] in unknown]
        self._spool.sweep(orphans)
        return len(orphans)

    def _memory_left(self) -> float:
        """Return 1.0 while Redis has memory to spare, less down to 0.0 while it has not."""
        memory = self._client.info("memory")
        most = int(memory.get("maxmemory", 0))
        if not most:
            return 1.0
        used = int(memory["used_memory"]) / most
        return min(max((_NO_MEMORY - used) / (_NO_MEMORY - _SPARE_MEMORY), 0.0), 1.0)


def _counts(answer: list[Any]) -> Counts:
    pending, processing, completed, failed, pending_bytes, *metas = answer
    oldest = min((packing.unpack_meta(meta).received_at for meta in metas if meta), default=0.0)
    return Counts(pending, processing, completed, failed, pending_bytes, oldest)


def _text(at: float) -> str:
    return f"{at:.6f}"
