"""A deployment of the API as a file that can be applied again."""

import re
from collections.abc import Callable
from typing import Any

from agentainerctl.manifest import API_VERSION, KIND

Body = dict[str, Any]


def as_manifest(deployment: Body) -> Body:
    """Return what the file of a deployment says; secrets are `${NAME}`, to be given by the environment."""
    metadata = {key: deployment[key] for key in ("name", "description", "labels") if deployment.get(key)}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": _escaped(metadata),
        "spec": {"agents": [_agent(agent) for agent in deployment["agents"]]},
    }


def as_yaml(deployment: Body) -> str:
    """Return the file."""
    import yaml

    return str(yaml.safe_dump(as_manifest(deployment), sort_keys=False, allow_unicode=True, default_flow_style=False))


def _agent(agent: Body) -> Body:
    found: Body = {"name": agent["name"], "image": _escaped(agent["image"])}
    for key, (field, show) in _FIELDS.items():
        if field in agent:
            found[key] = show(agent[field])
    secrets = agent.get("secrets") or []
    if agent.get("env_vars"):
        env = {
            name: f"${{{_variable(name)}}}" if name in secrets else _escaped(value)
            for name, value in agent["env_vars"].items()
        }
        found["env"] = env
    if secrets:
        found["secrets"] = list(secrets)
    if agent.get("token"):
        found["token"] = f"${{{_variable(agent['name']).upper()}_TOKEN}}"
    sections = (
        ("resources", agent, _RESOURCES),
        ("persistence", agent, _PERSISTENCE),
        ("services", _services(agent), _SERVICES),
    )
    for section, body, fields in sections:
        shown = {key: show(body[field]) for key, (field, show) in fields.items() if field in body}
        if shown:
            found[section] = shown
    if agent.get("health_check"):
        found["healthCheck"] = {
            key: _escaped(agent["health_check"][field])
            for key, field in _HEALTH.items()
            if agent["health_check"].get(field)
        }
    if agent.get("volumes"):
        found["volumes"] = [_volume(volume) for volume in agent["volumes"]]
    return found


def _services(agent: Body) -> Body:
    """Return the services that it asks for."""
    return {name: wanted for name, wanted in (agent.get("services") or {}).items() if wanted}


def _volume(volume: Body) -> Body:
    found = {"host": _escaped(volume["host_path"]), "container": _escaped(volume["container_path"])}
    return {**found, "readOnly": True} if volume.get("read_only") else found


def _variable(name: str) -> str:
    """Return a name that the environment of a shell can have."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"_{plain}" if plain[0].isdigit() else plain


def _escaped(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a value whose texts mean themselves in a file."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, dict):
        return {key: _escaped(one) for key, one in value.items()}
    return [_escaped(one) for one in value] if isinstance(value, list) else value


def _size(size: int) -> str:
    for unit, factor in (("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10), ("G", 10**9), ("M", 10**6), ("K", 10**3)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def _cpu(nano: int) -> str:
    return f"{nano // 10**6}m" if nano % 10**9 and nano % 10**6 == 0 else f"{nano / 1e9:.9f}".rstrip("0").rstrip(".")


def _seconds(seconds: float) -> str:
    for unit, length in (("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


def _same(value: Any) -> Any:  # noqa: ANN401 - JSON
    return value


_Show = Callable[[Any], Any]
_FIELDS: dict[str, tuple[str, _Show]] = {
    "replicas": ("replicas", _same),
    "command": ("command", _escaped),
    "port": ("port", _same),
    "autoRestart": ("auto_restart", _same),
    "dependencies": ("dependencies", _same),
    "idleTimeout": ("idle_timeout_s", _seconds),
    "holdTimeout": ("hold_timeout_s", _seconds),
    "requestTimeout": ("request_timeout_s", _seconds),
    "stopGrace": ("stop_grace_s", _seconds),
    "networkEgress": ("network_egress", _same),
    "updateStrategy": ("update_strategy", _same),
    "bridge": ("bridge", _same),
    "bridgeCommand": ("bridge_command", _same),
    "model": ("model", _same),
    "runtime": ("runtime", _same),
    "namedPorts": ("named_ports", _same),
    "labels": ("labels", _escaped),
}
_RESOURCES: dict[str, tuple[str, _Show]] = {"memory": ("memory_limit", _size), "cpu": ("cpu_limit", _cpu)}
_PERSISTENCE: dict[str, tuple[str, _Show]] = {
    "enabled": ("persistence", _same),
    "retryPolicy": ("replay_policy", _same),
    "concurrency": ("replay_concurrency", _same),
    "ordered": ("ordered", _same),
    "maxPending": ("max_pending", _same),
    "maxPendingSize": ("max_pending_bytes", _size),
}
_SERVICES: dict[str, tuple[str, _Show]] = {"redis": ("redis", _same)}
_HEALTH = {
    "endpoint": "endpoint",
    "command": "command",
    "interval": "interval",
    "timeout": "timeout",
    "retries": "retries",
    "startPeriod": "start_period",
}
