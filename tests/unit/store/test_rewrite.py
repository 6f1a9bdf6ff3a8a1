"""Redis is killed while it rewrites its files, between their renames and the switch of their list: really, under load.

REWRITE_KILLS says how often (6, on Redis and Valkey in turns, by itself).
"""

import os
import random
import signal
import time
from contextlib import suppress

import gevent
import pytest
from gevent.event import Event

from agentainerd.errors import Unavailable
from agentainerd.store import aof, redis_process
from tests.fakes.invariants import violations

pytestmark = pytest.mark.redis
KILLS = int(os.environ.get("REWRITE_KILLS", "6")) // 2
LONGEST_REWRITE_S = 0.04


def keep_accepting(store, until, accepted, refused):
    while not until.is_set():
        record = store.record(body=b"x" * 500, max_pending=10**6)
        try:
            store.journal.accept(record)
            accepted.add(record.id)
        except Unavailable:
            refused.add(record.id)
        gevent.sleep(0.01)


@pytest.mark.timeout(0)
def test_no_accepted_request_is_lost_when_redis_is_killed_while_it_rewrites(host, eventually, monkeypatch):
    monkeypatch.setattr(redis_process, "MAX_RESTART_S", 0.1)
    store, stop, chance = host.start(), Event(), random.Random(3)
    accepted, refused = set(), set()
    workers = [gevent.spawn(keep_accepting, store, stop, accepted, refused) for _ in range(8)]

    for number in range(KILLS):
        before = len(accepted)
        eventually(lambda count=before: len(accepted) > count + 20, what="load")
        kill_in_a_rewrite(store, aof.folder(host.journal_dir), number, chance)
    stop.set()
    gevent.joinall(workers, raise_error=True)
    eventually(lambda: store.journal.available, what="the journal")
    store.flush()

    assert violations(store.server.url) == []
    found = set(everything(store))
    assert accepted <= found, f"{len(accepted - found)} of {len(accepted)} lost"
    assert not refused & found, "what was refused must not be delivered"
    host.stop()
    assert accepted <= set(everything(host.start()))


def kill_in_a_rewrite(store, files, number, chance):
    """Begin a rewrite, and kill the server some time after, or as soon as the names of its files change."""
    names = set(files.iterdir())
    pid = store.server.pid
    with suppress(Unavailable):
        store.client.call("BGREWRITEAOF")
    end = time.monotonic() + (LONGEST_REWRITE_S if number % 2 else chance.uniform(0, LONGEST_REWRITE_S))
    while time.monotonic() < end and not (number % 2 and set(files.iterdir()) != names):
        gevent.sleep(0.0005)
    os.kill(pid, signal.SIGKILL)


def everything(store):
    cursor = ""
    while cursor is not None:
        page, cursor = store.requests.page(store.record().agent_id, limit=1000, cursor=cursor)
        yield from (summary.id for summary in page)
