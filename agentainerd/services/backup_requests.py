"""Pending requests in backups: taken out of the journal whole, and put into it again. They are only ever stored encrypted."""

import time
import uuid
from collections.abc import Iterator

import msgspec

from agentainerd import defaults, offload
from agentainerd.errors import AgentainerError, NotFound
from agentainerd.model.agents import Agent
from agentainerd.model.backups import damaged
from agentainerd.model.requests import Detail, Reason, Record, RequestState
from agentainerd.store.journal import RedisJournal
from agentainerd.store.requests import RequestStore
from agentainerd.store.spool import Spool

_ID_FIELD = b"X-Agentainer-Request-ID: "
_PAGE = 200


class StoredRequest(msgspec.Struct, frozen=True):
    """A pending request: `head` and `body` as the agent gets them, `attempts` that were made; times in epoch seconds."""

    agent_id: str
    id: str
    method: bytes
    target: bytes
    head: bytes
    body: bytes
    received_at: float
    attempts: int = 0
    maybe_duplicate: bool = False


_decoder = msgspec.msgpack.Decoder(StoredRequest)


class RequestCopies:
    """Reads and writes pending requests. Every method blocks its greenlet only."""

    def __init__(self, store: RequestStore, spool: Spool, journal: RedisJournal, *, max_age_s: float) -> None:
        self._store = store
        self._spool = spool
        self._journal = journal
        self._max_age_s = max_age_s

    def read(self, agent: Agent) -> Iterator[bytes]:
        """Yield an agent's pending requests, in the order in which they will be sent; those that end meanwhile are left out."""
        cursor: str | None = ""
        while cursor is not None:
            summaries, cursor = self._store.page(agent.id, state=RequestState.PENDING, limit=_PAGE, cursor=cursor)
            for summary in summaries:
                try:
                    found = self._store.detail(agent.id, summary.id)
                    if found.summary.state is RequestState.PENDING:
                        yield msgspec.msgpack.encode(self._stored(found))
                except NotFound:
                    continue

    def write(self, data: bytes, agent: Agent, *, is_new: bool) -> bool:
        """Make a request of a backup pending again, of `agent`, with a new deadline; return whether there was anything to do.

        One that the journal knows by its id, whatever became of it, is left alone; with `is_new` it gets an id of its own.

        Raises:
            Failed: code BACKUP_DAMAGED. TooManyRequests, Unavailable: the journal did not take it.
        """
        stored = decode(data)
        request_id = str(uuid.uuid4()) if is_new else stored.id
        if not is_new and self._is_known(request_id):
            return False
        record = Record(
            request_id,
            agent.id,
            head=_renamed(stored.head, request_id),
            method=stored.method,
            target=stored.target,
            received_at=stored.received_at,
            expires_at=time.time() + self._max_age_s,
            body_bytes=len(stored.body),
            policy=agent.spec.replay_policy,
            attempt=stored.attempts + 1,
            maybe_duplicate=stored.maybe_duplicate,
            max_pending=agent.spec.max_pending,
            max_pending_bytes=agent.spec.max_pending_bytes,
        )
        self._accept(record, stored.body)
        return True

    def _accept(self, record: Record, body: bytes) -> None:
        if len(body) <= defaults.MAX_INLINE_BODY_BYTES:
            record.body = body
            self._journal.accept(record, reason=Reason.QUEUED)
            return
        writer = self._spool.create(record.id)
        try:
            offload.run(writer.write, body)
            record.spool = writer.seal()
            self._journal.accept(record, reason=Reason.QUEUED)
        except AgentainerError:
            writer.discard()
            raise

    def _stored(self, found: Detail) -> StoredRequest:
        summary = found.summary
        body = offload.run(self._spooled, found.spool) if found.spool else found.body
        return StoredRequest(
            summary.agent_id, summary.id, summary.method.encode("latin-1"), summary.target.encode("utf-8", "replace"),
            found.head, body, summary.received_at, summary.attempts, summary.maybe_duplicate,
        )  # fmt: skip

    def _spooled(self, name: str) -> bytes:
        return b"".join(self._spool.pieces(name))

    def _is_known(self, request_id: str) -> bool:
        try:
            self._store.locate(request_id)
        except NotFound:
            return False
        return True


def decode(data: bytes) -> StoredRequest:
    """Return a request of a backup. Raises Failed (code BACKUP_DAMAGED)."""
    try:
        stored = _decoder.decode(data)
        if str(uuid.UUID(stored.id)) != stored.id or not stored.head.endswith(b"\r\n"):
            raise damaged("a request in it is none")
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError) as exc:
        raise damaged("a request in it is none") from exc
    return stored


def _renamed(head: bytes, request_id: str) -> bytes:
    """Return a head with another id in the field that has it, which is the last one."""
    before, field, after = head.rpartition(_ID_FIELD)
    return before + field + request_id.encode() + b"\r\n" if field and after.count(b"\r\n") == 1 else head
