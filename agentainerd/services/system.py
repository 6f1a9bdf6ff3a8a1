"""What the daemon knows of itself: is it alive, is it ready, what does it run on, what takes space, what should be better."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TypeVar

from gevent.lock import RLock

from agentainerd import offload
from agentainerd.config import Config
from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.proxy.routing import Gate, RouteTable
from agentainerd.services.audit import AuditService
from agentainerd.services.models import ModelService
from agentainerd.services.replay import ReplayService
from agentainerd.services.state_sync import StateSync
from agentainerd.services.tokens import TokenService
from agentainerd.services.views import Json, rfc3339
from agentainerd.store.agents import AgentStore
from agentainerd.store.connection import RedisClient, check_version
from agentainerd.store.journal import RedisJournal
from agentainerd.store.shared_redis import FOLDER as SHARED_REDIS_FOLDER
from agentainerd.store.spool import Spool
from agentainerd.store.system_logs import LOG_FOLDER
from agentainerd.supervisor import LoopStatus
from agentainerd.version import VERSION

T = TypeVar("T")

READINESS_TTL_S = 1.0  # everybody may ask; engine and Redis are asked once a second at most


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the answers come from. `facts`: what only the daemon knows (listen, sockets, egress, warnings), JSON-ready."""

    config: Config
    engine: Engine
    redis: RedisClient
    journal: RedisJournal
    spool: Spool
    store: AgentStore
    routes: RouteTable
    state_sync: StateSync
    replay: ReplayService
    tokens: TokenService
    audit: AuditService
    models: ModelService
    loops: Callable[[], Sequence[LoopStatus]]
    facts: Callable[[], Mapping[str, object]]


