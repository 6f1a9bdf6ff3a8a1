#!/usr/bin/env python3
"""Backups: how fast they are made, checked and restored, what the daemon takes for it, and who waits meanwhile.

    python tests/bench/bench_backups.py [--megabytes 256] [--files 20000]

Seconds are those of the whole `agentainerctl`, CPU and memory those of the daemon's process. Meanwhile a client asks for an agent
that is not there, 100 times a second, over a connection of its own: what the event loop alone answers, at once.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import http.client  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import psutil  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agentainerd import defaults  # noqa: E402
from tests.fakes.daemons import DaemonProcess, free_port  # noqa: E402
from tests.fakes.docker import BASE_IMAGE, new_sandbox  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=256)
    parser.add_argument("--files", type=int, default=20_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-backups-"))
    (folder / "run").mkdir(mode=0o755)
    try:
        with new_sandbox(os.environ.get("DOCKER_HOST", defaults.DOCKER_HOST)) as sandbox:
            daemon = DaemonProcess(folder, folder / "run", free_port())
            networks = {
                "AGENTAINER_DOCKER_NETWORK": sandbox.network,
                "AGENTAINER_DOCKER_ISOLATED_NETWORK": sandbox.isolated_network,
            }
            daemon.start([], networks)
            daemon.wait_ready()
            try:
                waits("nothing", daemon, lambda: time.sleep(3))
                for name, fill in (("noise", noise), ("text", text), ("files", files)):
                    fill(folder / name, options)
                    measure(daemon, name, folder / name)
            finally:
                daemon.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def noise(folder, options):
    folder.mkdir()
    piece = os.urandom(2**20)
    with open(folder / "noise", "wb") as file:
        for _ in range(options.megabytes):
            file.write(piece)


def text(folder, options):
    folder.mkdir()
    piece = "".join(f"{number} the quick brown fox jumps over the lazy dog\n" for number in range(20_000)).encode()
    with open(folder / "text", "wb") as file:
        for _ in range(options.megabytes * 2**20 // len(piece)):
            file.write(piece)


def files(folder, options):
    for number in range(options.files):
        path = folder / f"{number % 100}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number * 200)


def measure(daemon, name, folder):
    body = {"name": name, "image": BASE_IMAGE, "volumes": [{"host_path": str(folder), "container_path": "/data"}]}
    assert daemon.control("POST", "/agents", body)[0] == 201
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    for words in (("create", "--name", name, "--agents", name), ("verify", name), ("restore", name)):
        waits(f"{name}, {size / 2**20:.0f} MiB: {words[0]}", daemon, lambda words=words: ctl(daemon, *words))


def ctl(daemon, *words):
    command = [
        sys.executable,
        "-m",
        "agentainerctl",
        "--host",
        f"unix://{daemon.control_socket}",
        "backup",
        *words,
        "-q",
    ]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def waits(what, daemon, work):
    """Do `work`, and print how long others waited meanwhile."""
    process = psutil.Process(daemon.pid)
    before, most, seen, ended = process.cpu_times(), [0], [], threading.Event()
    rss = process.memory_info().rss
    client = threading.Thread(target=ask, args=(daemon.port, process, most, seen, ended))
    client.start()
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    ended.set()
    client.join()
    after = process.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    seen.sort()
    print(
        f"{what}: {seconds:.2f} s, {cpu_s:.2f} s of CPU, {(most[0] - rss) / 2**20:.0f} MiB more; others waited"
        f" p50 {seen[len(seen) // 2] * 1000:.1f} ms, p99 {seen[len(seen) * 99 // 100] * 1000:.1f} ms, most {seen[-1] * 1000:.1f} ms",
        flush=True,
    )


def ask(port, process, most, seen, ended):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    while not ended.is_set():
        began = time.perf_counter()
        connection.request("GET", "/agent/nobody/")
        connection.getresponse().read()
        seen.append(time.perf_counter() - began)
        most[0] = max(most[0], process.memory_info().rss)
        time.sleep(max(0.0, 0.01 - seen[-1]))
    connection.close()


if __name__ == "__main__":
    main()
