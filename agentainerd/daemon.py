"""The composition root: what is made of what, in which order it starts, and in which it stops. Nothing else.

docs/operations.md has the order as a table. Whatever was started registers how it is undone, so a start that fails half
way and a stop leave the same nothing behind; agents run on in both cases.
"""

import faulthandler
import gc
import logging
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import gevent
from gevent import socket
from gevent.event import Event

from agentainerd import defaults, folders, gateways, listeners, sdnotify, watchdog
from agentainerd.api.access import AccessOptions, Door
from agentainerd.api.app import App
from agentainerd.api.exchange import ApiLimits
from agentainerd.config import Config
from agentainerd.config_load import ConfigError, Loaded, reloaded
from agentainerd.control_server import ControlServer
from agentainerd.engine import firewall
from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.errors import InvalidParameter, Unavailable
from agentainerd.gateways import Gateways
from agentainerd.lag import Lag
from agentainerd.logs import Logs
from agentainerd.loops import idle, jobs, metrics, replay, retention, state_sync, webhooks
from agentainerd.proxy.journal import NullJournal
from agentainerd.proxy.origins import Names, Origins
from agentainerd.proxy.peers import Peers
from agentainerd.proxy.replay import Replayer
from agentainerd.proxy.routing import RouteTable
from agentainerd.proxy.server import COMPILED, DataPlane, ProxyOptions
from agentainerd.services import services as service_layer
from agentainerd.services.audit import DAEMON
from agentainerd.services.services import Services, Stores
from agentainerd.store.agents import AgentStore
from agentainerd.store.connection import Durability, RedisClient, check_durability, check_version
from agentainerd.store.journal import RedisJournal
from agentainerd.store.redis_binary import find_binary
from agentainerd.store.redis_server import RedisServer
from agentainerd.store.requests import RequestStore
from agentainerd.store.spool import Spool
from agentainerd.store.system_logs import LOG_FOLDER, Limits, LogWriter
from agentainerd.supervisor import Supervisor
from agentainerd.version import VERSION
from agentainerd.watchdog import AcceptSign, CommitSign, Watchdog

log = logging.getLogger(__name__)

LOOPS = (state_sync, replay, retention, idle, jobs, webhooks, metrics)
GC_THRESHOLDS = (50_000, 20, 20)
"""A request leaves no cycle behind, but thousands in flight look like growth to the collector."""
STOP_TIMEOUT_S = 5.0  # for loops and background tasks to end, after the drain
MAX_OPEN_FILES = 65536
EXIT_STOPPED = 0
EXIT_FENCED = 4


class _StopAtOnce(BaseException):
    """A signal came before the daemon served."""


