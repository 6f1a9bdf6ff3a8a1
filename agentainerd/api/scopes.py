"""What each route asks of its caller: the only place that says so. A handler that is in none of these tables is for
administrators, and a test fails.
"""

from collections.abc import Callable

from werkzeug.wrappers import Response

from agentainerd.api import (
    agentos,
    agents,
    audit,
    autonomous,
    backups,
    bridges,
    deployments,
    documentation,
    events,
    health,
    images,
    jobs,
    metrics,
    models,
    ports,
    replicas,
    requests,
    runs,
    scheduler,
    session_events,
    sessions,
    system,
    system_logs,
    templates,
    tokens,
)
from agentainerd.model.tokens import Scope

Handler = Callable[..., Response]

PROBES: frozenset[Handler] = frozenset((system.health, system.livez, system.readyz))
"""Of nobody, and asked under any name."""
PUBLIC: frozenset[Handler] = PROBES | {
    requests.state, requests.response, requests.cancel_own, documentation.specification, documentation.page,
    scheduler.root,
}  # fmt: skip
"""Of nobody: a ticket is asked for instead, or nothing."""
LOCAL: frozenset[Handler] = frozenset((tokens.show, tokens.rotate))
"""Reached through the control socket only."""

_READ: tuple[Handler, ...] = (
    agents.page, agents.get, agents.logs, health.get, health.page, metrics.get, metrics.history, metrics.page,
    metrics.daemon, metrics.prometheus, deployments.page,
    backups.list_, backups.get,
    jobs.page, jobs.get, jobs.events, jobs.logs, jobs.artifacts, jobs.artifact, jobs.download,
    runs.page, runs.get, runs.events, models.page, models.usage, models.of_run, models.of_session,
    templates.page, templates.get,
    scheduler.status, scheduler.page, scheduler.job, scheduler.logs, scheduler.log, scheduler.download,
    agentos.page, sessions.page, sessions.get, sessions.summary, sessions.history, sessions.messages, sessions.export,
    session_events.events,
    requests.page, events.events, images.get, system.version, system.ping, system.info, system.df, system.doctor,
)  # fmt: skip
_OPERATE: tuple[Handler, ...] = (
    agents.start, agents.stop, agents.restart, agents.pause, agents.resume, replicas.scale, ports.open_,
    backups.create, backups.verify,
    jobs.submit, jobs.retry_webhook, jobs.cancel, jobs.remove,
    scheduler.schedule, scheduler.cancel,
    runs.create, runs.give_input, runs.cancel, runs.cancel_all, bridges.check,
    agentos.run, agentos.stream, sessions.create, sessions.update, sessions.delete, sessions.summarize, sessions.reuse,
    autonomous.start, autonomous.resume, autonomous.chat,
    requests.detail, requests.replay, requests.cancel, requests.purge, system_logs.system_logs,
)  # fmt: skip
_ADMIN: tuple[Handler, ...] = (
    agents.deploy, agents.remove, autonomous.remove, deployments.plan, deployments.apply, deployments.export,
    backups.restore, backups.export, backups.import_, backups.delete,
    images.build, images.pull, audit.entries, audit.verify,
    backups.create, backups.list_, backups.get, backups.delete, backups.verify, backups.restore,
    tokens.page, tokens.get, tokens.create, tokens.rotate_named, tokens.revoke,
)  # fmt: skip
SCOPES: dict[Handler, Scope] = {
    **dict.fromkeys(_READ, Scope.READ),
    **dict.fromkeys(_OPERATE, Scope.OPERATE),
    **dict.fromkeys(_ADMIN, Scope.ADMIN),
}


def needed(handler: Handler) -> Scope:
    """Return what a token must be good for."""
    return SCOPES.get(handler, Scope.ADMIN)
