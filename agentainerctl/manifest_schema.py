"""The schema of files that describe deployments: which keys there are, the API's fields that they mean, how values are read.

A reader of a value gets its node and returns what the API takes, or raises `Wrong`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from agentainerctl.manifest_yaml import Node
from agentainerd.units import parse_cpu, parse_duration, parse_size


class Wrong(Exception):
    """A value that is wrong: why, what to write instead, and where, if that is deeper than what was read."""

    def __init__(self, reason: str, hint: str = "", node: Node | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.node = node


Parse = Callable[[Node], Any]
Fields = Mapping[str, tuple[str, Parse]]
"""Key in the file: field of the API, and how its value is read."""


def is_written_as_path(image: str) -> bool:
    """Return whether this is the path of a Dockerfile, or of its folder, and no image's name."""
    return image in (".", "..") or image.startswith(("./", "../", "/", "~")) or "Dockerfile" in image


def as_text(node: Node) -> str:
    """Return what was written."""
    if node.kind == "null":
        raise Wrong("has no value", 'an empty text is ""', node)
    if node.kind != "text":
        raise Wrong("has to be a text", node=node)
    return node.text


def _as_value(node: Node) -> str:
    return ",".join(map(as_text, node.items)) if node.kind == "list" else as_text(node)


def as_texts(node: Node) -> dict[str, str]:
    """Return a map of names to values; a value that is a list is joined by commas."""
    if node.kind != "map":
        raise Wrong("has to be a map of NAME: value")
    found = {}
    for name, (_, value) in node.entries.items():
        try:
            found[name] = _as_value(value)
        except Wrong as wrong:
            raise Wrong(f"{name} {wrong.reason}", wrong.hint, wrong.node) from wrong
    return found


def _as_words(node: Node) -> list[str]:
    if node.kind != "list":
        raise Wrong("has to be a list")
    return [as_text(item) for item in node.items]


def _as_command(node: Node) -> list[str]:
    """A list of words, or a line that is split as a shell does."""
    if node.kind == "list":
        return _as_words(node)
    import shlex

    try:
        return shlex.split(as_text(node))
    except ValueError as error:
        raise Wrong(f"{node.text!r} cannot be split into words: {error}") from error


def as_flag(node: Node) -> bool:
    """Return what true or false says; yes and on are too easily said without being meant."""
    text = as_text(node)
    if text.lower() not in ("true", "false"):
        raise Wrong(f"{text!r} is neither true nor false", "write true or false")
    return text.lower() == "true"


def as_mode(node: Node) -> bool:
    """Return whether the mode of a volume is read-only."""
    if as_text(node) not in ("ro", "rw"):
        raise Wrong(f"{node.text!r} is neither ro nor rw")
    return node.text == "ro"


def _as_number(node: Node) -> int:
    text = as_text(node)
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 15:
        raise Wrong(f"{text!r} is not a whole number")
    return int(text)


def _as_ports(node: Node) -> dict[str, int]:
    if node.kind != "map":
        raise Wrong("has to be a map of names and ports", "namedPorts: {gui: 6080}")
    return {name: _as_number(port) for name, (_, port) in node.entries.items()}


def _as_replicas(node: Node) -> int:
    """As in the original: 0 is 1."""
    number = _as_number(node)
    if number < 0:
        raise Wrong("replicas cannot be negative")
    return number or 1


def _as_size(node: Node) -> int:
    return parse_size(as_text(node))


def _as_cpu(node: Node) -> int:
    return round(parse_cpu(as_text(node)) * 1e9)


def _as_seconds(node: Node) -> float:
    return parse_duration(as_text(node))


def _as_duration(node: Node) -> str:
    parse_duration(as_text(node))
    return node.text


FIELDS: Fields = {
    "name": ("name", as_text),
    "replicas": ("replicas", _as_replicas),
    "command": ("command", _as_command),
    "env": ("env_vars", as_texts),
    "secrets": ("secrets", _as_words),
    "labels": ("labels", as_texts),
    "autoRestart": ("auto_restart", as_flag),
    "token": ("token", as_text),
    "port": ("port", _as_number),
    "dependencies": ("dependencies", _as_words),
    "idleTimeout": ("idle_timeout_s", _as_seconds),
    "holdTimeout": ("hold_timeout_s", _as_seconds),
    "requestTimeout": ("request_timeout_s", _as_seconds),
    "stopGrace": ("stop_grace_s", _as_seconds),
    "networkEgress": ("network_egress", as_flag),
    "updateStrategy": ("update_strategy", as_text),
    "bridge": ("bridge", as_text),
    "bridgeCommand": ("bridge_command", _as_words),
    "model": ("model", as_text),
    "runtime": ("runtime", as_flag),
    "namedPorts": ("named_ports", _as_ports),
}
RESOURCES: Fields = {"memory": ("memory_limit", _as_size), "cpu": ("cpu_limit", _as_cpu)}
PERSISTENCE: Fields = {
    "enabled": ("persistence", as_flag),
    "retryPolicy": ("replay_policy", as_text),
    "concurrency": ("replay_concurrency", _as_number),
    "ordered": ("ordered", as_flag),
    "maxPending": ("max_pending", _as_number),
    "maxPendingSize": ("max_pending_bytes", _as_size),
}
HEALTH: Fields = {
    "endpoint": ("endpoint", as_text),
    "command": ("command", _as_command),
    "interval": ("interval", _as_duration),
    "timeout": ("timeout", _as_duration),
    "retries": ("retries", _as_number),
    "startPeriod": ("start_period", _as_duration),
}
SERVICES: Fields = {"redis": ("redis", as_flag)}
SECTIONS: dict[str, Fields] = {
    "resources": RESOURCES, "persistence": PERSISTENCE, "healthCheck": HEALTH, "services": SERVICES,
}  # fmt: skip
ALIASES = {"healthCheck": "health_check", "dockerfile": "image"}
AGENT_KEYS = (
    *FIELDS, "image", "dockerfile", "buildArgs", "resources", "volumes", "healthCheck", "persistence", "services",
)  # fmt: skip
_ELSEWHERE = {
    **{key: f"resources.{key}" for key in RESOURCES},
    **{key: f"persistence.{key}" for key in PERSISTENCE},
    **{key: f"services.{key}" for key in SERVICES},
    **{key: f"healthCheck.{key}" for key in HEALTH if key not in FIELDS},
    "environment": "env",
    "ports": "port",
    "dependson": "dependencies",
    "build": "dockerfile",
    "restart": "autoRestart",
    "healthcheck": "healthCheck",
}
"""Keys that belong to another map, or are called otherwise elsewhere."""


def nearest(key: str, known: tuple[str, ...]) -> str:
    """Return "; did you mean 'x'?" where a known key is nearly this one, or another map has it."""
    from difflib import get_close_matches

    own = {one.lower(): one for one in known}
    others = {one.lower(): path for one, path in _ELSEWHERE.items() if path.partition(".")[0] in known}
    words = {**others, **own}
    near = get_close_matches(key.lower().replace("_", "").replace("-", ""), list(words), n=1, cutoff=0.7)
    return f"; did you mean '{words[near[0]]}'?" if near else f"; known: {', '.join(known)}"