class Daemon:
    """One daemon, from its start to its stop; made and run by the main greenlet.

    `read` reads the configuration again, for SIGHUP.
    """

    def __init__(self, loaded: Loaded, read: Callable[[], Loaded]) -> None:
        self._loaded = loaded
        self._config = loaded.config
        self._read = read
        self._warnings = list(loaded.warnings)
        self._durability = Durability()  # of the own server
        self._apps: list[App] = []
        self._undo = ExitStack()
        self._foundation = Supervisor()  # Redis and the journal: outlives everything else
        self._supervisor = Supervisor()  # loops, probes, replays, restarts
        self._notifier = sdnotify.from_environment(os.environ)
        self._main = gevent.getcurrent()
        self._is_serving = False
        self._redis_server: RedisServer | None = None
        self._exit_code = EXIT_STOPPED
        self._stop_wanted = Event()
        self._hurry = Event()
        self._reload_wanted = Event()

    def run(self) -> int:
        """Start, serve until a signal, stop; return the exit code.

        Raises:
            AgentainerError: it could not start; what had been started is stopped again.
        """
        self._logs = Logs(self._config.log.level, self._config.log.format)
        watchers = [
            gevent.signal_handler(signal.SIGTERM, self._on_stop),
            gevent.signal_handler(signal.SIGINT, self._on_stop),
            gevent.signal_handler(signal.SIGHUP, self._reload_wanted.set),
        ]
        try:
            with self._undo:
                self._start()
                self._serve()
                self._drain()
            log.info("stopped")
        except _StopAtOnce:
            log.info("stopped before it served")
        finally:
            for watcher in watchers:
                watcher.cancel()
            self._logs.close()
        return self._exit_code

    # ---- start

    def _start(self) -> None:
        for warning in self._warnings:
            log.warning(warning)
        faulthandler.enable()  # a watchdog's SIGABRT tells where it stood: files, lines and functions, no values
        _set_limits()
        os.umask(0o077)  # for Redis too: whatever is made is closed to others, unless its mode is set
        self._take_folders()
        self._log_writer = LogWriter(Path(self._config.paths.state_dir) / LOG_FOLDER, _log_limits(self._config))
        self._logs.file.start(self._log_writer.write)
        control, tcp = self._bind()
        gateway = self._unix(self._config.paths.gateway_socket, 0o600)
        port: int = tcp[0].getsockname()[1]
        self._routes = RouteTable()
        self._lag = Lag()
        self._origins = Origins(_names(self._config))
        stores = self._open_stores()
        engine = self._open_engine()
        self._assemble(stores, engine, port)
        self._services.audit.open()
        self._services.named_tokens.load()
        self._services.tokens.open()
        self._services.tokens.check(self._config.server.host)
        known = self._services.state_sync.load()
        self._services.runs.load()
        self._services.jobs.load()
        self._services.webhooks.load(self._services.jobs.untold())
        self._controls = [self._door(Door.GATEWAY, gateway), self._door(Door.CONTROL, control)]
        for listener in tcp:
            self._plane.serve(listener)
        self._gateways = self._open_gateways(engine, tcp, port)
        self._start_loops(tcp)
        self._is_serving = True
        self._places = [listeners.place(*listener.getsockname()[:2]) for listener in tcp]
        log.info(
            "agentainerd %s serves on %s and %s", VERSION, ", ".join(self._places), self._config.paths.control_socket,
            extra={
                "agents": known, "state_dir": self._config.paths.state_dir,
                "hot_path": "compiled" if COMPILED else "interpreted",
            },
        )  # fmt: skip
        gc.collect()
        gc.freeze()  # what was made for good is not looked through again while requests are served
        gc.set_threshold(*GC_THRESHOLDS)
        self._notifier.ready(f"serving on {', '.join(self._places)}")

    def _take_folders(self) -> None:
        paths = self._config.paths
        folders.prepare_state(paths.state_dir)
        folders.prepare_runtime(paths.runtime_dir)
        for folder, noun in ((paths.state_dir, "state"), (paths.runtime_dir, "runtime")):
            self._undo.callback(folders.FolderLock(folder, noun).release)

    def _bind(self) -> tuple[socket.socket, list[socket.socket]]:
        """Return the control socket and the TCP ones: systemd's where it gave some, else our own."""
        given = listeners.inherited(os.environ)
        server = self._config.server
        tcp = given.tcp or listeners.tcp(server.host, server.port)
        for listener in tcp:
            self._undo.callback(listener.close)
        control = given.control
        if control is None:
            control = self._unix(self._config.paths.control_socket, 0o660, defaults.SOCKET_GROUP)
        return control, tcp

    def _unix(self, path: str, mode: int, group: str | None = None) -> socket.socket:
        listener = listeners.unix(path, mode=mode, group=group)
        self._undo.callback(_remove, path)
        self._undo.callback(listener.close)
        return listener

    def _open_stores(self) -> Stores:
        config = self._config
        self._undo.callback(self._foundation.stop, STOP_TIMEOUT_S)
        client = self._external_redis() if config.redis.is_external else self._embedded_redis()
        self._undo.callback(client.close)
        state_dir = Path(config.paths.state_dir)
        spool = Spool(state_dir / "spool")
        requests = RequestStore(
            client,
            spool,
            response_ttl_s=config.requests.response_ttl_s,
            failed_ttl_s=config.requests.failed_ttl_s,
            max_age_s=config.requests.max_age_s,
        )
        journal = RedisJournal(
            client,
            spool,
            state_dir=state_dir,
            spawn=self._foundation.spawn,
            on_fenced=self._on_fenced,
            response_ttl_s=config.requests.response_ttl_s,
        )
        recovered = journal.open()
        self._undo.callback(_close_journal, journal)
        log.info("journal opened: %s", recovered)
        return Stores(client, AgentStore(client), requests, journal, spool)

    def _embedded_redis(self) -> RedisClient:
        config = self._config
        binary = find_binary(config.redis.server_binary)
        self._redis_server = server = RedisServer(
            binary.path,
            state_dir=Path(config.paths.state_dir),
            runtime_dir=Path(config.paths.runtime_dir),
            maxmemory_bytes=config.redis.maxmemory_bytes,
            spawn=self._foundation.spawn,
        )
        self._undo.callback(server.stop)
        server.start()
        log.info(
            "own Redis started", extra={"program": binary.path, "version": binary.version, "redis_pid": server.pid}
        )
        return RedisClient(server.url)

    def _external_redis(self) -> RedisClient:
        redis = self._config.redis
        client = RedisClient(redis.address)
        try:
            version = check_version(client)
            self._durability = check_durability(client)
        except Unavailable as error:
            client.close()
            origin = self._loaded.origin("redis.url" if redis.url else "redis.host")
            raise Unavailable(
                f"{error.message} (from {origin})",
                code=error.code,
                hint="start that server, or remove the setting and agentainerd runs one of its own",
            ) from error
        for weakness in self._durability.warnings:
            log.warning("this Redis keeps less than is promised: %s", weakness)
        self._warnings += self._durability.warnings
        log.info("connected to Redis", extra={"version": version})
        return client

    def _open_engine(self) -> DockerEngine:
        docker = self._config.docker
        engine = DockerEngine(docker.host, network=docker.network, isolated_network=docker.isolated_network)
        self._undo.callback(engine.close)
        return engine

    def _assemble(self, stores: Stores, engine: DockerEngine, port: int) -> None:
        config = self._config
        self._requests, self._journal = stores.requests, stores.journal
        self._plane = DataPlane(
            self._routes,
            stores.journal if config.features.request_persistence else NullJournal(),
            _proxy_options(config, self._origins),
            gateway_socket=config.paths.gateway_socket,
            ticket=lambda request_id: self._services.tokens.ticket(request_id),
        )
        self._services: Services = service_layer.build(
            config,
            stores,
            engine,
            self._routes,
            supervisor=self._supervisor,
            send=Replayer(self._routes, self._plane.sweeper, self._plane.pumps).send,
            port=port,
            facts=self._facts,
        )
        self._logs.file.on_written = self._services.system_logs.written
        self._undo.callback(self._services.audit.close)
        self._undo.callback(self._services.measuring.close)
        self._undo.callback(self._services.models.usage.close)
        self._undo.callback(self._services.shared_redis.close)
        self._undo.callback(self._supervisor.stop, STOP_TIMEOUT_S)

    def _door(self, door: Door, listener: socket.socket) -> ControlServer:
        app = App(self._services, door=door)
        self._apps.append(app)
        self._configure(app)
        control = ControlServer(door.value, listener, app)
        control.start()
        self._undo.callback(control.drain, 0.0)
        self._undo.callback(control.stop_accepting)
        return control

    def _configure(self, app: App) -> None:
        security, api = self._config.security, self._config.api
        app.options = AccessOptions(self._origins.judge, security.allow_query_token, security.open_prefixes)
        app.limits = ApiLimits(api.request_timeout_s, api.max_body_bytes)
        self._services.runs.answer_timeout_s = api.answer_timeout_s
        self._services.sessions.has_summaries = api.summaries

    def _open_gateways(self, engine: DockerEngine, tcp: list[socket.socket], port: int) -> Gateways:
        try:
            self._services.tokens.check("0.0.0.0")  # noqa: S104 - agents are other hosts; nothing is bound there
            closed_for = ""
        except InvalidParameter as error:
            closed_for = error.reason
        return Gateways(
            engine,
            self._plane.serve,
            partial(firewall.protect, host_ports=self._config.security.host_ports),
            doors=self._services.doors,
            port=port,
            is_covered=any(listener.getsockname()[0] in ("0.0.0.0", "::") for listener in tcp),
            closed_for=closed_for,
        )

    def _signs(self, tcp: list[socket.socket]) -> dict[str, watchdog.Sign]:
        """What must be there for the watchdog to be fed."""
        plane, journal, server = self._plane, self._journal, self._redis_server
        accepts = AcceptSign([listener.getsockname() for listener in tcp], lambda: plane.is_full or plane.draining)
        commits = CommitSign(lambda: journal.in_flight, journal.probe, (lambda: server.up_s) if server else None)
        return {"accept loop": accepts, "journal": commits}

    def _start_loops(self, tcp: list[socket.socket]) -> None:
        services, supervisor = self._services, self._supervisor
        for loop in LOOPS:
            supervisor.loop(loop.NAME, partial(loop.run_once, services), loop.INTERVAL_S)
        supervisor.loop(gateways.LOOP, self._gateways.run_once, gateways.INTERVAL_S)
        if timeout_s := self._notifier.watchdog_timeout_s:
            dog = Watchdog(timeout_s, self._notifier.alive, self._notifier.status, self._signs(tcp))
            supervisor.loop(watchdog.LOOP, dog.run_once, dog.interval_s)
        supervisor.spawn("lag", self._lag.run)
        supervisor.spawn("backups", services.backups.recover)
        services.shared_redis.on_wanted = self._gateways.open_doors
        services.shared_redis.on_unwanted = partial(supervisor.wake, gateways.LOOP)
        services.state_sync.on_reconnect = partial(supervisor.wake, gateways.LOOP)
        services.state_sync.watch()

    def _facts(self) -> dict[str, object]:
        """What `system info` tells beside what the services know."""
        port = self._places[0].rpartition(":")[2]
        return {
            "listen": [*self._places, *(f"{address}:{port}" for address in self._gateways.addresses)],
            "control_socket": self._config.paths.control_socket,
            "config_file": self._loaded.file or "",
            "isolation": self._gateways.isolation,
            "hot_path": "compiled" if COMPILED else "interpreted",
            "shared_redis": self._services.shared_redis.facts(),
            "loop_lag": self._lag.facts(),
            "connections": self._plane.connections,
            "durability": self._durability.word if self._config.features.request_persistence else "off",
            "warnings": [*self._warnings, *self._gateways.warnings, *self._logs.warnings],
        }

    # ---- between start and stop

    def _serve(self) -> None:
        while not self._stop_wanted.is_set():
            gevent.wait([self._stop_wanted, self._reload_wanted], count=1)
            if self._reload_wanted.is_set():
                self._reload_wanted.clear()
                self._reload()

    def _on_stop(self) -> None:
        if self._stop_wanted.is_set():
            self._hurry.set()
        self._stop_wanted.set()
        if not self._is_serving:
            gevent.kill(self._main, _StopAtOnce)

    def _on_fenced(self) -> None:
        log.critical("another daemon has taken the journal over, or Redis lost it: stopping at once")
        self._exit_code = EXIT_FENCED
        self._hurry.set()
        self._on_stop()

    def _reload(self) -> None:
        self._notifier.reloading()
        try:
            self._loaded = self._read()
        except ConfigError as error:
            for problem in error.problems:
                log.error("the configuration was not reloaded: %s", problem)
        else:
            self._config, applied, waiting = reloaded(self._config, self._loaded.config)
            self._apply()
            self._services.audit.note(DAEMON, "reload_configuration", ", ".join(applied) or "nothing changed")
            log.info(
                "configuration reloaded",
                extra={
                    "changed": ", ".join(applied) or "nothing",
                    "waits_for_restart": ", ".join(waiting) or "nothing",
                },
            )
        self._notifier.ready(f"serving on {', '.join(self._places)}")

    def _apply(self) -> None:
        """Hand out the keys that may change while the daemon runs."""
        config = self._config
        self._logs.configure(config.log.level, config.log.format)
        self._log_writer.limits = _log_limits(config)
        self._plane.options = _proxy_options(config, self._origins)
        for app in self._apps:
            self._configure(app)
        self._origins.use(_names(config))
        self._services.replay.max_attempts = config.requests.max_attempts
        self._services.volumes.roots = config.security.volume_roots
        self._services.models.use(config.models)
        self._services.jobs.config = self._services.webhooks.config = config.jobs
        self._services.templates.folder = config.jobs.templates_folder
        self._services.audit.limits = service_layer.audit_limits(config)

    # ---- stop

    def _drain(self) -> None:
        """Take nothing new, and let what is in flight finish, until the time is over or a second signal comes."""
        end = time.monotonic() + self._config.server.drain_timeout_s
        log.info(
            "stopping: finishing what is in flight", extra={"drain_timeout_s": self._config.server.drain_timeout_s}
        )
        self._notifier.stopping("finishing what is in flight")
        self._services.runs.is_closing = True
        self._plane.stop_accepting()
        for control in self._controls:
            control.stop_accepting()
        self._services.replay.stop()
        while self._services.replay.in_flight and time.monotonic() < end and not self._hurry.wait(0.02):
            pass
        left = self._services.replay.in_flight
        for drain in (self._plane.drain, *(control.drain for control in self._controls)):
            left += self._finish(drain, end)
        if left:
            log.warning("requests were broken off: %d", left)

    def _finish(self, drain: Callable[[float], int], end: float) -> int:
        task = self._foundation.spawn("drain", drain, max(0.0, end - time.monotonic()))
        gevent.wait([task, self._hurry], count=1)
        if not task.ready():
            task.kill()
            return drain(0.0)
        return int(task.value or 0)


def _proxy_options(config: Config, origins: Origins) -> ProxyOptions:
    return ProxyOptions(
        domain=config.server.domain,
        judge=origins.judge,
        trusted_proxies=Peers(config.server.trusted_proxies),
        max_connections=config.server.max_connections,
        max_connections_per_source=config.server.max_connections_per_source,
        max_in_flight=config.server.max_in_flight,
        reject_without_journal=config.requests.on_journal_down == "reject",
        max_age_s=config.requests.max_age_s,
    )


def _log_limits(config: Config) -> Limits:
    return Limits(config.log.file_bytes, config.log.file_age_s, config.log.files)


def _names(config: Config) -> Names:
    server = config.server
    own = (server.host, os.uname().nodename)
    return Names(server.domain, own, server.allowed_hosts, server.allowed_origins)


def _set_limits() -> None:
    """Two descriptors a connection: take as many as we are allowed to. No core dumps: they would hold secrets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if soft != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def _close_journal(journal: RedisJournal) -> None:
    if not journal.close():
        log.error("the journal could not be written out: what was in memory is lost (no accepted request is)")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
