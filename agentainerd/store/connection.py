"""Connections to Redis: one client for everything but the journal's hot path, which takes a connection of its own.

Nothing is ever sent twice by itself: a command without an answer is ambiguous, and only who sent it knows what to do.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from redis import BlockingConnectionPool, Redis
from redis.backoff import NoBackoff
from redis.connection import AbstractConnection
from redis.exceptions import (
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from agentainerd.errors import NotSupported, Unavailable
from agentainerd.store.scripts import Script

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
MAX_CONNECTIONS = 16
MIN_VERSION = (7, 0)
_TRANSIENT = (
    "MISCONF",
    "BUSY",
    "READONLY",
    "NOREPLICAS",
    "NOREPLICA",
    "MASTERDOWN",
    "LOADING",
    "TRYAGAIN",
    "UNKILLABLE",
)
"""Answers that say "not now": nothing was written."""

Argument = str | bytes | int | float


def socket_url(path: str) -> str:
    """Return the URL of a Redis that listens on the Unix socket `path`."""
    return "unix://" + quote(path)


class RedisClient:
    """A pool of at most MAX_CONNECTIONS connections. Every method blocks its greenlet only, at most TIMEOUT_S.

    Answers are plain: bytes, int, None and lists of them; what Redis calls a map is a flat list (`pairs`).
    All of them raise Unavailable, code REDIS_UNAVAILABLE (does not answer: what was sent may have been done) or REDIS_FULL
    (refused: nothing was done).

    `epoch` is the one of this process; whoever opens the journal sets it. A fenced script runs under no other.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url
        self.epoch = 0
        self._pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout_s,
            protocol=2,
            socket_timeout=timeout_s,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._redis = Redis(connection_pool=self._pool)
        self._redis.response_callbacks.clear()  # answers as they are on the wire, whatever the library makes of them

    def call(self, *command: Argument) -> Any:
        """Return the answer to one command."""
        with redis_errors(f"run {command[0]!s}"):
            return self._redis.execute_command(*command)

    def calls(self, commands: Sequence[Sequence[Argument]]) -> list[Any]:
        """Return the answers to several commands, sent in one go; not atomic."""
        if not commands:
            return []
        with redis_errors("run a pipeline"), self._redis.pipeline(transaction=False) as pipeline:
            for command in commands:
                pipeline.execute_command(*command)
            return list(pipeline.execute())

    def run(self, script: Script, *arguments: Argument) -> Any:
        """Return the answer of a script, which Redis is given where it does not know it yet.

        Raises:
            Unavailable: also where the script is fenced and another process has taken the journal over (code
                JOURNAL_FENCED).
        """
        if script.is_fenced:
            arguments = (*arguments, self.epoch)
        with redis_errors("run a script"):
            try:
                return self._redis.execute_command("EVALSHA", script.sha, 0, *arguments)
            except NoScriptError:
                self._redis.execute_command("SCRIPT LOAD", script.source)
                return self._redis.execute_command("EVALSHA", script.sha, 0, *arguments)

    def info(self, section: str) -> dict[str, str]:
        """Return a section of INFO."""
        lines = self.call("INFO", section).decode("utf-8", "replace").splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def connection(self, timeout_s: float) -> AbstractConnection:
        """Return a new connection outside the pool, not yet connected; reads and writes time out after `timeout_s`."""
        make: Callable[..., AbstractConnection] = self._pool.connection_class
        return make(**{**self._pool.connection_kwargs, "socket_timeout": timeout_s})

    def close(self) -> None:
        """Drop all connections."""
        self._redis.close()
        self._pool.disconnect()


def pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return a flat list of names and values as a dictionary, in its order."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


@contextmanager
def redis_errors(what: str) -> Iterator[None]:
    """Turn what Redis raises while we `what` into ours; an answer that means a bug of ours stays what it is.

    Raises:
        Unavailable: it does not answer, or not now (code REDIS_UNAVAILABLE), or it has no memory left (REDIS_FULL).
    """
    try:
        yield
    except OutOfMemoryError as exc:
        raise Unavailable(
            f"cannot {what}: Redis has reached its maxmemory",
            code="REDIS_FULL",
            hint="purge requests that nobody needs, or raise redis.maxmemory_bytes",
            retry_after_s=30,
        ) from exc
    except ResponseError as exc:
        if _word(exc) == "FENCED":
            raise Unavailable(
                f"cannot {what}: another agentainerd has taken over the request journal", code="JOURNAL_FENCED"
            ) from exc
        if not is_transient(exc):
            raise
        raise _unavailable(what, exc) from exc
    except (RedisError, OSError) as exc:
        raise _unavailable(what, exc) from exc


def is_transient(error: RedisError) -> bool:
    """The error says that Redis is away or can't write now, not that the command was wrong."""
    if isinstance(error, (ConnectionError, TimeoutError, NoScriptError)):
        return True
    return _word(error) in _TRANSIENT


def check_version(client: RedisClient) -> str:
    """Return the server's name and version.

    Raises:
        NotSupported: older than 7.0 (code REDIS_TOO_OLD).
    """
    server = client.info("server")
    name = "valkey" if "valkey_version" in server else "redis"
    version = server.get("valkey_version") or server["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < MIN_VERSION:
        raise NotSupported(
            f"Redis {version} at {client.url.rpartition('@')[2]} is too old: 7.0 or newer is needed",
            code="REDIS_TOO_OLD",
        )
    return f"{name} {version}"


@dataclass(frozen=True, slots=True)
class Durability:
    """What a 202 is worth: `word` is always (as promised), everysec or no (how often the server fsyncs), none (it keeps no file)
    or unknown; `warnings` has one sentence per setting that makes it worth less, [] is as it should be.
    """

    word: str = "always"
    warnings: tuple[str, ...] = ()


def check_durability(client: RedisClient) -> Durability:
    """Return what an external server keeps."""
    wanted = {
        "appendonly": ("yes", "accepted requests are lost when Redis is restarted"),
        "appendfsync": ("always", "requests that were accepted within about a second before a crash can be lost"),
        "maxmemory-policy": ("noeviction", "Redis may throw accepted requests away"),
    }
    found = {}
    for setting in wanted:
        try:
            answer = client.call("CONFIG", "GET", setting)
        except ResponseError as exc:
            return Durability(
                "unknown", (f"the server does not tell its settings ({exc}): its durability is not known",)
            )
        found[setting] = answer[1].decode() if answer else "unknown"
    warnings = tuple(
        f"redis {setting} is {found[setting]!r}, not {value!r}: {consequence}"
        for setting, (value, consequence) in wanted.items()
        if found[setting] != value
    )
    return Durability(found["appendfsync"] if found["appendonly"] == "yes" else "none", warnings)


def _word(error: RedisError) -> str:
    """Return the first word of an answer that is an error: its kind."""
    return error.status_code or str(error).split(" ", 1)[0]


def _unavailable(what: str, exc: Exception) -> Unavailable:
    return Unavailable(f"cannot {what}: Redis does not answer ({exc})", code="REDIS_UNAVAILABLE", retry_after_s=2)
