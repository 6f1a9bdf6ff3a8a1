#!/usr/bin/env python3
"""ZIPs of folders: how long until the first byte and the last, what it takes, and who waits meanwhile.

    python tests/bench/bench_archives.py [--files 10000] [--megabytes 256]

Through the API's own server on a Unix socket, in a process of its own, as the daemon has it; meanwhile a greenlet of that process
sleeps a millisecond again and again, and how much later it wakes is what others wait. `zip -r -1` and `bsdtar`, where there are such,
pack the same folder beside it.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import http.client  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import shutil  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agentainerd import listeners  # noqa: E402
from agentainerd.api.downloads import send  # noqa: E402
from agentainerd.api.exchange import ApiRequest  # noqa: E402
from agentainerd.archives.archives import Archives  # noqa: E402
from agentainerd.control_server import ControlServer  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--serve", type=Path)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    folder = Path(tempfile.mkdtemp(prefix="bench-archives-"))
    try:
        for name, fill in (("files", files), ("text", text), ("noise", noise)):
            (folder / name).mkdir()
            count = fill(folder / name, options)
            measure(folder, name, count)
            beside(folder, name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files(folder, options):
    for number in range(options.files):
        path = folder / f"{number % 100}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 200)
    return f"{options.files} files of a KiB"


def text(folder, options):
    piece = "".join(f"{number} the quick brown fox jumps over the lazy dog\n" for number in range(20_000)).encode()
    with open(folder / "text", "wb") as file:
        for _ in range(options.megabytes * 2**20 // len(piece)):
            file.write(piece)
    return f"{options.megabytes} MiB of text"


def noise(folder, options):
    with open(folder / "noise", "wb") as file:
        for _ in range(options.megabytes):
            file.write(os.urandom(2**20))
    return f"{options.megabytes} MiB that can't be compressed"


def measure(folder, name, what):
    """Download it twice from a process that is new."""
    server = subprocess.Popen([sys.executable, __file__, "--serve", folder], stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        ask(folder, "/empty"), ask(folder, "/late")
        time.sleep(2)
        print(
            "nothing: others waited p50 {:.1f} ms, p99 {:.1f} ms, most {:.1f} ms".format(
                *json.loads(ask(folder, "/late"))
            )
        )
        for pace in ("made", "kept"):
            before, late = used(server.pid), ask(folder, "/late")
            began = time.perf_counter()
            first, last, size = download(folder, f"/{name}", began)
            after, late = used(server.pid), json.loads(ask(folder, "/late"))
            print(
                f"{what}, {pace}: first byte {first:.3f} s, last {last:.2f} s, {size / 2**20:.1f} MiB, {after[0] - before[0]:.2f} s of CPU,"
                f" {(after[1] - before[1]) / 2**20:.0f} MiB more; others waited p50 {late[0]:.1f} ms, p99 {late[1]:.1f} ms, most {late[2]:.1f} ms",
                flush=True,
            )
    finally:
        server.terminate()
        server.wait()


def used(pid):
    process = psutil.Process(pid)
    times = process.cpu_times()
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    return times.user + times.system, int(peak.split()[1]) * 1024


def connect(folder):
    connection = http.client.HTTPConnection("localhost", timeout=300)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(folder / "api.sock"))
    return connection


def ask(folder, path):
    connection = connect(folder)
    connection.request("GET", path)
    body = connection.getresponse().read()
    connection.close()
    return body


def download(folder, path, began):
    connection = connect(folder)
    connection.request("GET", path)
    response = connection.getresponse()
    size, first = 0, None
    while piece := response.read1(2**18):
        first = first or time.perf_counter() - began
        size += len(piece)
    connection.close()
    return first, time.perf_counter() - began, size


def beside(folder, name):
    for command in (
        ["zip", "-q", "-r", "-1", folder / "peer.zip", "."],
        ["bsdtar", "-c", "--format", "zip", "-f", folder / "peer.zip", "."],
    ):
        if shutil.which(command[0]):
            before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            subprocess.run(command, cwd=folder / name, check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            size = (folder / "peer.zip").stat().st_size
            print(
                f"    {command[0]}: {time.perf_counter() - began:.2f} s, {size / 2**20:.1f} MiB, {cpu_s:.2f} s of CPU"
            )
            (folder / "peer.zip").unlink()


def serve(folder):
    archives = Archives(folder / "spool")
    archives.start()
    late = []
    (folder / "empty").mkdir(exist_ok=True)
    shutil.rmtree(folder / "spool")
    archives.start()

    def application(environ, start_response):
        request = ApiRequest(environ)
        if request.path == "/late":
            seen = sorted(late) or [0.0]
            late.clear()
            start_response("200 OK", [])
            return [json.dumps([seen[len(seen) // 2], seen[len(seen) * 99 // 100], seen[-1]]).encode()]
        name = request.path.strip("/")
        return send(request, archives.zip(name, folder / name), "application/zip", "output.zip")(
            environ, start_response
        )

    socket_path = folder / "api.sock"
    socket_path.unlink(missing_ok=True)
    ControlServer("bench", listeners.unix(str(socket_path), mode=0o600), application).start()
    print(flush=True)
    while True:
        began = time.perf_counter()
        gevent.sleep(0.001)
        late.append((time.perf_counter() - began - 0.001) * 1000)


if __name__ == "__main__":
    main()
