"""A daemon's worth of store under load, to be watched by strace: python -m tests.fakes.power_load STATE RUNTIME BINARY SECONDS RESTARTS

It lasts SECONDS, and on a slow machine until the server was started again RESTARTS times and LEAST_TOLD requests were told of.

Every request that was accepted is told to the file `acks` beside STATE, after the journal said so: its id, or its id and
".body" where its body is in the spool (its id, repeated to 40 000 bytes). Of one that was refused, "-" and its id.
"""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from contextlib import suppress  # noqa: E402
from pathlib import Path  # noqa: E402

import gevent  # noqa: E402
from redis.exceptions import ResponseError  # noqa: E402

from agentainerd.errors import Unavailable  # noqa: E402
from agentainerd.store import journal, redis_process  # noqa: E402
from agentainerd.store.redis_server import RedisServer  # noqa: E402
from agentainerd.supervisor import Supervisor  # noqa: E402
from tests.fakes.stores import COMPLETED, Store  # noqa: E402

SPOOLED = 40_000
LEAST_TOLD = 200
PATIENCE_S = 40.0


def main():
    state, runtime, binary, seconds = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], float(sys.argv[4])
    wanted = {"restarts": int(sys.argv[5]), "told": LEAST_TOLD}
    seen = {"restarts": 0, "told": 0}
    journal.MARK_INTERVAL_S = redis_process.MAX_RESTART_S = 0.1
    supervisor = Supervisor()
    server = RedisServer(binary, state_dir=state, runtime_dir=runtime, maxmemory_bytes=0, spawn=supervisor.spawn)
    server.on_restart = lambda: seen.update(restarts=seen["restarts"] + 1)
    server.start()
    store = Store(server, state)
    acks = os.open(state.parent / "acks", os.O_WRONLY | os.O_CREAT)
    end = time.monotonic() + seconds

    def goes_on():
        late_s = time.monotonic() - end
        return late_s < 0 or (late_s < PATIENCE_S and any(seen[what] < wanted[what] for what in wanted))

    def accept(number):
        count = 0
        while goes_on():
            count += 1
            gevent.sleep(0.01)
            if number == 1:
                with suppress(Unavailable):
                    store.settle(store.begin(body=b"live" * 50), COMPLETED)
                continue
            record = store.record() if number == 0 else store.record(body=b"x" * (count % 40 * 50))
            try:
                if number == 0:
                    spool(store, record)
                store.journal.accept(record)
                word = record.spool or record.id
            except Unavailable:
                word = f"-{record.id}"
            os.write(acks, f"{word}\n".encode())
            seen["told"] += 1

    workers = [gevent.spawn(accept, number) for number in range(6)]
    for _ in range(3):
        gevent.sleep(seconds / 4)
        with suppress(Unavailable, ResponseError):  # a failing disk may prevent a rewrite, too
            store.client.call("BGREWRITEAOF")
    gevent.joinall(workers, raise_error=True)
    store.close()
    server.stop()
    supervisor.stop(1)


def spool(store, record):
    file = store.journal.spool(record.id)
    record.body_bytes = SPOOLED
    for _ in range(4):
        file.write((record.id.encode() * SPOOLED)[: SPOOLED // 4])
    record.spool = file.seal()


if __name__ == "__main__":
    main()
