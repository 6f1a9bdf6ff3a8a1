#!/usr/bin/env python3
"""How long a start takes with a full journal: seconds until Redis answers, until the journal is open, until the daemon serves.

    python tests/bench/bench_start.py [--server redis|valkey] [--pending 100000] [--dead 100000] [--held 1000] [--agents 100]
                                      [--body 200]

`--held`: as many live requests and replays that were in flight when everything was killed. The daemon runs without an
engine, so that its time is that of the journal, the folders and the sockets.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agentainerd.model.requests import RequestState  # noqa: E402
from agentainerd.store.redis_server import RedisServer  # noqa: E402
from agentainerd.supervisor import Supervisor  # noqa: E402
from tests.fakes.daemons import NO_ENGINE, DaemonProcess, free_port  # noqa: E402
from tests.fakes.redis import find_server  # noqa: E402
from tests.fakes.stores import Store  # noqa: E402

AT_ONCE = 256


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="redis", choices=("redis", "valkey"))
    parser.add_argument("--pending", type=int, default=100_000)
    parser.add_argument("--dead", type=int, default=100_000)
    parser.add_argument("--held", type=int, default=1000)
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--body", type=int, default=200)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-start-"))
    try:
        (folder / "state").mkdir(mode=0o700)
        (folder / "run").mkdir(mode=0o755)
        binary = find_server(options.server)
        fill(folder, binary, options)
        size = sum(path.stat().st_size for path in (folder / "state/journal").rglob("*") if path.is_file())
        print(f"{options.pending} pending, {options.dead} dead, 2 x {options.held} in flight: {size / 2**20:.0f} MiB")
        measure_store(folder, binary)
        measure_daemon(folder, binary)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fill(folder, binary, options):
    """Make the journal, and kill the server under it."""
    server, store, supervisor = opened(folder, binary)
    agents = [f"agent-{number:016x}" for number in range(options.agents)]
    body = b"x" * options.body
    accept(store, agents, options.dead, body)
    for agent in agents:
        store.requests.purge(agent, state=RequestState.PENDING)
    accept(store, agents, options.pending + options.held, body)
    for agent in agents:
        store.claim(options.held // options.agents, agent_id=agent, lease_s=1000.0)
    for number in range(options.held):
        store.journal.begin(store.record(agents[number % len(agents)], body=body))
    store.flush()
    store.supervisor.stop(1)
    supervisor.stop(1)
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    store.client.close()


def accept(store, agents, total, body):
    def some(start):
        for number in range(start, total, AT_ONCE):
            store.journal.accept(store.record(agents[number % len(agents)], body=body, max_pending=10**6))

    gevent.joinall([gevent.spawn(some, start) for start in range(AT_ONCE)], raise_error=True)


def opened(folder, binary):
    supervisor = Supervisor()
    server = RedisServer(
        binary, state_dir=folder / "state", runtime_dir=folder / "run", maxmemory_bytes=0, spawn=supervisor.spawn
    )
    server.start()
    return server, Store(server, folder / "state"), supervisor


def measure_store(folder, binary):
    """Start the store alone on a copy, and take the first requests from it."""
    shutil.copytree(folder / "state", folder / "copy/state")
    (folder / "copy/run").mkdir()
    begin = time.perf_counter()
    supervisor = Supervisor()
    server = RedisServer(
        binary,
        state_dir=folder / "copy/state",
        runtime_dir=folder / "copy/run",
        maxmemory_bytes=0,
        spawn=supervisor.spawn,
    )
    server.start()
    loaded, times = time.perf_counter(), psutil.Process(server.pid).cpu_times()
    own = time.process_time()
    store = Store(server, folder / "copy/state")
    ready, own = time.perf_counter(), time.process_time() - own
    due = store.requests.due(time.time())
    for agent in due:
        store.claim(4, agent_id=agent)
    claimed = time.perf_counter()
    slow = [int(entry[2]) / 1000 for entry in store.client.call("SLOWLOG", "GET", "128")]
    print(
        f"store: Redis answers after {loaded - begin:.2f} s ({times.user + times.system:.2f} s of CPU), the journal is open "
        f"{ready - loaded:.2f} s later ({own:.2f} s of our CPU) "
        f"({store.recovered}), and {len(due)} agents' first requests are claimed {claimed - ready:.2f} s later; "
        f"longest command: {max(slow, default=0.0) or 'under 10'} ms"
    )
    store.close()
    server.stop()
    supervisor.stop(1)


def measure_daemon(folder, binary):
    """Start the daemon, until it says READY=1."""
    daemon = DaemonProcess(folder, folder / "run", free_port())
    begin = time.perf_counter()
    daemon.start(
        [],
        {
            "AGENTAINER_DOCKER_HOST": NO_ENGINE,
            "AGENTAINER_REDIS_SERVER_BINARY": binary,
            "AGENTAINER_REDIS_MAXMEMORY_BYTES": "2G",
        },
    )
    daemon.wait_ready()
    print(f"daemon: serves after {time.perf_counter() - begin:.2f} s")
    daemon.stop()


if __name__ == "__main__":
    main()
