#!/usr/bin/env python3
"""How long an apply of many agents takes on a real engine: created, unchanged, changed in place, replaced, removed.

    python tests/bench/bench_apply.py [--agents 50] [--compiled FOLDER]

Seconds are those of the whole `agentainerctl apply`, until every agent is ready; CPU is that of the daemon's process. Beside it: as
many containers made and started by the engine's own client, which waits for nothing (`docker run -d`, one after the other).
`--compiled`: a folder with an installed package, whose daemon is measured instead of the checkout's.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import psutil  # noqa: E402
import yaml  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agentainerd import defaults  # noqa: E402
from tests.fakes.daemons import DaemonProcess, free_port  # noqa: E402
from tests.fakes.docker import BASE_IMAGE, build_image, new_sandbox  # noqa: E402


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=50)
    parser.add_argument("--compiled", default="")
    options = parser.parse_args()
    host = os.environ.get("DOCKER_HOST", defaults.DOCKER_HOST)
    folder = Path(tempfile.mkdtemp(prefix="bench-apply-"))
    (folder / "run").mkdir(mode=0o755)
    try:
        with (
            build_image(host, BASE_IMAGE, f"agentainer-test-{os.getpid()}:bench") as image,
            new_sandbox(host) as sandbox,
        ):
            alone(image, options.agents)
            daemon = started(folder, sandbox, options.compiled)
            try:
                measure(daemon, image, options.agents)
            finally:
                daemon.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def started(folder, sandbox, compiled):
    daemon = DaemonProcess(folder, folder / "run", free_port())
    environment = {
        "AGENTAINER_DOCKER_NETWORK": sandbox.network,
        "AGENTAINER_DOCKER_ISOLATED_NETWORK": sandbox.isolated_network,
        **({"PYTHONPATH": compiled} if compiled else {}),
    }
    daemon.start([], environment)
    return daemon.wait_ready()


def alone(image, count):
    """What the engine takes for so many containers, without us."""
    began = time.perf_counter()
    run = ["docker", "run", "-d", "--init", "--memory", "64m", image]
    ids = [subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() for _ in range(count)]
    print(f"the engine alone: {count} containers started in {time.perf_counter() - began:.1f} s")
    subprocess.run(["docker", "rm", "-f", *ids], capture_output=True, check=True)


def measure(daemon, image, count):
    agents = [
        {"name": f"agent-{number}", "image": image, "resources": {"memory": "64Mi"}, "stopGrace": "1s"}
        for number in range(count)
    ]
    steps = (
        ("created, started and ready", agents, ()),
        ("unchanged", agents, ()),
        ("changed in place", [{**agent, "holdTimeout": "5s"} for agent in agents], ()),
        ("replaced, one after the other", [{**agent, "env": {"A": "1"}} for agent in agents], ()),
        ("removed, all but one", agents[:1], ("--prune",)),
    )
    process = psutil.Process(daemon.pid)
    for what, wanted, words in steps:
        before = process.cpu_times()
        seconds = apply(daemon, wanted, *words)
        after = process.cpu_times()
        cpu_s = after.user + after.system - before.user - before.system
        print(f"{count} agents {what}: {seconds:.2f} s, {cpu_s:.2f} s of CPU in the daemon")


def apply(daemon, agents, *words):
    text = yaml.safe_dump(
        {"apiVersion": "v1", "kind": "AgentDeployment", "metadata": {"name": "bench"}, "spec": {"agents": agents}}
    )
    command = [
        sys.executable,
        "-m",
        "agentainerctl",
        "--host",
        f"unix://{daemon.control_socket}",
        "apply",
        "-q",
        "-f",
        "-",
        *words,
    ]
    began = time.perf_counter()
    subprocess.run(command, input=text, text=True, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
