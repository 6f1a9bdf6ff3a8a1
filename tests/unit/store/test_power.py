"""Loss of power at many moments of a run under load, and calls that fail in it: everything that was accepted is there again,
and the start needs nobody.

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
from tests.fakes.invariants import violations
from tests.fakes.power import Disk, fail, trace
from tests.fakes.redis import find_server
from tests.fakes.stores import Store

pytestmark = pytest.mark.redis
ROOT = Path(__file__).parents[3]
LOSSES = int(os.environ.get("POWER_LOSSES", "20")) // 2
SECONDS = 1.5
FAULT = "fdatasync:error=EIO:when=40"
"""The server ends when an fsync fails: what it had written is read again by the next one, and may not be on the disk."""


def load_on(folder, kind, restarts):
    """Make the folders of a run, in which Redis is to end so often; return its command and the program that it runs on."""
    (folder / "state").mkdir()
    (folder / "run").mkdir()
    binary = find_server(kind)
    arguments = [str(folder / "state"), str(folder / "run"), binary, str(SECONDS), str(restarts)]
    return [sys.executable, "-m", "tests.fakes.power_load", *arguments], binary


@pytest.fixture
def run_folder():
    folder = Path(tempfile.mkdtemp(prefix="power-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["redis", "valkey"])
def run(request, run_folder):
    """A run that was watched, and the program that it ran on."""
    command, binary = load_on(run_folder, request.param, restarts=1)
    done = trace(command, ROOT, run_folder / "log", fault=FAULT)
    assert done.returncode == 0, done.stderr
    return Disk(run_folder / "state", run_folder / "log", run_folder / "state/journal"), binary


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("redis", "write:error=ENOSPC:when=15+25"),
        ("valkey", "write:error=EIO:when=15+25"),
        ("valkey", "fdatasync:error=ENOSPC:when=15+25"),
        ("redis", "fdatasync:error=EIO:when=15+25"),
    ],
)
def test_call_that_fails_makes_no_false_promise_and_loses_nothing(run_folder, kind, fault):
    command, binary = load_on(run_folder, kind, restarts=2)
    files = run_folder / "state/journal/appendonlydir"
    paths = [files / f"appendonly.aof.{number}.incr.aof" for number in range(1, 9)]

    done = fail(command, ROOT, fault, paths)

    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is started again") >= 2, "Redis did not meet the fault"
    told = (run_folder / "acks").read_text().split()
    accepted = {word for word in told if not word.startswith("-")}
    refused = {word[1:] for word in told if word.startswith("-")}
    shutil.rmtree(run_folder / "run")
    found = what_is_there(run_folder / "state", run_folder, binary)
    assert len(accepted) > 20
    assert accepted <= found
    assert not {word.removesuffix(".body") for word in found} & refused


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
            assert violations(server.url) == []
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
