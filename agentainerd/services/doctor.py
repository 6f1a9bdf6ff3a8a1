"""Looks at everything that the daemon stands on, and says of each part how it is and what to do.

A check never fails: what keeps it from looking is what it has found. Nothing is changed, but for a nameless file of 4 KiB
that shows what an fsync costs.
"""

import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from agentainerd import clock, defaults, offload
from agentainerd.errors import AgentainerError
from agentainerd.model.findings import Finding, Level
from agentainerd.model.providers import KEY_VARIABLES
from agentainerd.services.system import Sources
from agentainerd.services.views import Json
from agentainerd.store.connection import check_durability, check_version
from agentainerd.units import format_duration, format_size
from agentainerd.version import VERSION

Check = Callable[[Sources], Iterator[Finding]]

MEMORY_SHARE = 0.8  # of Redis' memory: above it, say so before it is full
ROOM_BYTES = 4 * defaults.MIN_FREE_DISK_BYTES
INODE_SHARE = 0.05  # left of a file system's: below it, say so
SLOW_SYNC_S = 0.05
SYNCS = 5
EXPIRY_S = 7 * 86400.0
CLOCK_STEP_S = 60.0
ENGINE_CLOCK_S = 5.0
DESCRIPTORS_PER_CONNECTION = 2
CGROUPS = "/sys/fs/cgroup"


