"""All services, and how they are put together: what one tells another is a function that it is given here."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from agentainerd import defaults
from agentainerd.archives.archives import Archives
from agentainerd.archives.listings import Bounds
from agentainerd.config import Config
from agentainerd.engine.engine import Engine
from agentainerd.model.containers import Networks
from agentainerd.model.events import Action
from agentainerd.model.health import Health, HealthState
from agentainerd.proxy.routing import Route, RouteTable
from agentainerd.proxy.target import Target
from agentainerd.services.agents import AgentService
from agentainerd.services.applications import deeds
from agentainerd.services.audit import DAEMON, Actor, AuditLimits, AuditService
from agentainerd.services.autonomous import AutonomousService
from agentainerd.services.backup_exchange import ExchangeService
from agentainerd.services.backup_plans import Planner
from agentainerd.services.backup_requests import RequestCopies
from agentainerd.services.backup_restore import RestoreService
from agentainerd.services.backup_volumes import VolumePlaces
from agentainerd.services.backups import BackupService
from agentainerd.services.bridge_check import BridgeCheckService
from agentainerd.services.bridges import BridgeService
from agentainerd.services.containers import Containers
from agentainerd.services.deployments import DeploymentService
from agentainerd.services.doctor import DoctorService
from agentainerd.services.events import EventService
from agentainerd.services.fleet import Fleet
from agentainerd.services.health import HealthMonitor
from agentainerd.services.health_reports import HealthReports
from agentainerd.services.idle import IdleService
from agentainerd.services.images import ImageService
from agentainerd.services.job_folders import JobFolders
from agentainerd.services.job_links import JobBridges
from agentainerd.services.job_sandboxes import Sandboxes
from agentainerd.services.jobs import JobService
from agentainerd.services.lifecycle import Lifecycle
from agentainerd.services.metrics import MetricsService
from agentainerd.services.metrics_daemon import DaemonMetrics
from agentainerd.services.metrics_history import MetricsHistory
from agentainerd.services.metrics_reports import MetricsReports
from agentainerd.services.model_recorder import ModelRecorder
from agentainerd.services.model_reports import ModelReports
from agentainerd.services.model_usage import ModelUsageService
from agentainerd.services.models import ModelService
from agentainerd.services.named_tokens import NamedTokenService
from agentainerd.services.ports import PortService
from agentainerd.services.readiness import DeathCheck, Readiness
from agentainerd.services.replay import ReplayService, Send
from agentainerd.services.replicas import ReplicaService
from agentainerd.services.requests import RequestService
from agentainerd.services.rollouts import Rollout
from agentainerd.services.run_means import Means
from agentainerd.services.runs import RunService
from agentainerd.services.runtime import RuntimeAgents
from agentainerd.services.scheduler import SchedulerService
from agentainerd.services.sessions import SessionService
from agentainerd.services.shared_redis import SharedRedisService
from agentainerd.services.specs import SpecResolver
from agentainerd.services.starting import Starting
from agentainerd.services.state_sync import StateSync
from agentainerd.services.system import Sources, SystemService
from agentainerd.services.system_logs import SystemLogService
from agentainerd.services.templates import TemplateService
from agentainerd.services.tokens import TokenService
from agentainerd.services.updates import UpdateService
from agentainerd.services.volumes import VolumePolicy
from agentainerd.services.webhooks import LOOP as WEBHOOKS
from agentainerd.services.webhooks import WebhookService
from agentainerd.store.agents import AgentStore
from agentainerd.store.audit import AuditFile
from agentainerd.store.backups import BACKUP_FOLDER, BackupFiles
from agentainerd.store.connection import RedisClient
from agentainerd.store.deployments import DeploymentStore
from agentainerd.store.events import EventStore
from agentainerd.store.jobs import JobStore
from agentainerd.store.journal import RedisJournal
from agentainerd.store.metrics import MetricsStore
from agentainerd.store.model_usage import ModelUsageStore
from agentainerd.store.redis_binary import find_binary
from agentainerd.store.requests import RequestStore
from agentainerd.store.run_writer import RunWriter
from agentainerd.store.runs import RunStore
from agentainerd.store.sessions import SessionStore
from agentainerd.store.shared_redis import SharedRedisServer
from agentainerd.store.spool import Spool
from agentainerd.store.system_logs import LOG_FOLDER, LogChannel, LogFiles
from agentainerd.store.tokens import TokenStore
from agentainerd.supervisor import Supervisor


@dataclass(frozen=True, slots=True)
class Stores:
    """What is kept in Redis and beside it."""

    redis: RedisClient
    agents: AgentStore
    requests: RequestStore
    journal: RedisJournal
    spool: Spool


@dataclass(frozen=True, slots=True)
class Services:
    """One of each."""

    agents: AgentService
    deployments: DeploymentService
    backups: BackupService
    restores: RestoreService
    exchange: ExchangeService
    runs: RunService
    jobs: JobService
    webhooks: WebhookService
    runtime: RuntimeAgents
    bridge_checks: BridgeCheckService
    sessions: SessionService
    templates: TemplateService
    autonomous: AutonomousService
    scheduler: SchedulerService
    health: HealthReports
    idle: IdleService
    measuring: MetricsService
    metrics: MetricsReports
    daemon_metrics: DaemonMetrics
    models: ModelService
    ports: PortService
    model_reports: ModelReports
    replicas: ReplicaService
    requests: RequestService
    replay: ReplayService
    images: ImageService
    shared_redis: SharedRedisService
    system: SystemService
    doctor: DoctorService
    system_logs: SystemLogService
    tokens: TokenService
    named_tokens: NamedTokenService
    audit: AuditService
    events: EventService
    state_sync: StateSync
    volumes: VolumePolicy

    def doors(self, networks: Networks) -> Mapping[str, int]:
        """Return the addresses at which agents may reach one more port, and these ports; the agents' networks are known now.

        Raises as `shared_redis.doors`.
        """
        self.webhooks.networks = networks.subnets
        return self.shared_redis.doors(networks)


def build(
    config: Config,
    stores: Stores,
    engine: Engine,
    routes: RouteTable,
    *,
    supervisor: Supervisor,
    send: Send,
    port: int,
    facts: Callable[[], Mapping[str, object]],
) -> Services:
    """Put all services together and tell the route table whom to call. Starts nothing and asks nobody.

    `send`: how a record is sent to an agent (Replayer.send). `port`: where the daemon really listens. `facts`: what
    `system info` tells beside what services know. The caller goes on with tokens.open, state_sync.load and .watch.
    """
    events = EventService(EventStore(stores.redis), supervisor.spawn)
    audit = _audit(config, supervisor)
    named_tokens = NamedTokenService(TokenStore(stores.redis), audit)
    tokens = TokenService(config.paths.state_dir, config.security.default_token, routes, audit, named=named_tokens)
    named_tokens.on_change = tokens.publish
    routes.on_token_refused, routes.on_token_used = tokens.refuse_agent_token, named_tokens.used
    routes.on_control_token = lambda client, agent: audit.refuse(
        Actor("anonymous", client), "control_token_on_agent_path", agent
    )
    replay = ReplayService(
        routes,
        stores.journal,
        stores.requests,
        stores.spool,
        send,
        spawn=supervisor.spawn,
        max_attempts=config.requests.max_attempts,
    )
    monitor = HealthMonitor(engine, supervisor.spawn)
    readiness = Readiness(supervisor.spawn, monitor, on_ready=partial(_is_ready, routes, replay, events))
    fleet = Fleet(stores.agents, routes, readiness, events, persistence=config.features.request_persistence)
    volumes = VolumePolicy(_own_paths(config), config.security.volume_roots)
    shared_redis = _shared_redis(config, stores, supervisor)
    containers = Containers(
        engine, volumes, f"http://{defaults.DAEMON_NAME}:{port}", shared_redis, RuntimeAgents(config.runtime)
    )
    models = _models(config, stores, fleet, tokens, containers, supervisor, port=port)
    resolver = SpecResolver(engine, stores.agents, volumes, f"http://{defaults.DAEMON_NAME}:{port}")
    lifecycle = Lifecycle(fleet, containers, supervisor.spawn)
    rollout = Rollout(fleet, containers, supervisor.spawn)
    state_sync = StateSync(
        fleet, lifecycle, containers, engine, tidy=rollout.tidy, spawn=supervisor.spawn, wake=supervisor.wake
    )
    health = HealthReports(fleet, monitor)
    monitor.on_recovered = readiness.admit
    monitor.on_change = partial(_health_changed, state_sync, events)
    starting = Starting(fleet, lifecycle, engine, state_sync.sync)
    idle = IdleService(fleet, lifecycle, starting, stores.requests, spawn=supervisor.spawn)
    fleet.on_wanted = idle.wake
    measuring = MetricsService(fleet, engine, stores.requests, MetricsHistory(MetricsStore(stores.redis)))
    routes.on_suspect, routes.on_dead_check = readiness.suspect, DeathCheck(engine)
    stores.journal.on_pending = replay.wake
    replay.on_drained = partial(_was_drained, routes, events)
    sources = Sources(
        config=config,
        engine=engine,
        redis=stores.redis,
        journal=stores.journal,
        spool=stores.spool,
        store=stores.agents,
        routes=routes,
        state_sync=state_sync,
        replay=replay,
        tokens=tokens,
        audit=audit,
        models=models,
        loops=supervisor.status,
        facts=facts,
    )
    agents = AgentService(
        fleet,
        lifecycle,
        engine,
        stores.requests,
        starting=starting,
        health=health,
        spawn=supervisor.spawn,
        resolver=resolver,
        audit=audit,
        events=events,
        shared_redis=shared_redis,
    )
    replicas = ReplicaService(fleet, lifecycle, starting=starting, audit=audit)
    updates = UpdateService(
        fleet,
        containers,
        rollout,
        replicas,
        lifecycle=lifecycle,
        starting=starting,
        doubt=state_sync.doubt,
        resolver=resolver,
        engine=engine,
        audit=audit,
        events=events,
    )
    sandboxes = Sandboxes(fleet, agents, starting, lifecycle, engine, JobFolders(jobs_folder(config)), models)
    runs, jobs = _runs(
        stores,
        fleet,
        models,
        sandboxes,
        config=config,
        supervisor=supervisor,
        audit=audit,
        agents=agents,
        engine=engine,
    )
    backup_files = BackupFiles(Path(config.paths.state_dir) / BACKUP_FOLDER)
    places = VolumePlaces(engine, volumes, supervisor.spawn, is_local=config.docker.host.startswith("unix://"))
    copies = RequestCopies(stores.requests, stores.spool, stores.journal, max_age_s=config.requests.max_age_s)
    backups = BackupService(
        backup_files,
        places,
        fleet,
        agents,
        copies,
        audit=audit,
        spawn=supervisor.spawn,
    )
    return Services(
        agents=agents,
        deployments=DeploymentService(
            DeploymentStore(stores.redis),
            stores.agents,
            resolver,
            deeds(fleet, agents, updates, starting, events),
            spawn=supervisor.spawn,
            audit=audit,
        ),
        backups=backups,
        exchange=ExchangeService(backups, backup_files, audit),
        restores=RestoreService(
            backups,
            Planner(places, fleet, engine),
            places,
            fleet,
            requests=copies,
            agents=agents,
            updates=updates,
            audit=audit,
        ),
        runs=runs,
        jobs=jobs,
        runtime=containers.runtime,
        sessions=runs.sessions,
        bridge_checks=BridgeCheckService(fleet, runs.bridges, supervisor.spawn, audit),
        templates=_templates(config, jobs),
        webhooks=_webhooks(config, jobs, audit, supervisor, port=port),
        autonomous=AutonomousService(agents, runs.sessions, runs),
        scheduler=SchedulerService(jobs, runs, agents),
        health=health,
        idle=idle,
        measuring=measuring,
        metrics=MetricsReports(fleet, measuring),
        daemon_metrics=DaemonMetrics(stores.redis, stores.journal, measuring, loops=supervisor.status, facts=facts),
        models=models,
        ports=_ports(config, fleet, containers, audit, port=port),
        model_reports=ModelReports(models, fleet),
        replicas=replicas,
        requests=RequestService(
            fleet, stores.requests, stores.spool, replay, audit=audit, max_attempts=lambda: replay.max_attempts
        ),
        replay=replay,
        images=ImageService(engine, audit, max_context_bytes=defaults.MAX_BUILD_CONTEXT_BYTES),
        shared_redis=shared_redis,
        system=SystemService(sources),
        doctor=DoctorService(sources),
        system_logs=SystemLogService(
            LogFiles(Path(config.paths.state_dir) / LOG_FOLDER), LogChannel(stores.redis), supervisor.spawn
        ),
        tokens=tokens,
        named_tokens=named_tokens,
        audit=audit,
        events=events,
        state_sync=state_sync,
        volumes=volumes,
    )


def jobs_folder(config: Config) -> str:
    """Return where the folders of jobs are."""
    return config.jobs.output_dir or os.path.join(config.paths.state_dir, "jobs")


def _runs(  # noqa: PLR0913 - one for each that they are made of
    stores: Stores,
    fleet: Fleet,
    models: ModelService,
    sandboxes: Sandboxes,
    *,
    config: Config,
    supervisor: Supervisor,
    audit: AuditService,
    agents: AgentService,
    engine: Engine,
) -> tuple[RunService, JobService]:
    writer, store = RunWriter(stores.redis, supervisor.spawn), RunStore(stores.redis)
    means = Means(
        fleet,
        BridgeService(fleet, engine, supervisor.spawn),
        SessionService(SessionStore(stores.redis), store, writer, audit),
        store,
        writer,
        dead_check=fleet.routes.on_dead_check,
        restart=lambda agent_id, number: agents.restart_replica(agent_id, number, DAEMON),
        used=models.used_by,
        answer_timeout_s=lambda: runs.answer_timeout_s,
        spawn=supervisor.spawn,
    )
    runs = RunService(means, audit)
    models.find_run, models.find_session, models.active_runs = runs.get, runs.sessions.get, runs.active
    of_jobs = replace(means, bridges=JobBridges(fleet, engine, supervisor.spawn))
    archives = Archives(Path(config.paths.state_dir) / "archives", Bounds(max_bytes=config.jobs.archive_limit))
    return runs, JobService(
        runs,
        of_jobs,
        JobStore(stores.redis),
        sandboxes,
        engine,
        archives=archives,
        audit=audit,
        config=config.jobs,
    )


def _templates(config: Config, jobs: JobService) -> TemplateService:
    templates = TemplateService(config.jobs.templates_folder)
    jobs.expand = templates.expand
    return templates


def _webhooks(
    config: Config, jobs: JobService, audit: AuditService, supervisor: Supervisor, *, port: int
) -> WebhookService:
    webhooks = WebhookService(jobs.get, jobs.deliver, audit, config=config.jobs, port=port, spawn=supervisor.spawn)
    jobs.on_ended, webhooks.wake = webhooks.job_ended, partial(supervisor.wake, WEBHOOKS)
    return webhooks


def _models(
    config: Config,
    stores: Stores,
    fleet: Fleet,
    tokens: TokenService,
    containers: Containers,
    supervisor: Supervisor,
    *,
    port: int,
) -> ModelService:
    usage = ModelUsageService(ModelUsageStore(stores.redis), supervisor.spawn)
    url = f"http://{defaults.DAEMON_NAME}:{port}"
    recorder = ModelRecorder(config.models.record, config.models.replay, supervisor.spawn)
    models = ModelService(config.models, fleet, tokens, usage, recorder, url=url)
    containers.models, fleet.on_withdrawn = models.environment, models.forget
    gate = fleet.routes.models
    gate.on_ask, gate.on_end = models.ask, models.end
    return models


def _ports(config: Config, fleet: Fleet, containers: Containers, audit: AuditService, *, port: int) -> PortService:
    ports = PortService(fleet, audit, domain=config.server.domain, port=port)
    containers.ports = ports.environment
    return ports


def _shared_redis(config: Config, stores: Stores, supervisor: Supervisor) -> SharedRedisService:
    server = SharedRedisServer(
        lambda: find_binary(config.redis.server_binary).path,
        state_dir=Path(config.paths.state_dir),
        runtime_dir=Path(config.paths.runtime_dir),
        maxmemory_bytes=config.shared_redis.maxmemory_bytes,
        spawn=supervisor.spawn,
    )
    return SharedRedisService(server, stores.agents, host=defaults.DAEMON_NAME, port=config.shared_redis.port)


def _audit(config: Config, supervisor: Supervisor) -> AuditService:
    file = AuditFile(config.paths.state_dir, max_file_bytes=config.audit.file_bytes)
    return AuditService(file, supervisor.spawn, audit_limits(config))


def audit_limits(config: Config) -> AuditLimits:
    """Return how much is kept of the audit log."""
    return AuditLimits(config.audit.file_bytes, config.audit.keep_bytes, config.audit.keep_s)


def _is_ready(routes: RouteTable, replay: ReplayService, events: EventService, agent_id: str) -> None:
    """An agent takes requests: those that wait for it go first."""
    replay.wake(agent_id)
    if route := routes.find(agent_id.encode()):
        events.ready(agent_id, route.name)


def _was_drained(routes: RouteTable, events: EventService, agent_id: str, delivered: int, failed: int) -> None:
    """What waited for an agent was sent to it."""
    if route := routes.find(agent_id.encode()):
        message = "queued requests were delivered"
        events.publish(
            Action.REPLAY, agent_id=agent_id, agent=route.name, message=message, delivered=delivered, failed=failed
        )


def _health_changed(
    state_sync: StateSync, events: EventService, route: Route, target: Target, before: Health, now: Health
) -> None:
    """Tell of a replica whose health changed; one that is not well any more is replaced."""
    events.publish(
        Action.HEALTH, agent_id=route.agent_id, agent=route.name, message=now.last.message if now.last else "",
        state=now.state.value, before=before.state.value, replica=target.number,
    )  # fmt: skip
    if now.state is HealthState.UNHEALTHY and now.last is not None:
        well_s = now.since - before.since if before.state is HealthState.HEALTHY else 0.0
        message = f"{now.last.message} ({now.failures} in a row)"
        state_sync.replace(route, target, message, well_s)


def _own_paths(config: Config) -> list[str]:
    paths = [config.paths.state_dir, config.paths.runtime_dir, jobs_folder(config)]
    for url in (config.docker.host, config.redis.url):
        if url.startswith("unix://"):
            paths.append(url.removeprefix("unix://").partition("?")[0])
    return paths
