"""How agents and requests look in the API: the field names of the original, our own beside them, secrets masked."""

import base64
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime

import msgspec

from agentainerd.model.agents import MASK, Agent, masked_env
from agentainerd.model.audit import AuditEntry, ChainCheck
from agentainerd.model.backups import BackedAgent, Backup
from agentainerd.model.events import Event
from agentainerd.model.health import HealthState, worst
from agentainerd.model.replicas import AgentState, Exit, Replica, container_name
from agentainerd.model.requests import Detail, RequestState, StoredResponse, Summary
from agentainerd.model.tokens import NamedToken
from agentainerd.proxy.routing import Gate, Route
from agentainerd.store.requests import Counts

Json = dict[str, object]

SECRET_HEADERS = frozenset(
    ("authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "idempotency-key", "x-auth-token")
)


def rfc3339(at: float) -> str | None:
    """Return epoch seconds as RFC 3339 in UTC with milliseconds; None for 0, which means never."""
    if not at:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def agent_json(
    agent: Agent,
    route: Route | None,
    counts: Counts,
    health_of: Callable[[Agent, int], HealthState] = lambda agent, number: HealthState.NONE,
) -> Json:
    """Return an agent as the API shows it; `health_of` tells the health of a replica, by its number."""
    spec = agent.spec
    return {
        "id": agent.id,
        "name": spec.name,
        "image": spec.image,
        "image_id": agent.image_id,
        "container_id": agent.container_id,
        "status": agent.state.value,
        "reason": agent.reason,
        "ready": agent.state is AgentState.RUNNING and route is not None and route.gate is Gate.OPEN,
        "health": worst([health_of(agent, replica.number) for replica in agent.replicas]).value,
        "health_check": spec.health_check and msgspec.structs.asdict(spec.health_check),
        "env_vars": masked_env(spec),
        "secrets": list(spec.secrets),
        "cpu_limit": spec.cpu_limit,
        "memory_limit": spec.memory_limit,
        "auto_restart": spec.auto_restart,
        "token": MASK if spec.token else "",
        "ports": [],
        "port": agent.port,
        "named_ports": dict(agent.named_ports),
        "volumes": [msgspec.structs.asdict(volume) for volume in spec.volumes],
        "command": list(spec.command),
        "labels": dict(spec.labels),
        "network_egress": spec.network_egress,
        "services": msgspec.structs.asdict(spec.services),
        "model": spec.model,
        "runtime": spec.runtime,
        "replicas": spec.replicas,
        "dependencies": list(spec.dependencies),
        "links": dict(agent.links),
        "deployment": spec.deployment,
        "update_strategy": spec.update_strategy.value,
        "bridge": agent.bridge.value if agent.bridge else "",
        "bridge_command": list(spec.bridge_command),
        "idle_timeout_s": spec.idle_timeout_s,
        "hold_timeout_s": spec.hold_timeout_s,
        "request_timeout_s": spec.request_timeout_s,
        "stop_grace_s": spec.stop_grace_s,
        "persistence": spec.persistence,
        "replay_policy": spec.replay_policy.value,
        "replay_concurrency": spec.replay_concurrency,
        "ordered": spec.ordered,
        "max_pending": spec.max_pending,
        "max_pending_bytes": spec.max_pending_bytes,
        "endpoint": f"/agent/{spec.name}/",
        "restarts": agent.restarts,
        "crashes": agent.crashes,
        "next_restart_at": rfc3339(agent.next_restart_at),
        "last_exit": _exit_json(agent.last_exit),
        "containers": [
            _replica_json(agent, replica, route, health_of(agent, replica.number)) for replica in agent.replicas
        ],
        "requests": {
            "pending": counts.pending,
            "processing": counts.processing,
            "failed": counts.failed,
            "in_flight": route.in_flight if route else 0,
        },
        "created_at": rfc3339(agent.created_at),
        "updated_at": rfc3339(agent.updated_at),
        "started_at": rfc3339(agent.started_at),
    }


def _replica_json(agent: Agent, replica: Replica, route: Route | None, health: HealthState) -> Json:
    targets = [target for target in route.targets if target.number == replica.number] if route else []
    return {
        "replica": replica.number,
        "name": container_name(agent.id, replica.number, agent.spec.replicas),
        "container_id": replica.container_id,
        "status": replica.state.value,
        "reason": replica.reason,
        "ready": route is not None and any(target in route.serving for target in targets),
        "health": health.value,
        "restarts": replica.restarts,
        "crashes": replica.crashes,
        "next_restart_at": rfc3339(replica.next_restart_at),
        "last_exit": _exit_json(replica.last_exit),
        "in_flight": sum(target.in_flight for target in targets),
        "started_at": rfc3339(replica.started_at),
    }


def _exit_json(end: Exit | None) -> Json | None:
    if end is None:
        return None
    return {
        "exit_code": end.code,
        "oom_killed": end.oom_killed,
        "finished_at": rfc3339(end.at),
        "error": end.error,
        "log": list(end.log),
    }


def event_json(event: Event) -> Json:
    """Return an event."""
    return {
        "id": event.id,
        "time": rfc3339(event.at),
        "action": event.action.value,
        "agent_id": event.agent_id,
        "agent": event.agent,
        "message": event.message,
        "details": event.details,
    }


def audit_json(entry: AuditEntry) -> Json:
    """Return an entry of the audit log, without its seals."""
    return {
        "seq": entry.seq,
        "time": entry.time,
        "actor": entry.actor,
        "action": entry.action,
        "resource": entry.resource,
        "result": entry.result,
        "address": entry.address,
        "request_id": entry.request_id,
    }


def chain_json(check: ChainCheck) -> Json:
    """Return what a check of the audit log's chain found."""
    return {
        "intact": not check.fault_count,
        "entries": check.entries,
        "first_seq": check.first,
        "last_seq": check.head.seq,
        "last_mac": check.head.mac,
        "torn_lines": check.torn,
        "fault_count": check.fault_count,
        "faults": [asdict(fault) for fault in check.faults],
    }


def token_json(token: NamedToken) -> Json:
    """Return a named token, without anything that it could be guessed from."""
    return {
        "id": token.id,
        "name": token.name,
        "scopes": list(token.scopes),
        "created_at": rfc3339(token.created_at),
        "expires_at": rfc3339(token.expires_at),
        "is_expired": token.is_expired(time.time()),
        "last_used_at": rfc3339(token.used_at),
        "rotated_at": rfc3339(token.rotated_at),
        "old_until": rfc3339(token.old_until) if token.old_digest and token.old_until > time.time() else None,
    }


def summary_json(summary: Summary, max_attempts: int) -> Json:
    """Return a line of a request list. `retry_count`: attempts after the first one, as in the original."""
    return {
        "id": summary.id,
        "agent_id": summary.agent_id,
        "method": summary.method,
        "path": summary.target,
        "status": summary.state.value,
        "reason": summary.reason.value,
        "retry_count": max(0, summary.attempts - 1),
        "max_retries": max_attempts - 1,
        "attempt": summary.attempts,
        "maybe_duplicate": summary.maybe_duplicate,
        "request_bytes": summary.request_bytes,
        "response_bytes": summary.response_bytes,
        "status_code": summary.status,
        "duration_s": round(summary.duration_s, 6),
        "created_at": rfc3339(summary.received_at),
        "processed_at": rfc3339(summary.finished_at),
        "expires_at": rfc3339(summary.expires_at),
        "next_attempt_at": rfc3339(summary.next_attempt_at),
        "error": summary.error,
    }


def detail_json(detail: Detail, body: bytes | None, max_attempts: int) -> Json:
    """Return one request whole. `body` None: it is not kept, or not any more; bodies are base64."""
    headers = header_list(detail.head)
    summary = detail.summary
    return {
        **summary_json(summary, max_attempts),
        "headers": joined(headers),
        "header_list": [list(pair) for pair in headers],
        "body": base64.b64encode(body or b"").decode(),
        "replayable": body is not None and summary.state in (RequestState.PENDING, RequestState.FAILED),
        "response": detail.response and response_json(detail.response, summary.finished_at),
    }


def response_json(response: StoredResponse, received_at: float) -> Json:
    """Return a stored answer."""
    return {
        "status_code": response.status,
        "headers": joined(header_list(response.head)),
        "body": base64.b64encode(response.body).decode(),
        "received_at": rfc3339(received_at),
        "truncated": response.truncated,
    }


def public_json(summary: Summary) -> Json:
    """Return what the holder of a ticket may know of a request."""
    return {
        "request_id": summary.id,
        "status": summary.state.value,
        "reason": summary.reason.value,
        "status_code": summary.status,
        "attempt": summary.attempts,
        "maybe_duplicate": summary.maybe_duplicate,
        "created_at": rfc3339(summary.received_at),
        "processed_at": rfc3339(summary.finished_at),
        "expires_at": rfc3339(summary.expires_at),
        "next_attempt_at": rfc3339(summary.next_attempt_at),
        "error": summary.error,
    }


def raw_headers(head: bytes) -> list[tuple[str, str]]:
    """Return the header lines of a stored head, in order and as they were spelled; its first line is left out."""
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [(name, value.strip()) for name, colon, value in (line.partition(":") for line in lines) if colon]


def header_list(head: bytes) -> list[tuple[str, str]]:
    """Return the header lines of a stored head with the values of secrets masked."""
    return [(name, MASK if name.lower() in SECRET_HEADERS else value) for name, value in raw_headers(head)]


def joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Return headers as a map; the values of one name are joined with ", "."""
    found: dict[str, str] = {}
    for name, value in headers:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def backup_json(backup: Backup, *, with_omissions: bool = True) -> Json:
    """Return a backup as the API shows it; in lists without each omission. Nothing secret is in it."""
    manifest, contents = backup.manifest, backup.contents
    hidden = any(agent.has_secrets for agent in manifest.agents)
    shown: Json = {
        "id": manifest.id,
        "name": manifest.name,
        "description": manifest.description,
        "created_at": rfc3339(manifest.created_at),
        "version": manifest.version,
        "host": manifest.host,
        "size": backup.size,
        "agents": [_backed_json(agent) for agent in manifest.agents],
        "volumes": [{"source": volume.source, "named": volume.is_named} for volume in manifest.volumes],
        "files": contents.files,
        "data_bytes": contents.data_bytes,
        "requests": contents.requests,
        "secrets": "encrypted" if manifest.sealed else "left out" if hidden else "none",
        "paused": manifest.was_paused,
        "omitted": contents.omitted,
        "sha256": contents.sha256,
    }
    if with_omissions:
        shown["omissions"] = [msgspec.structs.asdict(omission) for omission in contents.omissions]
    return shown


def _backed_json(agent: BackedAgent) -> Json:
    return {
        "id": agent.id,
        "name": agent.spec.name,
        "image": agent.spec.image,
        "status": agent.state,
        "volumes": [msgspec.structs.asdict(volume) for volume in agent.spec.volumes],
        "secrets": [*agent.secrets, *(["token"] if agent.has_token else [])],
    }