class SystemService:
    """Reads only. Nothing here fails because a part of the daemon does: the answer says so instead."""

    def __init__(self, sources: Sources) -> None:
        self._from = sources
        self._started_at = time.time()
        self._lock = RLock()
        self._checked_at = -READINESS_TTL_S
        self._checks: dict[str, str] = {}

    def version(self) -> Json:
        """Return the program's version."""
        return {"version": VERSION}

    def ping(self) -> Json:
        """Return that requests are served."""
        return {"version": VERSION, "started_at": rfc3339(self._started_at)}

    def health(self) -> Json:
        """Return that the process lives, and what a 202 of it is worth (store.connection.Durability; off: no persistence)."""
        return {"status": "ok", "durability": self._from.facts().get("durability", "always")}

    def agentos_health(self) -> Json:
        """Return what the health check of the AgentOS document answers."""
        now = time.time()
        return {
            "status": "healthy",
            "service": "agentos",
            "time": int(now),
            "instantiated_at": rfc3339(self._started_at),
            "uptime_seconds": round(max(0.0, now - self._started_at), 3),
        }

    def readiness(self) -> dict[str, str]:
        """Return for each part that a request needs "ok", or why it is not; at most READINESS_TTL_S old."""
        with self._lock:
            if time.monotonic() - self._checked_at >= READINESS_TTL_S:
                sources = self._from
                self._checks = {
                    "engine": _check(sources.engine.ping),
                    "redis": _check(lambda: sources.redis.call("PING")),
                    "journal": "ok" if sources.journal.available else "not available",
                    "routes": "ok" if sources.routes.complete else "not all agents are known yet",
                }
                self._checked_at = time.monotonic()
            return dict(self._checks)

    def info(self) -> Json:
        """Return everything that a person wants to know when something is wrong."""
        sources = self._from
        config = sources.config
        engine, engine_trouble = _attempt(lambda: asdict(sources.engine.info()))
        redis, redis_trouble = _attempt(self._redis)
        agents, _ = _attempt(sources.store.all)
        facts = dict(sources.facts())
        told = facts.pop("warnings", ())
        warnings = [str(warning) for warning in told] if isinstance(told, list | tuple) else []
        warnings += [text for text in (engine_trouble, redis_trouble, sources.audit.trouble) if text]
        return {
            "version": VERSION,
            "pid": os.getpid(),
            "started_at": rfc3339(self._started_at),
            "state_dir": config.paths.state_dir,
            "runtime_dir": config.paths.runtime_dir,
            **facts,
            "engine": engine or {"error": engine_trouble},
            "redis": redis or {"error": redis_trouble},
            "journal": {
                "available": sources.journal.available,
                "persistence": config.features.request_persistence,
                "replaying": sources.replay.in_flight,
            },
            "token": "from the configuration" if sources.tokens.is_configured else "made by agentainerd",
            "agents": self._counts(agents or []),
            "orphans": [
                {"container_id": one.id[:12], "name": one.name, "agent_id": one.agent_id, "status": one.state.value}
                for one in sources.state_sync.orphans
            ],
            "loops": [
                {
                    "name": loop.name,
                    "interval_s": loop.interval_s,
                    "last_success_at": rfc3339(loop.last_success_at),
                    "failures": loop.failures,
                    "last_error": loop.last_error,
                }
                for loop in sources.loops()
            ],
            "warnings": warnings,
        }

    def df(self) -> Json:
        """Return what takes space: both Redis, the spool, images that agents use, the daemon's own logs."""
        sources = self._from
        state_dir = sources.config.paths.state_dir
        agents, trouble = _attempt(sources.store.all)
        redis, redis_trouble = _attempt(self._redis)
        spool_bytes, spool_files, logs, free_bytes = offload.run(_measure, state_dir, str(sources.spool.folder))
        return {
            "journal": redis or {"error": redis_trouble},
            "spool": {"bytes": spool_bytes, "files": spool_files},
            "images": self._images(agents or []) if not trouble else [],
            "shared_redis": {"bytes": offload.run(_folder_bytes, os.path.join(state_dir, SHARED_REDIS_FOLDER))},
            "logs": [{"name": name, "bytes": size} for name, size in logs],
            "free_bytes": free_bytes,
        }

    def _redis(self) -> Json:
        redis = self._from.redis
        memory = redis.info("memory")
        persistence = redis.info("persistence")
        return {
            "version": check_version(redis),
            "external": self._from.config.redis.is_external,
            "memory_bytes": int(memory.get("used_memory", 0)),
            "max_memory_bytes": int(memory.get("maxmemory", 0)),
            "file_bytes": int(persistence.get("aof_current_size", 0)),
        }

    def _counts(self, agents: Sequence[Agent]) -> Json:
        found = Counter(agent.state.value for agent in agents)
        ready = sum(route.gate is Gate.OPEN for route in self._from.routes.routes())
        return {"total": len(agents), "ready": ready, **dict(sorted(found.items()))}

    def _images(self, agents: Sequence[Agent]) -> list[Json]:
        users: dict[str, list[str]] = {}
        for agent in agents:
            users.setdefault(agent.image_id or agent.spec.image, []).append(agent.name)
        found = []
        for ref, names in users.items():
            image, trouble = _attempt(lambda ref=ref: self._from.engine.image(ref))  # type: ignore[misc]
            size = image.size if image else 0
            name = (image.tags[0] if image.tags else ref) if image else f"{ref} ({trouble})"
            found.append({"image": name, "bytes": size, "agents": ", ".join(sorted(names))})
        return found


def _attempt(function: Callable[[], T]) -> tuple[T | None, str]:
    try:
        return function(), ""
    except AgentainerError as error:
        return None, f"{error.message}{f' (hint: {error.hint})' if error.hint else ''}"


def _check(function: Callable[[], object]) -> str:
    try:
        function()
    except Unavailable as error:
        return error.message
    return "ok"


def _measure(state_dir: str, spool: str) -> tuple[int, int, list[tuple[str, int]], int]:
    sizes = [entry.stat(follow_symlinks=False).st_size for entry in _files(spool)]
    logs = sorted((entry.name, entry.stat().st_size) for entry in _files(state_dir) if ".log" in entry.name)
    logs.append((f"{LOG_FOLDER}/", _folder_bytes(os.path.join(state_dir, LOG_FOLDER))))
    space = os.statvfs(state_dir)
    return sum(sizes), len(sizes), logs, space.f_bavail * space.f_frsize


def _folder_bytes(folder: str) -> int:
    """Return what a folder and those in it take; what is removed meanwhile does not count."""
    found = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += os.lstat(os.path.join(path, name)).st_size
    return found


def _files(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_file(follow_symlinks=False)]
    except FileNotFoundError:
        return []
