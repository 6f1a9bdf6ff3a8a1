#!/usr/bin/env python3
"""What the journal costs: CPU microseconds per request in this process and in the server, and how many a second.

    python tests/bench/bench_journal.py [--server redis|valkey] [--concurrency 64] [--requests 20000] [--body 0]

`live`: begin, wait until the record is durable, settle: what a proxied request costs beside its forwarding. `accept`: what
stands before a 202. The greenlets' own switching is measured without a journal, and taken off.
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import shutil  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
import psutil  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agentainerd.model.requests import Outcome, Reason, Record, RequestState  # noqa: E402
from agentainerd.proxy.delivery import new_id  # noqa: E402
from agentainerd.proxy.journal import NullJournal  # noqa: E402
from agentainerd.store.connection import RedisClient  # noqa: E402
from agentainerd.store.journal import RedisJournal  # noqa: E402
from agentainerd.store.spool import Spool  # noqa: E402
from agentainerd.supervisor import Supervisor  # noqa: E402
from tests.fakes.redis import RedisProcess  # noqa: E402

AGENT = "agent-0123456789abcdef"
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:8081\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
    b"Content-Type: application/json\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n"
    b"X-Forwarded-Host: localhost:8081\r\nX-Forwarded-Prefix: /agent/bench\r\nVia: 1.1 agentainer\r\n"
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"
    b"X-Agentainer-Request-ID: 3d5e4a0e-8b1c-4b57-9d0e-1d0a5f4b8a11\r\n"
)
DONE = Outcome(RequestState.COMPLETED, Reason.ANSWERED, status=200, response_bytes=512, duration_s=0.004)


def record(body):
    now = time.time()
    return Record(
        new_id(),
        AGENT,
        head=HEAD,
        method=b"POST",
        target=b"/agent/bench/v1/chat/completions",
        received_at=now,
        expires_at=now + 86400,
        body=body,
        body_bytes=len(body),
        client="127.0.0.1",
        max_pending=10**6,
    )


def live(journal, count, body):
    for _ in range(count):
        one = record(body)
        write = journal.begin(one)
        gevent.sleep(0)  # the agent answers
        write.wait()
        journal.settle(one, DONE)


def accept(journal, count, body):
    for _ in range(count):
        journal.accept(record(body))


def measure(work, journal, options, server=None):
    """Return CPU seconds here and in the server, and seconds by the clock."""
    count = options.requests // options.concurrency
    body = b"x" * options.body
    before = server.cpu_times() if server else None
    cpu, clock = time.process_time(), time.perf_counter()
    gevent.joinall([gevent.spawn(work, journal, count, body) for _ in range(options.concurrency)], raise_error=True)
    cpu, clock = time.process_time() - cpu, time.perf_counter() - clock
    after = server.cpu_times() if server else None
    spent = after.user + after.system - before.user - before.system if server else 0.0
    return cpu, spent, clock


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", default="redis", choices=("redis", "valkey"))
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--requests", type=int, default=20000)
    parser.add_argument("--body", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-journal-"))
    process = RedisProcess(folder / "redis", kind=options.server).start()
    supervisor = Supervisor()
    client = RedisClient(process.url)
    journal = RedisJournal(
        client,
        Spool(folder / "spool"),
        state_dir=folder,
        spawn=supervisor.spawn,
        on_fenced=lambda: None,
        min_free_bytes=0,
    )
    try:
        journal.open()
        server = psutil.Process(process.pid)
        measure(live, journal, options, server)
        for name, work in (("live", live), ("accept", accept)):
            idle = measure(work, NullJournal(), options)[0] if work is live else 0.0
            cpu, spent, clock = measure(work, journal, options, server)
            total = options.requests
            print(
                f"{name:7} {options.server}, {options.concurrency} at once, body {options.body}: "
                f"{(cpu - idle) / total * 1e6:5.1f} us here, {spent / total * 1e6:5.1f} us in the server, "
                f"{total / clock:7.0f}/s"
            )
    finally:
        journal.close()
        supervisor.stop(1)
        client.close()
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
