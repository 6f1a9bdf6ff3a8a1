"""The whole store on a real server, as one daemon has it: client, spool, journal, requests.

Fixtures: `store` (on a server of all tests), `own_store` (on one of its own), `host` (a state folder, with the daemon's own
server, to be started and stopped by the test).
"""

import os
import shutil
import signal
import tempfile
import time
import uuid
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError

from agentainerd.errors import Failed
from agentainerd.model.requests import (
    IdempotencyKey,
    Outcome,
    Reason,
    Record,
    RequestState,
    StoredResponse,
)
from agentainerd.store import losses
from agentainerd.store.connection import RedisClient
from agentainerd.store.journal import RedisJournal
from agentainerd.store.redis_server import RedisServer
from agentainerd.store.requests import RequestStore
from agentainerd.store.spool import Spool
from agentainerd.supervisor import Supervisor
from tests.fakes import invariants
from tests.fakes.redis import find_server

AGENT = "agent-00000000000000aa"
COMPLETED = Outcome(RequestState.COMPLETED, Reason.ANSWERED, status=200, response_bytes=5, duration_s=0.01)
ANSWERED = Outcome(
    RequestState.COMPLETED,
    Reason.REPLAY,
    status=200,
    response_bytes=5,
    response=StoredResponse(200, b"HTTP/1.1 200 OK\r\n", b"hello"),
)
INTERRUPTED = Outcome(RequestState.FAILED, Reason.INTERRUPTED, error="the client left")


class Store:
    """Everything of the store on one server, as one daemon has it. `restart` is the next start of that daemon."""

    def __init__(self, server, folder):
        self.server = server
        self.folder = folder
        self.client = RedisClient(server.url)
        self.supervisor = Supervisor()
        self.spool = Spool(folder / "spool")
        self.requests = RequestStore(self.client, self.spool)
        self.fenced = []
        self.journals = []
        self.journal = self.open()

    def open(self, **options):
        journal = RedisJournal(
            self.client,
            self.spool,
            **{
                "state_dir": self.folder,
                "spawn": self.supervisor.spawn,
                "on_fenced": lambda: self.fenced.append(True),
                "min_free_bytes": 0,
                **options,
            },
        )
        self.journals.append(journal)
        self.recovered = journal.open()
        return journal

    def restart(self):
        self.journal.close(0)
        self.journal = self.open()
        return self.recovered

    def record(self, agent_id=AGENT, *, body=b"", key=None, fingerprint="print", **options):
        now = time.time()
        options.setdefault("method", b"POST")
        options.setdefault("expires_at", now + 3600)
        return Record(
            str(uuid.uuid4()),
            agent_id,
            head=b"POST /do HTTP/1.1\r\nHost: agent\r\n",
            target=b"/agent/web/do",
            received_at=now,
            body=body,
            body_bytes=options.pop("body_bytes", len(body)),
            key=IdempotencyKey(f"scope-{key}", fingerprint) if key else None,
            **options,
        )

    def begin(self, **options):
        record = self.record(**options)
        self.journal.begin(record).wait()
        return record

    def accept(self, **options):
        record = self.record(**options)
        self.journal.accept(record)
        return record

    def claim(self, limit=10, *, agent_id=AGENT, lease_s=30.0, now=None, ordered=False):
        return self.journal.claim(agent_id, limit=limit, now=now or time.time(), lease_s=lease_s, ordered=ordered)

    def settle(self, record, outcome=COMPLETED):
        self.journal.settle(record, outcome)
        self.flush()

    def flush(self):
        """Return when all that was written is durable."""
        self.journal.claim("agent-nobody", limit=1, now=time.time(), lease_s=1.0)

    def cut(self, *, arrives, then=lambda: None):
        """The journal's next batch is sent in vain, or (`arrives`) runs, and then its answer is lost."""
        connection = self.journal._committer._connection
        name = "read_response" if arrives else "send_packed_command"

        def fail(*arguments, **options):
            delattr(connection, name)
            if arrives:
                connection.read_response(*arguments, **options)
            then()
            raise ConnectionError("cut")

        setattr(connection, name, fail)

    def ids(self, state=None, agent_id=AGENT):
        return [summary.id for summary in self.requests.page(agent_id, state=state, limit=1000)[0]]

    def summary(self, record):
        return self.requests.detail(record.agent_id, record.id).summary

    def state(self, record):
        summary = self.summary(record)
        return summary.state, summary.reason

    def close(self):
        for journal in self.journals:
            journal.close(1.0)
        self.supervisor.stop(1)
        self.client.close()


class Host:
    """A state folder, and one daemon's worth of store on it at a time."""

    def __init__(self, folder, kind):
        self.state, self.runtime = folder / "state", folder / "run"
        self.state.mkdir()
        self.runtime.mkdir()
        self.binary = find_server(kind)
        self.running = []

    def start(self):
        supervisor = Supervisor()
        server = RedisServer(
            self.binary, state_dir=self.state, runtime_dir=self.runtime, maxmemory_bytes=0, spawn=supervisor.spawn
        )
        self.running += [server.stop, lambda: supervisor.stop(1)]
        server.start()
        store = Store(server, self.state)
        self.running.append(store.close)
        return store

    def kill(self, store):
        """Daemon and server die at once, without a word."""
        store.supervisor.stop(1)
        self.running.pop()
        self.running.pop()()
        os.kill(store.server.pid, signal.SIGKILL)
        self.stop()

    def stop(self):
        while self.running:
            self.running.pop()()

    def refused(self, hint=None):
        """Start, and return the error."""
        with pytest.raises(Failed) as error:
            self.start()
        self.stop()
        assert (hint or f"agentainerd --state-dir {self.state} --accept-journal-loss") in error.value.hint
        return error.value

    def accept_loss(self):
        return list(losses.accept(self.state, lambda: self.binary))

    @property
    def journal_dir(self):
        return self.state / "journal"


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="store-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _opened(server, folder):
    store = Store(server, folder)
    try:
        yield store
        invariants.require(server.url, any_owner=True)
    finally:
        store.close()


@pytest.fixture
def store(flushed_redis, folder):
    """The store on a server that all tests share. What must always hold is checked after each test."""
    yield from _opened(flushed_redis, folder)


@pytest.fixture
def own_store(any_redis, folder):
    """The store on a server of its own, to be killed, frozen or filled; it must answer again at the end of the test."""
    yield from _opened(any_redis, folder)


@pytest.fixture(params=["redis", "valkey"])
def host(request):
    folder = Path(tempfile.mkdtemp(prefix="host-"))
    host = Host(folder, request.param)
    yield host
    host.stop()
    shutil.rmtree(folder, ignore_errors=True)
