#!/usr/bin/env python3
"""What it costs to measure a hundred agents, and what a daemon with a hundred idle agents takes of the machine.

    python tests/bench/bench_metrics.py [--agents 100] [--rounds 20] [--idle 60] [--only round|daemon] [--compiled FOLDER]

Needs a Docker Engine and the base image (scripts/make-base-image). The agents are real containers, each of which listens and
does nothing else.

    round    all services on a real Redis, in this process: CPU (of all threads) and duration of one whole round: reading the
             agents from Redis, their cgroups, their queues, and noting the history; beside it the reading of the cgroups alone,
             a round that also writes its minute, and the engine's own figures for one container
    daemon   the whole daemon after `--idle` seconds without a request: memory of it and of its Redis (RSS, and PSS, which
             counts what both share once), CPU of both in these seconds, and a scrape of /metrics
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import docker  # noqa: E402
import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent.pool import Pool  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agentainerd import clock, defaults  # noqa: E402
from agentainerd.engine.docker_engine import DockerEngine  # noqa: E402
from tests.fakes.daemons import DaemonProcess, free_port  # noqa: E402
from tests.fakes.docker import BASE_IMAGE, Sandbox, new_sandbox  # noqa: E402
from tests.fakes.redis import RedisProcess  # noqa: E402
from tests.fakes.world import World  # noqa: E402

LISTEN = "import socket\ns = socket.create_server(('', 8000))\nwhile True: s.accept()[0].close()"
COMMAND = ["python3", "-SEc", LISTEN]
STARTS_AT_ONCE = 4


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--only", choices=("round", "daemon"))
    parser.add_argument("--compiled", metavar="FOLDER")
    args = parser.parse_args()
    host = os.environ.get("DOCKER_HOST", defaults.DOCKER_HOST)
    for name, part in (("round", measure_rounds), ("daemon", measure_daemon)):
        if args.only in (None, name):
            with new_sandbox(host) as sandbox, tempfile.TemporaryDirectory(prefix="agm-") as folder:
                part(sandbox, Path(folder), args)


def measure_rounds(sandbox: Sandbox, folder: Path, args: argparse.Namespace) -> None:
    engine = DockerEngine(sandbox.host, network=sandbox.network, isolated_network=sandbox.isolated_network)
    redis = RedisProcess(folder / "redis").start()
    world = World(folder, redis.url, engine).begin()
    try:
        began = time.monotonic()
        names = [f"agent-number-{number}" for number in range(args.agents)]
        Pool(STARTS_AT_ONCE).map(lambda name: world.up(name, image=BASE_IMAGE, command=COMMAND), names)
        print(f"{args.agents} agents were deployed and started in {time.monotonic() - began:.0f} s")
        measuring, agents = world.services.measuring, world.agents.all()
        ids = [agent.container_id for agent in agents]
        assert len(engine.usages(ids)) == args.agents
        now = clock.now()
        report("a round", args.rounds, lambda number: measuring.run_once(now + number / 1000))
        report(
            "a round that writes its minute", args.rounds, lambda number: measuring.run_once(now + 60 * (number + 1))
        )
        report("the cgroups alone", args.rounds, lambda number: engine.usages(ids))
        client = docker.APIClient(sandbox.host, version="auto")
        report("the engine's own figures, one container", 3, lambda number: client.stats(ids[0], stream=False))
        client.close()
        size = world.redis.call("MEMORY", "USAGE", f"agentainer:usage:{agents[0].id}")
        print(f"history of one agent: {size} bytes in Redis")
    finally:
        world.end()
        engine.close()
        redis.stop()


def report(what: str, rounds: int, run: Callable[[int], object]) -> None:
    """Run it so often; print CPU and duration, median and most, and how long the event loop stood still, in milliseconds."""
    run(0)
    cpu, wall, gaps = [], [], [0.0]
    ticking = gevent.Greenlet(tick, gaps)
    ticking.start()
    for number in range(1, rounds + 1):
        cpu_before, before = time.process_time(), time.perf_counter()
        run(number)
        cpu.append((time.process_time() - cpu_before) * 1000)
        wall.append((time.perf_counter() - before) * 1000)
    print(
        f"{what:42} CPU {statistics.median(cpu):6.1f} ms (at most {max(cpu):.1f}), "
        f"duration {statistics.median(wall):6.1f} ms (at most {max(wall):.1f}), loop still for at most {max(gaps):.1f} ms"
    )
    ticking.kill()


def tick(gaps: list[float]) -> None:
    """Note by how much a timer of a millisecond is late, over and over."""
    while True:
        before = time.perf_counter()
        gevent.sleep(0.001)
        gaps.append((time.perf_counter() - before) * 1000 - 1)


def measure_daemon(sandbox: Sandbox, folder: Path, args: argparse.Namespace) -> None:
    (folder / "run").mkdir(mode=0o755)
    daemon = DaemonProcess(folder, folder / "run", free_port())
    environment = {
        "AGENTAINER_DOCKER_HOST": sandbox.host, "AGENTAINER_DOCKER_NETWORK": sandbox.network,
        "AGENTAINER_DOCKER_ISOLATED_NETWORK": sandbox.isolated_network,
    }  # fmt: skip
    if args.compiled:
        environment |= {"PYTHONPATH": str(Path(args.compiled).resolve()), "PYTHONSAFEPATH": "1"}
    daemon.start([], environment)
    try:
        daemon.wait_ready()
        Pool(STARTS_AT_ONCE).map(lambda number: start(daemon, f"agent-number-{number}"), range(args.agents))
        assert daemon.stop() == 0
        daemon = again(daemon, environment)
        while daemon.control("GET", "/system/info")[1]["data"]["agents"]["ready"] < args.agents:
            gevent.sleep(0.1)
        watch(daemon, args.idle)
        assert daemon.stop() == 0
    except BaseException:
        daemon.clean_up()
        raise


def start(daemon: DaemonProcess, name: str) -> None:
    body = {"name": name, "image": BASE_IMAGE, "command": COMMAND}
    assert daemon.control("POST", "/agents", body)[0] == 201
    assert daemon.control("POST", f"/agents/{name}/start?wait=60", timeout_s=90)[0] == 200


def again(daemon: DaemonProcess, environment: dict[str, str]) -> DaemonProcess:
    """Start it once more, as it is after an upgrade: what the deploying took is gone."""
    later = DaemonProcess(daemon.folder, daemon.runtime_dir, daemon.port)
    later.start([], environment)
    return later.wait_ready()


def watch(daemon: DaemonProcess, idle_s: float) -> None:
    process = psutil.Process(daemon.pid)
    redis = next(each for each in process.children() if each.name() in ("redis-server", "valkey-server"))
    cpu_before = [each.cpu_times() for each in (process, redis)]
    gevent.sleep(idle_s)
    for name, each, before in zip(("daemon", "redis"), (process, redis), cpu_before, strict=True):
        memory, now = each.memory_full_info(), each.cpu_times()
        used_s = now.user + now.system - before.user - before.system
        print(
            f"{name:8} RSS {memory.rss / 1e6:6.1f} MB, PSS {memory.pss / 1e6:6.1f} MB, "
            f"CPU {used_s / idle_s * 100:.1f} % of a core in {idle_s:.0f} s"
        )
    figures = daemon.control("GET", "/metrics/daemon")[1]["data"]
    print(
        f"the last round took {figures['metrics_round_ms']} ms; the loop stood still for at most {figures['loop_lag_ms']['largest']} ms"
    )
    cpu_before_s = sum(process.cpu_times()[:2])
    token = {"Authorization": f"Bearer {daemon.token}"}
    sizes = [len(daemon.http("GET", "/metrics", headers=token)[1]["raw"]) for _ in range(10)]
    cpu_ms = (sum(process.cpu_times()[:2]) - cpu_before_s) * 100
    print(
        f"a scrape of /metrics: {sizes[-1] / 1e6:.2f} MB, {cpu_ms:.0f} ms of CPU; then RSS {process.memory_info().rss / 1e6:.1f} MB"
    )


if __name__ == "__main__":
    main()
