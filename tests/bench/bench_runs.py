#!/usr/bin/env python3
"""Runs on a real daemon and a real container: many at once with a reader each, one with very many events, and the start of one.

    python tests/bench/bench_runs.py [--runs 500] [--rate 4] [--seconds 10] [--ramp 2] [--events 10000] [--compiled FOLDER]

The agent writes the time into each event; a delay is from there to the reader, through the agent's stream, the disk, and the data
plane: agent, daemon, Redis and readers share the machine. `--rate`: events a second of each run; they begin within `--ramp`
seconds. KB per run: what the daemon's resident memory grew by while all of them were under way and read. CPU is that of the
daemon's process.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from contextlib import closing  # noqa: E402
from http.client import HTTPConnection  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402
from gevent.pool import Pool  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agentainerd import defaults  # noqa: E402
from tests.bench.bench_apply import started  # noqa: E402
from tests.fakes.docker import BASE_IMAGE, build_image, new_sandbox  # noqa: E402

AGENT = """
import asyncio, json, time
async def serve(reader, writer):
    head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
    path = head.split(" ")[1]
    if path == "/ping":
        body = b'{"status": "Healthy", "bridge": "native"}'
        writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (len(body), body))
    else:
        length = int(head.lower().split("content-length:")[1].split("\\r\\n")[0])
        asked = json.loads(await reader.readexactly(length))
        names = {"threadId": asked["threadId"], "runId": asked["runId"]}
        count, pause = asked["prompt"].split()
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nConnection: close\\r\\n\\r\\n")
        def tell(number, event):
            writer.write(b"data: %b\\nid: %d\\n\\n" % (json.dumps(event).encode(), number))
        tell(1, {"type": "RUN_STARTED", **names})
        for number in range(int(count)):
            if float(pause):
                await asyncio.sleep(float(pause))
            tell(number + 2, {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": " word", "at": time.time()})
            await writer.drain()
        tell(int(count) + 2, {"type": "RUN_FINISHED", **names})
    await writer.drain()
    writer.close()
async def main():
    async with await asyncio.start_server(serve, "", 8000, backlog=4096) as server:
        await server.serve_forever()
asyncio.run(main())
"""
AT = re.compile(rb'"at": ?([0-9.]+)')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--ramp", type=float, default=2.0)
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--compiled", default="")
    options = parser.parse_args()
    host = os.environ.get("DOCKER_HOST", defaults.DOCKER_HOST)
    folder = Path(tempfile.mkdtemp(prefix="bench-runs-"))
    (folder / "run").mkdir(mode=0o755)
    try:
        with (
            build_image(host, BASE_IMAGE, f"agentainer-test-{os.getpid()}:bench") as image,
            new_sandbox(host) as sandbox,
        ):
            daemon = started(folder, sandbox, options.compiled)
            try:
                spec = {"name": "web", "image": image, "command": ["/usr/bin/python3", "-u", "-c", AGENT]}
                must(daemon, "POST", "/agents", spec)
                must(daemon, "POST", "/agents/web/start?wait=30")
                start_of_one(daemon)
                many_events(daemon, options.events)
                many_runs(daemon, options)
            finally:
                daemon.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def must(daemon, method, path, body=None):
    status, said = daemon.control(method, path, body)
    if status >= 300:
        sys.exit(f"{method} {path}: {said}")
    return said.get("data")


def ask(daemon, text):
    return must(daemon, "POST", "/api/v1/runs", {"agent_id": "web", "input": text})["id"]


def read(daemon, run_id, on_piece, after=0):
    """Read a run's events over TCP to their end."""
    with closing(HTTPConnection("127.0.0.1", daemon.port, timeout=120)) as connection:
        headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {daemon.token}"}
        connection.request("GET", f"/api/v1/runs/{run_id}/events?after={after}", headers=headers)
        response = connection.getresponse()
        if response.status != 200:
            sys.exit(f"no stream of run {run_id}: {response.read()!r}")
        while piece := response.read1(65536):
            on_piece(piece)


def start_of_one(daemon):
    """From the request for a run to the first event that the agent sent, and to its end; one run after the other, warm."""
    ask(daemon, "1 0")
    first, whole = [], []
    for _ in range(100):
        began = time.perf_counter()
        with closing(HTTPConnection("127.0.0.1", daemon.port, timeout=30)) as connection:
            body = json.dumps({"agent_id": "web", "input": "1 0"})
            headers = {"Accept": "text/event-stream", "Authorization": f"Bearer {daemon.token}"}
            connection.request("POST", "/api/v1/runs", body, headers)
            response = connection.getresponse()
            while b"RUN_STARTED" not in response.read1(65536):
                pass
            first.append(time.perf_counter() - began)
            response.read()
            whole.append(time.perf_counter() - began)
    alone = []
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
    container = must(daemon, "GET", "/agents/web")["container_id"]
    found = subprocess.run(["docker", "inspect", "-f", template, container], capture_output=True, text=True, check=True)
    address = found.stdout.split()[0]
    for _ in range(100):
        began = time.perf_counter()
        with closing(HTTPConnection(address, 8000, timeout=30)) as connection:
            connection.request("POST", "/invocations", json.dumps({"threadId": "t", "runId": "r", "prompt": "1 0"}))
            connection.getresponse().read()
        alone.append(time.perf_counter() - began)
    print(
        f"a run of one event: first event after {statistics.median(first) * 1000:.1f} ms (p99 {at(first, 0.99) * 1000:.1f}), end after "
        f"{statistics.median(whole) * 1000:.1f} ms (p99 {at(whole, 0.99) * 1000:.1f}); the agent alone {statistics.median(alone) * 1000:.1f} ms"
    )


def many_events(daemon, count):
    """A run of very many events: how long it takes, and how long a reader needs that joins when it is over."""
    began = time.perf_counter()
    run_id = ask(daemon, f"{count} 0")
    must(daemon, "GET", f"/api/v1/runs/{run_id}?wait=120")
    took = time.perf_counter() - began
    pieces = []
    began = time.perf_counter()
    read(daemon, run_id, pieces.append)
    resumed = time.perf_counter() - began
    seen = [int(number) for number in re.findall(rb"\nid: (\d+)\n", b"".join(pieces))]
    if seen != list(range(1, count + 3)):
        sys.exit(f"events are missing: {len(seen)} of {count + 2}")
    began = time.perf_counter()
    read(daemon, run_id, pieces.append, after=count - 100)
    end = time.perf_counter() - began
    print(
        f"{count} events: stored in {took:.2f} s; read again from the first in {resumed:.2f} s, the last hundred in {end * 1000:.0f} ms"
    )


def many_runs(daemon, options):
    process = psutil.Process(daemon.pid)
    before = process.memory_info().rss
    count = int(options.rate * options.seconds)
    delays, peak = [], 0

    def one(number):
        gevent.sleep(number / options.runs * options.ramp)
        run_id = ask(daemon, f"{count} {1 / options.rate}")

        def take(piece):
            now = time.time()
            delays.extend(now - float(sent) for sent in AT.findall(piece))

        read(daemon, run_id, take)

    cpu, began = process.cpu_times(), time.monotonic()
    group = Pool(options.runs)
    for number in range(options.runs):
        group.spawn(one, number)
    while len(group):
        peak = max(peak, process.memory_info().rss)
        gevent.sleep(0.25)
    took = time.monotonic() - began
    used = process.cpu_times()
    cpu_s = used.user + used.system - cpu.user - cpu.system
    if len(delays) != count * options.runs:
        sys.exit(f"{len(delays)} of {count * options.runs} events came")
    print(
        f"{options.runs} runs at once, {len(delays)} events in {took:.1f} s: delay median {statistics.median(delays) * 1000:.1f} ms, "
        f"p99 {at(delays, 0.99) * 1000:.1f} ms, max {max(delays) * 1000:.0f} ms; {(peak - before) / 1024 / options.runs:.0f} KB per run; "
        f"{cpu_s / len(delays) * 1e6:.0f} us of CPU per event, {cpu_s / took * 100:.0f} % of a core"
    )


def at(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


if __name__ == "__main__":
    main()
