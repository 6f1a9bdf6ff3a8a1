#!/usr/bin/env python3
"""What a job costs beside its program: cold, on a warm container, and many in the queue.

    python tests/bench/bench_jobs.py [--rounds 20] [--queued 200] [--runtime agentainer-runtime:latest] [--compiled FOLDER]

Each round runs `true` three times, one after the other: with `docker run --rm` with the limits and the hardening of a job, as a job
of the same image (`exec`), both from the command to the end, and takes a prompt to a container of the runtime image that is made for
it (cold) and to one that stands ready (warm), from the submission to the run's first event from the agent. Medians, and the 95th
percentile. Then so many jobs are submitted at once, two of which run at a time. `--runtime` "": without what needs that image.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from agentainerd import defaults  # noqa: E402
from tests.fakes.daemons import DaemonProcess, free_port  # noqa: E402
from tests.fakes.docker import BASE_IMAGE, new_sandbox  # noqa: E402
from tests.fakes.jobs import Jobs  # noqa: E402

DOCKER_RUN = [
    "docker", "run", "--rm", "--init", "--memory", "2g", "--memory-swap", "2g", "--cpus", "1", "--pids-limit", "512", "--cap-drop", "ALL",
    "--security-opt", "no-new-privileges", "--tmpfs", "/tmp",
]  # fmt: skip


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--queued", type=int, default=200)
    parser.add_argument("--runtime", default=defaults.JOB_IMAGE)
    parser.add_argument("--compiled", default="")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-jobs-"))
    (folder / "run").mkdir(mode=0o755)
    try:
        with new_sandbox(os.environ.get("DOCKER_HOST", defaults.DOCKER_HOST)) as sandbox:
            daemon = started(folder, sandbox, options)
            try:
                overhead(Jobs(daemon, BASE_IMAGE), sandbox, options)
                queued(Jobs(daemon, BASE_IMAGE), options.queued)
            finally:
                daemon.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def started(folder, sandbox, options):
    daemon = DaemonProcess(folder, folder / "run", free_port())
    environment = {
        "AGENTAINER_DOCKER_NETWORK": sandbox.network,
        "AGENTAINER_DOCKER_ISOLATED_NETWORK": sandbox.isolated_network,
        "AGENTAINER_JOBS_IMAGE": options.runtime or BASE_IMAGE,
        "AGENTAINER_JOBS_WARM": "1" if options.runtime else "0",
        "AGENTAINER_JOBS_MAX_RUNNING": "2",
        **({"PYTHONPATH": options.compiled} if options.compiled else {}),
    }
    daemon.start([], environment)
    return daemon.wait_ready()


def overhead(jobs, sandbox, options):
    jobs.done(jobs.submit("true")["id"])  # the networks are made with the first container
    times = {name: [] for name in ("docker run", "exec job", "cold runtime job", "warm runtime job")}
    for _ in range(options.rounds):
        began = time.perf_counter()
        command = [*DOCKER_RUN, "--network", sandbox.network, BASE_IMAGE, "true"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        times["docker run"].append(time.perf_counter() - began)
        began = time.perf_counter()
        jobs.done(jobs.submit("true")["id"])
        times["exec job"].append(time.perf_counter() - began)
        if options.runtime:
            times["cold runtime job"].append(first_event(jobs, {"env": {"COLD": "1"}}))
            wait_warm(jobs)
            times["warm runtime job"].append(first_event(jobs, {}))
    for name, taken in times.items():
        if taken:
            ordered = sorted(1000 * each for each in taken)
            print(
                f"{name}: median {statistics.median(ordered):.0f} ms, p95 {ordered[int(len(ordered) * 0.95) - 1]:.0f} ms"
            )
    print(f"exec job / docker run: {statistics.median(times['exec job']) / statistics.median(times['docker run']):.2f}")


def wait_warm(jobs):
    while not any(jobs.is_ready(container) for container in jobs.containers()):
        gevent.sleep(0.02)


def first_event(jobs, more):
    began = time.perf_counter()
    job_id = jobs.must("POST", "", {"prompt": "echo hello", **more})["id"]
    while True:
        _, answer = jobs.ask("GET", f"/{job_id}/events?limit=2")
        if answer["data"]:
            taken = time.perf_counter() - began
            job = jobs.done(job_id)
            assert job["status"] == "completed", json.dumps(job)
            return taken
        gevent.sleep(0.005)


def queued(jobs, count):
    process = psutil.Process(jobs.daemon.pid)
    before, began = process.cpu_times(), time.perf_counter()
    asked = [gevent.spawn(jobs.submit, "true") for _ in range(count)]
    gevent.joinall(asked)
    accepted_s = time.perf_counter() - began
    ids = [each.get()["id"] for each in asked]
    ended = [jobs.done(job_id, limit_s=600) for job_id in ids]
    took_s, after = time.perf_counter() - began, process.cpu_times()
    cpu_s = after.user + after.system - before.user - before.system
    assert all(job["status"] == "completed" for job in ended)
    print(
        f"{count} jobs at once, two at a time: accepted in {accepted_s:.2f} s, done in {took_s:.1f} s "
        f"({1000 * took_s / count:.0f} ms a job), {1000 * cpu_s / count:.0f} ms of CPU in the daemon a job"
    )


if __name__ == "__main__":
    main()
