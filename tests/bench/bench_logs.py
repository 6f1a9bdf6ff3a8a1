#!/usr/bin/env python3
"""What a line of the daemon's log costs, and what the event loop feels of a disk that is slow.

python tests/bench/bench_logs.py [--lines 4000] [--slow 0.2]

line     CPU of the main thread and of all threads for one line: text on standard error (/dev/null) and JSON in the file
slow     the lag of the event loop while each write of the file takes `--slow` seconds, and at a disk that does not answer: a
         greenlet that sleeps a millisecond says how late it was, while lines are logged at 1000 a second; beside it the same
         with a handler that writes in the event loop, as logging has it
"""

from gevent import monkey

monkey.patch_all()

import argparse  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import statistics  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from agentainerd.log_thread import ThreadHandler  # noqa: E402
from agentainerd.logs import JsonFormatter, Logs  # noqa: E402
from agentainerd.store.system_logs import Limits, LogWriter  # noqa: E402

log = logging.getLogger("agentainerd.bench")
FIELDS = {"agent_id": "agent-1234567890abcdef", "agent": "web"}
sleep_for_real = monkey.get_original("time", "sleep")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=4000)
    parser.add_argument("--slow", type=float, default=0.2)
    args = parser.parse_args()
    measure_line(args.lines)
    slow_down = lambda lines: sleep_for_real(args.slow)  # noqa: E731
    print(f"disk that takes {args.slow:g} s, by a thread:         {lag(ThreadHandler(), slow_down)}")
    print(f"disk that does not answer, by a thread:  {lag(ThreadHandler(), lambda lines: sleep_for_real(5))}")
    print(f"disk that takes {args.slow:g} s, in the event loop:   {lag(InTheLoop(slow_down), slow_down)}")


def measure_line(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as console:
        made = Logs("info", "text", console.fileno())
        made.file.start(LogWriter(Path(folder) / "logs", Limits(2**24, 86400, 14)).write)
        rounds = []
        for _ in range(5):
            main_s, all_s = time.thread_time(), time.process_time()
            for number in range(count):
                log.info("agent started in %d ms", number, extra=FIELDS)
            rounds.append(((time.thread_time() - main_s) / count * 1e6, (time.process_time() - all_s) / count * 1e6))
            gevent.sleep(0.3)
        made.close()
    main_us, all_us = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"a line: {main_us:.0f} us of the main thread, {all_us:.0f} us of all threads")


class InTheLoop(logging.Handler):
    """What logging's own handlers do."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        self._write(self.format(record).encode())

    def start(self, write: Callable[[bytes], None]) -> None:
        self._write = write


def lag(handler: "ThreadHandler | InTheLoop", write: Callable[[bytes], None], duration_s: float = 2.0) -> str:
    """Log for a while, and return how late the event loop was."""
    handler.setFormatter(JsonFormatter())
    handler.start(write)
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger("agentainerd").setLevel("INFO")
    late: list[float] = []
    end = time.monotonic() + duration_s

    def beat() -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            gevent.sleep(0.001)
            late.append((time.monotonic() - began - 0.001) * 1000)

    heart = gevent.spawn(beat)
    while time.monotonic() < end:
        log.info("agent started in %d ms", 1, extra=FIELDS)
        gevent.sleep(0.001)
    heart.join()
    late.sort()
    return f"median {statistics.median(late):.2f} ms late, p99 {late[int(len(late) * 0.99)]:.2f}, most {late[-1]:.1f}"


if __name__ == "__main__":
    main()
