#!/usr/bin/env python3
"""What the audit log costs a change, and what reading all of it costs the others.

    python tests/bench/bench_audit.py [--folder FOLDER] [--entries 100000]

The folder (default: here) says which disk is measured. Printed: how long an entry is waited for, alone and when many come at
once (they share a sync); how fast the chain is verified and searched, and how late that makes the event loop meanwhile.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agentainerd.model.audit import AuditFilter  # noqa: E402
from agentainerd.services.audit import Actor, AuditService  # noqa: E402
from agentainerd.store.audit import AuditFile  # noqa: E402
from agentainerd.supervisor import Supervisor  # noqa: E402

CI = Actor("token:ci", "192.0.2.1", "5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", default=".")
    parser.add_argument("--entries", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        audit = AuditService(AuditFile(folder, max_file_bytes=64 * 2**20), Supervisor().spawn)
        for count in (1, 10, 100):
            waits = changes(audit, count, rounds=300 // count + 20)
            print(f"{count:4} at once: {statistics.median(waits):6.2f} ms each (median), {max(waits):6.2f} ms (worst)")
        for _ in range(options.entries // 500):
            gevent.joinall([gevent.spawn(audit.record, CI, "start_agent", "web") for _ in range(500)])
        read(audit, sum(path.stat().st_size for path in Path(folder).glob("audit.log*")))
        audit.close()


def changes(audit: AuditService, count: int, *, rounds: int) -> list[float]:
    """Return for how many milliseconds each of `count` concurrent changes waited, of all rounds."""

    def change() -> float:
        began = time.perf_counter()
        audit.record(CI, "start_agent", "web")
        return (time.perf_counter() - began) * 1000

    waits: list[float] = []
    for _ in range(rounds):
        waits += [done.value for done in gevent.joinall([gevent.spawn(change) for _ in range(count)])]
    return waits


def read(audit: AuditService, size: int) -> None:
    """Verify and search all of it, and say what that does to the event loop."""
    late: list[float] = []

    def watch() -> None:
        while True:
            began = time.perf_counter()
            gevent.sleep(0.001)
            late.append((time.perf_counter() - began) * 1000 - 1)

    watcher = gevent.spawn(watch)
    began = time.perf_counter()
    check = audit.verify()
    took = time.perf_counter() - began
    watcher.kill()
    late.sort()
    print(
        f"verified {check.entries} entries ({size / 1e6:.0f} MB) in {took:.2f} s: {check.entries / took:.0f}/s; "
        f"the event loop was late by {late[len(late) // 2]:.2f} ms (median), {late[int(len(late) * 0.99)]:.2f} ms (p99)"
    )
    assert not check.fault_count
    began = time.perf_counter()
    audit.page(AuditFilter(resource="nothing"), 100)
    print(f"searched all of them in {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    os.umask(0o077)
    main()