class DoctorService:
    """Examines what `sources` gives, which are those of the system service."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources

    def examine(self) -> list[Json]:
        """Return all findings in the order of the checks: `{check, level, message, hint}`. Takes a second or two."""
        return [asdict(finding) for name, check in CHECKS for finding in self._look(name, check)]

    def _look(self, name: str, check: Check) -> list[Finding]:
        found: list[Finding] = []
        try:
            found.extend(check(self.sources))
        except AgentainerError as error:
            found.append(Finding(name, Level.ERROR, error.message, error.hint or ""))
        except OSError as error:
            found.append(Finding(name, Level.ERROR, f"{error.filename or 'the system'}: {error.strerror}"))
        return found


def _versions(sources: Sources) -> Iterator[Finding]:
    path = str(sources.facts().get("hot_path", ""))
    yield Finding(
        "versions", Level.OK, f"agentainerd {VERSION}, Python {platform.python_version()}, Linux {platform.release()}"
    )
    if path == "interpreted":
        yield Finding(
            "versions", Level.WARNING, "the hot path is not compiled: a request costs about twice the CPU",
            "install gcc and python3-dev, then install agentainerd again with AGENTAINER_COMPILE=1",
        )  # fmt: skip


def _engine(sources: Sources) -> Iterator[Finding]:
    info = sources.engine.info()
    yield Finding(
        "engine", Level.OK,
        f"Docker Engine {info.version} (API {info.api_version}), storage {info.storage_driver}, "
        f"{info.containers} containers, {info.images} images",
    )  # fmt: skip
    for warning in info.warnings:
        yield Finding("engine", Level.WARNING, f"the engine says: {warning}", "see `docker info`")
    if info.clock and abs(apart_s := info.clock - time.time()) > ENGINE_CLOCK_S:
        yield Finding(
            "clock", Level.WARNING, f"the engine's clock is {abs(apart_s):.0f} s {'ahead' if apart_s > 0 else 'behind'}",
            "synchronise both machines' clocks: times of containers are the engine's",
        )  # fmt: skip


def _cgroups(sources: Sources) -> Iterator[Finding]:
    of_engine = sources.engine.info().cgroup_version
    here = "2" if os.path.exists(f"{CGROUPS}/cgroup.controllers") else "1" if os.path.isdir(f"{CGROUPS}/memory") else ""
    if not here:
        yield Finding(
            "cgroups", Level.WARNING, f"there are no cgroups in {CGROUPS}",
            "mount them (in a container: --cgroupns host -v /sys/fs/cgroup:/sys/fs/cgroup:ro); figures are slower without",
        )  # fmt: skip
    elif of_engine and of_engine != here:
        yield Finding("cgroups", Level.WARNING, f"version {here} here, and {of_engine} at the engine")
    else:
        yield Finding("cgroups", Level.OK, f"version {here}")


def _redis(sources: Sources) -> Iterator[Finding]:
    client, is_external = sources.redis, sources.config.redis.is_external
    memory, persistence = client.info("memory"), client.info("persistence")
    used, most = int(memory.get("used_memory", 0)), int(memory.get("maxmemory", 0))
    room = f"{format_size(used)} of {format_size(most)} of memory" if most else f"{format_size(used)} of memory"
    yield Finding(
        "redis", Level.OK, f"{check_version(client)}, {'a server of yours' if is_external else 'own server'}, {room}"
    )
    if most and used > MEMORY_SHARE * most:
        yield Finding(
            "redis", Level.WARNING, f"its memory is nearly full ({room}): then nothing more is queued",
            "raise maxmemory of that server" if is_external else "raise redis.maxmemory_bytes, or lower the agents' max_pending",
        )  # fmt: skip
    if persistence.get("aof_last_write_status", "ok") != "ok":
        yield Finding(
            "redis", Level.ERROR, "its last write to the journal failed", "look at the disk and into Redis' log"
        )
    for weakness in check_durability(client).warnings if is_external else ():
        yield Finding(
            "redis", Level.WARNING, f"it keeps less than is promised: {weakness}", "set it so, or remove redis.url"
        )


def _shared_redis(sources: Sources) -> Iterator[Finding]:
    """Say nothing where no agent asked for it."""
    facts = sources.facts().get("shared_redis")
    if not isinstance(facts, dict) or not facts.get("agents"):
        return
    used, most = int(facts.get("memory_bytes", 0)), sources.config.shared_redis.maxmemory_bytes
    if not facts["running"] or not facts.get("listen"):
        log = os.path.join(sources.config.paths.state_dir, "shared-redis.log")
        what = "can't be reached by agents" if facts["running"] else "does not run"
        yield Finding("shared redis", Level.ERROR, f"it {what}", f"see {log} and the daemon's log")
        return
    full = used > MEMORY_SHARE * most
    yield Finding(
        "shared redis", Level.WARNING if full else Level.OK,
        f"for {facts['agents']} agents, {format_size(used)} of {format_size(most)} of memory",
        "writes fail when it is full: raise shared_redis.maxmemory_bytes, or let keys expire" if full else "",
    )  # fmt: skip


def _journal(sources: Sources) -> Iterator[Finding]:
    if not sources.config.features.request_persistence:
        yield Finding("journal", Level.WARNING, "requests are not kept", "set features.request_persistence: true")
    elif sources.journal.available:
        yield Finding("journal", Level.OK, "requests are kept")
    else:
        yield Finding("journal", Level.ERROR, "it is not available: nothing is queued", "look at Redis and at the disk")


def _audit(sources: Sources) -> Iterator[Finding]:
    if trouble := sources.audit.trouble:
        yield Finding(
            "audit", Level.ERROR, f"{trouble}; nothing can be changed", "make room on the disk of the state folder"
        )
    else:
        yield Finding("audit", Level.OK, "every change is recorded")


def _tokens(sources: Sources) -> Iterator[Finding]:
    now = time.time()
    ending = [token for token in sources.tokens.named.all() if token.is_expired(now + EXPIRY_S)]
    for token in ending:
        when = f"expires in {format_duration(token.expires_at - now)}" if not token.is_expired(now) else "has expired"
        yield Finding(
            "tokens",
            Level.WARNING,
            f"the token '{token.name}' {when}",
            f"agentainerctl token rotate {token.name} --grace 24h, or token revoke {token.name}",
        )
    if not ending:
        yield Finding("tokens", Level.OK, f"none expires within {format_duration(EXPIRY_S)}")


def _disk(sources: Sources) -> Iterator[Finding]:
    state_dir = sources.config.paths.state_dir
    space = os.statvfs(state_dir)
    free = space.f_bavail * space.f_frsize
    room = f"{format_size(free)} free for {state_dir}"
    hint = f"make room on the file system of {state_dir}: nothing is queued below {format_size(defaults.MIN_FREE_DISK_BYTES)}"
    level = Level.ERROR if free < defaults.MIN_FREE_DISK_BYTES else Level.WARNING if free < ROOM_BYTES else Level.OK
    yield Finding("disk", level, room, "" if level is Level.OK else hint)
    if space.f_files and space.f_favail < INODE_SHARE * space.f_files:
        yield Finding(
            "disk", Level.WARNING, f"{space.f_favail} inodes left of {space.f_files}", "remove small files there"
        )
    sync_s = offload.run(_sync_time, state_dir)
    slow = sync_s > SLOW_SYNC_S
    yield Finding(
        "disk", Level.WARNING if slow else Level.OK, f"an fsync takes {sync_s * 1000:.1f} ms (median of {SYNCS})",
        "every durable request waits for one: move paths.state_dir to a faster disk" if slow else "",
    )  # fmt: skip


def _network(sources: Sources) -> Iterator[Finding]:
    facts, docker = sources.facts(), sources.config.docker
    networks = sources.engine.ensure_networks()
    yield Finding(
        "network",
        Level.OK,
        f"{docker.network} at {networks.gateway}, {docker.isolated_network} at {networks.isolated_gateway}",
    )
    if facts.get("isolation") == "enforced":
        yield Finding("network", Level.OK, "agents are kept from the other ports of this host")
    else:
        yield Finding(
            "network", Level.WARNING, f"agents can reach services of this host: {facts.get('isolation')}",
            "it needs iptables and CAP_NET_ADMIN on the host, as the systemd unit gives it",
        )  # fmt: skip


def _ports(sources: Sources) -> Iterator[Finding]:
    places = sources.facts().get("listen")
    listed = [str(place) for place in places] if isinstance(places, list) else []
    yield Finding("ports", Level.OK, f"serves on {', '.join(listed)}")
    host = sources.config.server.host
    if host not in ("127.0.0.1", "::1", "localhost"):
        yield Finding(
            "ports", Level.WARNING, f"listens on {host}: the proxy of every agent without a token is public there, unencrypted",
            "put a TLS proxy before it (docs/security.md), or set server.host to 127.0.0.1",
        )  # fmt: skip
    if prefixes := sources.config.security.open_prefixes:
        yield Finding(
            "ports", Level.WARNING, f"every user and program of this machine may use {', '.join(prefixes)} without a token",
            "where that is not meant, empty security.open_prefixes",
        )  # fmt: skip


def _permissions(sources: Sources) -> Iterator[Finding]:
    paths, wrong = sources.config.paths, []
    for path, forbidden in (
        (paths.state_dir, 0o077),
        (f"{paths.state_dir}/token", 0o077),
        (paths.control_socket, 0o007),
    ):
        if os.path.exists(path) and (mode := os.stat(path).st_mode & 0o777) & forbidden:
            wrong.append(path)
            yield Finding(
                "permissions",
                Level.ERROR,
                f"{path} is open to others (mode {mode:04o})",
                f"chmod {mode & ~forbidden:04o} {path}",
            )
    if not wrong:
        yield Finding(
            "permissions", Level.OK, f"state folder, token and control socket are closed to others (uid {os.geteuid()})"
        )


def _limits(sources: Sources) -> Iterator[Finding]:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS_PER_CONNECTION * sources.config.server.max_connections
    enough = soft == resource.RLIM_INFINITY or soft >= wanted
    yield Finding(
        "limits", Level.OK if enough else Level.WARNING, f"{soft} open files",
        "" if enough else f"allow {wanted} (LimitNOFILE= of the unit, or ulimit -n), or lower server.max_connections",
    )  # fmt: skip


def _clock(sources: Sources) -> Iterator[Finding]:
    step_s = time.time() - clock.now()
    stepped = abs(step_s) > CLOCK_STEP_S
    yield Finding(
        "clock", Level.WARNING if stepped else Level.OK,
        f"it was set by {step_s:+.0f} s since the start; deadlines did not move, times that are shown did" if stepped
        else "not set since the start",
        "restart agentainerd when that is convenient" if stepped else "",
    )  # fmt: skip


def _loops(sources: Sources) -> Iterator[Finding]:
    failing = [loop for loop in sources.loops() if loop.failures]
    for loop in failing:
        yield Finding("loops", Level.WARNING, f"{loop.name} failed {loop.failures} times in a row: {loop.last_error}")
    if not failing:
        yield Finding("loops", Level.OK, "all background work succeeds")
    for one in sources.state_sync.orphans:
        yield Finding(
            "loops",
            Level.WARNING,
            f"container {one.name} has our labels, and no agent",
            f"docker rm -f {one.name}, if it is not needed",
        )


def _sync_time(folder: str) -> float:
    """Return how long an fsync of 4 KiB takes in a folder, in seconds."""
    took = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(SYNCS):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def _models(sources: Sources) -> Iterator[Finding]:
    providers = sources.models.catalogue.providers
    if not providers:
        yield Finding("models", Level.OK, "the daemon has no provider: agents bring keys of their own, or ask no model")
        return
    silent = sources.models.unreachable()
    for name, reason in silent.items():
        yield Finding(
            "models", Level.WARNING, f"{name} can't be reached at {providers[name].base_url}: {reason}",
            "check base_url, name resolution, the firewall, and ca_file where the provider signs its certificate itself",
        )  # fmt: skip
    for name, provider in providers.items():
        if name in KEY_VARIABLES and not provider.api_key:
            yield Finding("models", Level.WARNING, f"{name} has no key", f"set api_key_file, or {KEY_VARIABLES[name]}")
    if reached := [name for name in providers if name not in silent]:
        yield Finding("models", Level.OK, f"{', '.join(reached)} can be reached")


CHECKS: tuple[tuple[str, Check], ...] = (
    ("versions", _versions),
    ("engine", _engine),
    ("cgroups", _cgroups),
    ("redis", _redis),
    ("shared redis", _shared_redis),
    ("journal", _journal),
    ("audit", _audit),
    ("tokens", _tokens),
    ("models", _models),
    ("disk", _disk),
    ("network", _network),
    ("ports", _ports),
    ("permissions", _permissions),
    ("limits", _limits),
    ("clock", _clock),
    ("loops", _loops),
)
