#!/usr/bin/env python3
"""What a request costs in the data plane, beside nginx on the same agent, in one run.

    python tests/bench/bench_proxy.py [--rounds 3] [--seconds 3] [--connections 64] [--post BYTES] [--compiled FOLDER]

Needs wrk and nginx (apt-get install wrk nginx-light). The agent is an nginx that answers 100 bytes at once, so that it never
is the bottleneck. Rounds alternate between the proxies; the figure to compare is CPU microseconds per request (median):
client, agent and proxy share the machine's cores, so throughput alone says little.

    off      the data plane, agent without persistence
    durable  the same with the journal: on disk before the answer leaves; the Redis server's share is given beside
    nginx    one worker, proxy_buffering off, keep-alive to the agent

With --compiled, the folder of an installed wheel whose hot path is compiled, both are measured once more with that.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import gc  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import socket  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
if "AGENTAINER_BENCH_CODE" in os.environ:
    sys.path.insert(0, os.environ["AGENTAINER_BENCH_CODE"])

from agentainerd.daemon import GC_THRESHOLDS  # noqa: E402
from agentainerd.proxy.journal import NullJournal  # noqa: E402
from agentainerd.proxy.routing import Route, RouteTable  # noqa: E402
from agentainerd.proxy.server import DataPlane, ProxyOptions  # noqa: E402
from agentainerd.proxy.target import Target  # noqa: E402
from agentainerd.store.connection import RedisClient  # noqa: E402
from agentainerd.store.journal import RedisJournal  # noqa: E402
from agentainerd.store.spool import Spool  # noqa: E402
from agentainerd.supervisor import Supervisor  # noqa: E402
from tests.fakes.redis import RedisProcess  # noqa: E402

NGINX = """worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_buffer_size 1m; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
 fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
 upstream agent {{ server 127.0.0.1:{agent}; keepalive 512; }}
 server {{ listen 127.0.0.1:{agent} backlog=4096; location / {{ default_type application/json; return 200 "{answer}"; }} }}
 server {{ listen 127.0.0.1:{proxy} backlog=4096;
  location /agent/bench/ {{ proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_pass http://agent/; }} }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def serve(port: int, agent: int, redis: str, folder: str) -> None:
    """The data plane alone, in a process of its own."""
    routes, supervisor = RouteTable(), Supervisor()
    route = Route("agent-0123456789abcdef", "bench")
    route.targets = [Target(("127.0.0.1", agent))]
    route.persistence = bool(redis)
    route.open()
    routes.publish(route)
    routes.complete = True
    journal = NullJournal()
    if redis:
        journal = RedisJournal(
            RedisClient(redis), Spool(Path(folder) / "spool"), state_dir=Path(folder), spawn=supervisor.spawn,
            on_fenced=lambda: None,
        )  # fmt: skip
        journal.open()
    plane = DataPlane(routes, journal, ProxyOptions(), gateway_socket=f"{folder}/none", ticket=str)
    plane.serve(socket.create_server(("127.0.0.1", port), backlog=4096))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gevent.get_hub().join()
    gevent.sleep(10**6)


class Process:
    def __init__(self, name: str, port: int, command: list[str], **environment: str):
        self.name, self.port = name, port
        self.child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | environment)
        self.rounds: list[dict[str, float]] = []

    def cpu_s(self) -> float:
        return cpu_s(self.child.pid)


def cpu_s(pid: int) -> float:
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in [process, *process.children(recursive=True)])


def wait_for(port: int) -> None:
    end = time.monotonic() + 15
    while time.monotonic() < end:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        gevent.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def wrk(port: int, args: argparse.Namespace, script: list[str]) -> dict[str, float]:
    command = ["wrk", "-t1", f"-c{args.connections}", f"-d{args.seconds}", "--latency", *script]
    out = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/agent/bench/"], capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in out or "Socket errors" in out:
        sys.exit(out)
    scale = {"us": 0.001, "ms": 1.0, "s": 1000.0}
    latency = {
        quantile: float(number) * scale[unit]
        for quantile, number, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)", out)
    }
    return {
        "requests": float(re.search(r"(\d+) requests in", out).group(1)),
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
        "p50": latency["50"],
        "p99": latency["99"],
    }


def measure(process: Process, args: argparse.Namespace, script: list[str], redis_pids: list[int]) -> None:
    before, redis_before = process.cpu_s(), sum(map(cpu_s, redis_pids))
    figures = wrk(process.port, args, script)
    figures["cpu_us"] = (process.cpu_s() - before) * 1e6 / figures["requests"]
    figures["redis_us"] = (sum(map(cpu_s, redis_pids)) - redis_before) * 1e6 / figures["requests"]
    process.rounds.append(figures)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=int, default=3)
    arguments.add_argument("--connections", type=int, default=64)
    arguments.add_argument("--post", type=int, default=0, metavar="BYTES")
    arguments.add_argument("--compiled", metavar="FOLDER")
    args = arguments.parse_args()
    for program in ("wrk", "nginx"):
        if not shutil.which(program):
            sys.exit(f"error: {program} is missing\nhint: apt-get install wrk nginx-light")
    with tempfile.TemporaryDirectory(prefix="agd-bench-") as name:
        run(args, Path(name))


def run(args: argparse.Namespace, folder: Path) -> None:
    agent, script = free_port(), []
    if args.post:
        (folder / "post.lua").write_text(f'wrk.method="POST"\nwrk.body=string.rep("x",{args.post})\n')
        script = ["-s", str(folder / "post.lua")]
    servers = [RedisProcess(folder=folder / f"redis-{number}") for number in range(2)]  # a journal has one daemon
    nginx_port = free_port()
    (folder / "nginx.conf").write_text(NGINX.format(dir=folder, agent=agent, proxy=nginx_port, answer="x" * 100))
    peers = [Process("nginx", nginx_port, ["nginx", "-c", str(folder / "nginx.conf")])]
    try:
        for redis in servers:
            redis.start()
        codes = [{}, {"AGENTAINER_BENCH_CODE": args.compiled}] if args.compiled else [{}]
        for code, redis in zip(codes, servers, strict=False):
            for mode, address in (("off", ""), ("durable", redis.url)):
                port, name = free_port(), f"{mode}, compiled" if code else mode
                state = folder / name
                state.mkdir()
                command = [sys.executable, __file__, "--serve", str(port), str(agent), address, str(state)]
                peers.append(Process(name, port, command, **code))
        for peer in peers:
            wait_for(peer.port)
            wrk(peer.port, args, script)
        for _ in range(args.rounds):
            for peer in peers:
                measure(peer, args, script, [redis.pid for redis in servers])
        report(peers)
    finally:
        for peer in peers:
            peer.child.terminate()
            peer.child.wait()
        for redis in servers:
            redis.stop()


def report(peers: list[Process]) -> None:
    print(f"{'proxy':18} {'cpu us/req':>11} {'x nginx':>8} {'rps':>8} {'p50 ms':>8} {'p99 ms':>8} {'redis us':>9}")
    rows = {
        peer.name: {key: statistics.median(r[key] for r in peer.rounds) for key in peer.rounds[0]} for peer in peers
    }
    for name, row in rows.items():
        ratio = row["cpu_us"] / rows["nginx"]["cpu_us"]
        redis_us = f"{row['redis_us']:9.1f}" if name.startswith("durable") else " " * 9
        print(
            f"{name:18} {row['cpu_us']:11.1f} {ratio:8.2f} {row['rps']:8.0f} {row['p50']:8.2f} {row['p99']:8.2f} {redis_us}"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5])
    else:
        main()
