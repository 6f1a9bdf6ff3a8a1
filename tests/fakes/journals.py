"""A journal in memory that keeps the protocol, and can be away or full: for what the data plane does with either."""

from agentainerd.errors import TooManyRequests, Unavailable
from agentainerd.model.requests import Reason
from agentainerd.proxy.journal import KeyAnswer, KeyVerdict


class MemoryWrite:
    done = True

    def __init__(self, error=None):
        self.error = error
        self.refused = error.code if error else ""

    def then(self, callback):
        callback()

    def wait(self):
        if self.error:
            raise self.error


class MemorySpool:
    def __init__(self, request_id):
        self.name = f"{request_id}.body"
        self.data = b""
        self.sealed = self.discarded = False

    def write(self, piece):
        self.data += piece

    def seal(self):
        self.sealed = True
        return self.name

    def pieces(self):
        yield self.data

    def discard(self):
        self.discarded = True


class MemoryJournal:
    """`live`, `pending` and `settled` map an id to a record, (record, reason) and (record, outcome)."""

    def __init__(self):
        self.available = True
        self.full = False
        self.reserved = []
        self.live, self.pending, self.settled = {}, {}, {}
        self.keys, self.answers, self.spools = {}, {}, {}

    def _check(self):
        if not self.available:
            raise Unavailable("Redis is away", code="JOURNAL_UNAVAILABLE")

    def begin(self, record):
        if not self.available:
            return MemoryWrite(Unavailable("Redis is away", code="JOURNAL_UNAVAILABLE"))
        self.live[record.id] = record
        return MemoryWrite()

    def reserve(self, record):
        self._check()
        self.reserved.append(record.id)
        if record.key:
            first = self.keys.get(record.key.scope)
            if first is not None:
                return self._known(first, record)
            self.keys[record.key.scope] = record
        self.live[record.id] = record
        return KeyAnswer(KeyVerdict.NEW, record.id)

    def _known(self, first, record):
        if first.key.fingerprint != record.key.fingerprint:
            return KeyAnswer(KeyVerdict.MISMATCH, first.id)
        if first.id in self.pending:
            return KeyAnswer(KeyVerdict.PENDING, first.id)
        if first.id in self.live:
            return KeyAnswer(KeyVerdict.IN_FLIGHT, first.id)
        return KeyAnswer(KeyVerdict.DONE, first.id, self.settled[first.id][1].response)

    def accept(self, record, *, reason=Reason.QUEUED, due_at=0.0):
        self._check()
        if self.full:
            raise TooManyRequests("agent has 10000 queued requests", code="QUEUE_FULL", retry_after_s=7)
        self.live.pop(record.id, None)
        self.pending[record.id] = (record, reason)

    def settle(self, record, outcome):
        self.live.pop(record.id, None)
        self.settled[record.id] = (record, outcome)

    def spool(self, request_id):
        self.spools[request_id] = MemorySpool(request_id)
        return self.spools[request_id]
