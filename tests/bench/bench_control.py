#!/usr/bin/env python3
"""Whether control work stalls the data plane: latencies of proxied requests while the daemon is kept busy, beside nginx.

    python tests/bench/bench_control.py [--rate 2000] [--seconds 6] [--rounds 3] [--compiled FOLDER] [--only WORK ...]

Needs root, a Docker Engine, the base image (scripts/make-base-image) and nginx (apt-get install nginx-light). The daemon has
an engine of its own, with live-restore, on a network of its own, and 121 agents. GETs are sent at a fixed rate, whether the last
ones were answered or not, and their time counts from when they were due: to an agent with persistence (each answer waits for
the disk, which control work uses too), to one without, through nginx to the same one, and to that one itself, one after the
other while the same work is done. What grows at nginx and at the agent too is the machine's, not the daemon's.

    idle      nothing else
    builds    two images at a time are built, from contexts of 16 MiB, one after the other
    list      all agents are listed, over and over
    purge     10 000 queued requests are purged at once
    logs      the logs of 20 agents, of 20 lines a second each, are followed
    engine    the engine is restarted
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import contextlib  # noqa: E402
import io  # noqa: E402
import itertools  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tarfile  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fakes.daemons import DaemonProcess, UnixConnection, free_port  # noqa: E402
from tests.fakes.docker import BASE_IMAGE  # noqa: E402
from tests.fakes.engines import PrivateEngine, private_engine  # noqa: E402

AGENT_IMAGE = "agentainer-bench-nginx"
AGENT = f"""FROM {BASE_IMAGE}
RUN apt-get update -q && apt-get install -y -q nginx-light && rm -rf /var/lib/apt/lists/*
RUN printf 'worker_processes 1; daemon off; error_log stderr; events {{ worker_connections 4096; }} http {{ access_log off; \\
keepalive_requests 100000000; server {{ listen 8000 backlog=4096; location / {{ return 200 "%0100d"; }} }} }}' 0 > /agent.conf
EXPOSE 8000
CMD ["nginx", "-c", "/agent.conf"]
"""
NGINX = """worker_processes 1; daemon off; pid {dir}/pid; error_log {dir}/error; user root; events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; client_body_temp_path {dir}/b; proxy_temp_path {dir}/p;
 fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
 upstream agent {{ server {agent}:8000; keepalive 512; }}
 server {{ listen 127.0.0.1:{port} backlog=4096; location /agent/plain/ {{ proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_buffering off; proxy_pass http://agent/; }} }} }}
"""
CHATTER = [
    "/bin/sh",
    "-c",
    "while :; do echo a line of a log that somebody reads, with a usual length; sleep 0.05; done",
]
LOAD = """
import collections, json, selectors, socket, sys, time
host, port, agent = sys.argv[1], int(sys.argv[2]), sys.argv[3]
seconds, rate = float(sys.argv[4]), float(sys.argv[5])
ASK = f"GET /agent/{agent}/ HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode()
poll, free, took, failed = selectors.EpollSelector(), collections.deque(), [], 0
due_of = {}
def connect():
    connection = socket.create_connection((host, port))
    connection.setblocking(False)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    poll.register(connection, selectors.EVENT_READ)
    return connection
free.extend(connect() for _ in range(64))
began = time.perf_counter()
sent, total = 0, int(seconds * rate)
while len(took) + failed < total:
    now = time.perf_counter() - began
    while sent < total and sent / rate <= now:
        connection = free.pop() if free else connect()
        due_of[connection] = sent / rate
        sent += 1
        connection.send(ASK)
    for key, _ in poll.select(min(max(sent / rate - (time.perf_counter() - began), 0), 0.05) if sent < total else 0.05):
        answer = key.fileobj.recv(65536)
        took.append(time.perf_counter() - began - due_of.pop(key.fileobj, 0.0))
        failed += not answer.startswith(b"HTTP/1.1 200")
        if answer:
            free.append(key.fileobj)
        else:
            poll.unregister(key.fileobj)
    if now > seconds + 30:
        break
took.sort()
print(json.dumps({"p50": took[len(took) // 2] * 1e3, "p99": took[len(took) * 99 // 100] * 1e3, "max": took[-1] * 1e3,
                  "failed": failed + total - len(took)}))
"""

NICE = ["nice", "-n", "-5"]  # as the unit has it
NICE_CLIENT = ["nice", "-n", "-15"]  # what the client waits for a core is not the proxy's

Work = Callable[["Bench", Event], None]


class Bench:
    """A daemon under load, with an engine of its own."""

    def __init__(self, engine: PrivateEngine, folder: Path, args: argparse.Namespace) -> None:
        self.engine, self.folder, self.args = engine, folder, args
        self.port = free_port()
        (folder / "run").mkdir()
        self.daemon = DaemonProcess(folder, folder / "run", self.port)
        self.daemon.wrapper = [*NICE, *engine.inside]
        environment = {"AGENTAINER_DOCKER_HOST": engine.host}
        if args.compiled:
            environment["PYTHONPATH"] = str(Path(args.compiled).resolve())
            environment["PYTHONSAFEPATH"] = "1"
        self.daemon.start(["--config", str(self._config())], environment)
        self.daemon.wait_ready()
        self.numbers = itertools.count()

    def _config(self) -> Path:
        path = self.folder / "config.yaml"
        path.write_text("server: {max_connections_per_source: 10000}\n")
        return path

    def must(self, method: str, path: str, body: object = None) -> dict:
        status, said = self.daemon.control(method, path, body)
        if status >= 300:
            sys.exit(f"{method} {path}: {status} {said}")
        return said["data"]

    def ask(self, method: str, path: str, body: bytes = b"") -> None:
        """One request on the control socket; its answer is read to the end, and not looked at."""
        connection = UnixConnection(str(self.daemon.control_socket))
        connection.request(method, path, body)
        response = connection.getresponse()
        while response.read(1 << 16):
            pass
        connection.close()

    def deploy(self, name: str, *, start: bool = False, **fields: object) -> None:
        self.must("POST", "/agents", {"name": name, "image": AGENT_IMAGE, **fields})
        if start:
            self.must("POST", f"/agents/{name}/start?wait=30")

    def load(self, host: str, port: int, agent: str, seconds: float) -> dict[str, float]:
        """Requests at the rate, sent from a process of its own."""
        given = [host, str(port), agent, str(seconds), str(self.args.rate)]
        words = [*NICE_CLIENT, *self.engine.inside, sys.executable, "-c", LOAD, *given]
        return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)

    def lag_ms(self) -> float:
        return float(self.must("GET", "/system/info")["loop_lag"]["largest_of_last_minute_ms"])


def idle(bench: Bench, stop: Event) -> None:
    stop.wait()


def builds(bench: Bench, stop: Event) -> None:
    data = os.urandom(1 << 24)

    def build() -> None:
        while not stop.is_set():
            number = next(bench.numbers)
            bench.ask("POST", f"/images/build?tag=agentainer-bench:{number % 2}", context(number, data))

    gevent.joinall([gevent.spawn(build) for _ in range(2)])


def context(number: int, data: bytes) -> bytes:
    """A build context of 16 MiB that no cache knows."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, content in (
            ("Dockerfile", f"FROM {BASE_IMAGE}\nCOPY data /data\nRUN echo {number} > /number".encode()),
            ("data", data),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def listing(bench: Bench, stop: Event) -> None:
    while not stop.is_set():
        bench.ask("GET", "/agents?limit=1000")


def purge(bench: Bench, stop: Event) -> None:
    while not stop.is_set():
        queue(bench, 10_000)
        bench.ask("DELETE", "/agents/queue/requests?state=pending")
        stop.wait(1)


def queue(bench: Bench, count: int) -> None:
    """Requests for a stopped agent, from a process of its own."""
    program = (
        "import socket, sys\n"
        "ask = b'POST /agent/queue/ HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 100\\r\\n\\r\\n' + b'x' * 100\n"
        "c = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "for _ in range(int(sys.argv[2]) // 100):\n"
        "    c.sendall(ask * 100)\n"
        "    got = b''\n"
        "    while got.count(b'HTTP/1.1 202') < 100 or not got.endswith(b'\\n'): got += c.recv(1 << 16)\n"
    )
    subprocess.run([*bench.engine.inside, sys.executable, "-c", program, str(bench.port), str(count)], check=True)


def logs(bench: Bench, stop: Event) -> None:
    def follow(number: int) -> None:
        connection = UnixConnection(str(bench.daemon.control_socket))
        connection.request("GET", f"/agents/chatter-{number}/logs?follow=true&tail=10")
        response = connection.getresponse()
        while not stop.is_set() and response.read1(1 << 16):
            pass
        connection.close()

    gevent.joinall([gevent.spawn(follow, number) for number in range(20)])


def engine_restart(bench: Bench, stop: Event) -> None:
    while not stop.is_set():
        bench.engine.restart()
        stop.wait(2)


WORKS: dict[str, Work] = {
    "idle": idle, "builds": builds, "list": listing, "purge": purge, "logs": logs, "engine": engine_restart,
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rate", type=int, default=2000)
    arguments.add_argument("--seconds", type=float, default=6)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--compiled", metavar="FOLDER")
    arguments.add_argument("--only", nargs="*", choices=WORKS, default=list(WORKS))
    args = arguments.parse_args()
    subprocess.run(
        ["docker", "build", "-q", "-t", AGENT_IMAGE, "-"], input=AGENT.encode(), check=True, stdout=subprocess.DEVNULL
    )
    with (
        private_engine(BASE_IMAGE, AGENT_IMAGE, live_restore=True) as engine,
        tempfile.TemporaryDirectory(prefix="agd-") as folder,
    ):
        bench = Bench(engine, Path(folder), args)
        try:
            with agents_and_nginx(bench) as (address, nginx_port):
                run(bench, address, nginx_port)
        finally:
            bench.daemon.stop()


@contextlib.contextmanager
def agents_and_nginx(bench: Bench) -> Iterator[tuple[str, int]]:
    """The agents, and nginx before the first of them."""
    bench.deploy("durable", start=True)
    bench.deploy("plain", start=True, persistence=False)
    bench.deploy("queue", max_pending=50_000)
    for number in range(20):
        bench.deploy(f"chatter-{number}", command=CHATTER)
        bench.daemon.control(
            "POST", f"/agents/chatter-{number}/start?wait=0"
        )  # it listens on nothing, and is never ready
    for number in range(98):
        bench.deploy(f"agent-of-many-{number}")
    address = bench.engine.address_of(bench.must("GET", "/agents/plain")["container_id"])
    port, folder = free_port(), bench.folder / "nginx"
    folder.mkdir()
    (folder / "conf").write_text(NGINX.format(dir=folder, agent=address, port=port))
    with subprocess.Popen([*NICE, *bench.engine.inside, "nginx", "-c", str(folder / "conf")]) as nginx:
        try:
            yield address, port
        finally:
            nginx.terminate()


def run(bench: Bench, address: str, nginx_port: int) -> None:
    local = "127.0.0.1"
    ways = {
        "durable": (local, bench.port, "durable"), "plain": (local, bench.port, "plain"), "nginx": (local, nginx_port, "plain"),
        "alone": (address, 8000, "plain"),
    }  # fmt: skip
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for way in ways.values():
        bench.load(*way, 2)
    for _ in range(bench.args.rounds):
        for work in bench.args.only:
            stop = Event()
            doing = gevent.spawn(WORKS[work], bench, stop)
            time.sleep(0.5)
            for name, way in ways.items():
                found.setdefault((work, name), []).append(bench.load(*way, bench.args.seconds))
            stop.set()
            doing.get()
    report(found, bench)


def report(found: dict[tuple[str, str], list[dict[str, float]]], bench: Bench) -> None:
    middle = {
        which: {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        for which, rounds in found.items()
    }
    print(f"{bench.args.rate} requests a second; milliseconds; medians of {bench.args.rounds}")
    print(f"{'':8} {'durable':>33} {'without persistence':>33} {'nginx':>33} {'the agent alone':>33}")
    print(f"{'':8}" + f" {'p50':>8} {'p99':>8} {'x idle':>7} {'max':>7} " * 4)
    for work in bench.args.only:
        line = f"{work:8}"
        for name in ("durable", "plain", "nginx", "alone"):
            row = middle[work, name]
            if row["failed"]:
                sys.exit(f"{row['failed']:.0f} requests failed: {work}, {name}")
            ratio = row["p99"] / middle[bench.args.only[0], name]["p99"]
            line += f" {row['p50']:8.2f} {row['p99']:8.2f} {ratio:7.2f} {row['max']:7.1f} "
        print(line)
    print(f"largest lag of the loop in the last minute: {bench.lag_ms():.1f} ms")


if __name__ == "__main__":
    main()
