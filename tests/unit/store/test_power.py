"""Loss of power at many moments of a run under load: everything that was accepted is there again, and the start needs nobody.

POWER_LOSSES says how many moments (10 each on Redis and Valkey by itself), half of them while files change their names.
"""

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from agentainerd.store.redis_server import RedisServer
from agentainerd.supervisor import Supervisor
from tests.fakes import power_load
from tests.fakes.power import Disk, trace
from tests.fakes.redis import check_invariants, find_server
from tests.fakes.stores import Store

pytestmark = pytest.mark.redis
ROOT = Path(__file__).parents[3]
LOSSES = int(os.environ.get("POWER_LOSSES", "20")) // 2
SECONDS = 1.5
FAULT = "fdatasync:error=EIO:when=40"
"""The server ends when an fsync fails: what it had written is read again by the next one, and may not be on the disk."""


@pytest.fixture(scope="module", params=["redis", "valkey"])
def run(request):
    """A run that was watched, and the program that it ran on."""
    folder = Path(tempfile.mkdtemp(prefix="power-"))
    (folder / "state").mkdir()
    (folder / "run").mkdir()
    binary = find_server(request.param)
    arguments = [str(folder / "state"), str(folder / "run"), binary, str(SECONDS)]
    done = trace([sys.executable, "-m", "tests.fakes.power_load", *arguments], ROOT, folder / "log", fault=FAULT)
    assert done.returncode == 0, done.stderr
    yield Disk(folder / "state", folder / "log", folder / "state/journal"), binary
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(0)
def test_nothing_that_was_accepted_is_lost_when_power_goes(run):
    disk, binary = run
    chance = random.Random(7)
    numbers = disk.moments_of_trouble()
    assert numbers, "no fsync failed"
    numbers += [chance.choice(disk.moments_of_names()) for _ in range(LOSSES // 2)]
    numbers += [chance.randrange(len(disk.events)) for _ in range(LOSSES - len(numbers))]
    lost, total = {}, 0

    for number in sorted(numbers):
        acknowledged = disk.acknowledged_by(number)
        total += len(acknowledged)
        with tempfile.TemporaryDirectory(prefix="after-") as folder:
            state = Path(folder) / "state"
            state.mkdir()
            disk.after(number, chance).write(state)
            missing = set(acknowledged) - what_is_there(state, Path(folder), binary)
            if missing:
                lost[number] = missing

    assert not lost, f"{sum(map(len, lost.values()))} of {total} were lost: {lost}"
    assert total > 20 * LOSSES


def what_is_there(state, folder, binary):
    """Start on what is left; return the words that would be acknowledged for it."""
    (folder / "run").mkdir()
    supervisor = Supervisor()
    server = RedisServer(binary, state_dir=state, runtime_dir=folder / "run", maxmemory_bytes=0, spawn=supervisor.spawn)
    try:
        server.start()
        store = Store(server, state)
        try:
            check_invariants(store.client)
            return {word_of(store, summary.id) for summary in everything(store)}
        finally:
            store.close()
    finally:
        server.stop()
        supervisor.stop(1)


def everything(store):
    cursor = ""
    while cursor is not None:
        page, cursor = store.requests.page(power_load_agent(store), limit=1000, cursor=cursor)
        yield from page


def power_load_agent(store):
    return store.record().agent_id


def word_of(store, request_id):
    """The id of a request; of one with a body in the spool, only if that is there whole, the name of its file."""
    detail = store.requests.locate(request_id)
    if not detail.spool:
        return request_id
    whole = (request_id.encode() * power_load.SPOOLED)[: power_load.SPOOLED // 4] * 4
    return detail.spool if b"".join(store.spool.pieces(detail.spool)) == whole else f"damaged {detail.spool}"
