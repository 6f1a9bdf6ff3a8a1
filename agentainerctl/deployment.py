"""What `deploy` was asked for, as the body of POST /agents. Only what was given is in it: defaults are the daemon's."""

import os
import re
from typing import Any

from agentainerd.errors import InvalidParameter

FLAGS = {
    "name": "--name",
    "image": "--image",
    "env_vars": "--env",
    "secrets": "--secret",
    "volumes": "--volume",
    "cpu_limit": "--cpu",
    "memory_limit": "--memory",
    "auto_restart": "--auto-restart",
    "token": "--token",
    "port": "--port",
    "command": "--command",
    "labels": "--label",
    "network_egress": "--network-egress",
    "hold_timeout_s": "--hold-timeout",
    "request_timeout_s": "--request-timeout",
    "stop_grace_s": "--stop-grace",
    "persistence": "--persistence",
    "replay_policy": "--replay-policy",
    "replay_concurrency": "--replay-concurrency",
    "ordered": "--ordered",
    "max_pending": "--max-pending",
    "max_pending_bytes": "--max-pending-size",
    "replicas": "--replicas",
    "services": "--service",
    "model": "--model",
    "idle_timeout_s": "--idle-timeout",
    "update_strategy": "--update-strategy",
    "bridge": "--bridge",
    "bridge_command": "--bridge-command",
    "named_ports": "--named-port",
    "health_check.endpoint": "--health-endpoint",
    "health_check.command": "--health-command",
    "health_check.interval": "--health-interval",
    "health_check.timeout": "--health-timeout",
    "health_check.retries": "--health-retries",
    "health_check.start_period": "--health-start-period",
}
"""Field of the API: option of `deploy`."""
_MAX_ENV_FILE_BYTES = 1024 * 1024


def parse_volume(text: str) -> dict[str, Any]:
    """Return the mount that `host:container[:ro|rw]` means.

    A host part with a `/`, or that begins with `.` or `~`, is a path, from the current folder; else it names a volume of
    the engine.

    Raises:
        InvalidParameter: it hasn't that form.
    """
    host, separator, rest = text.partition(":")
    container, _, mode = rest.partition(":")
    if not separator or not host or not container or mode not in ("", "ro", "rw"):
        raise InvalidParameter(
            "volume", f"{text!r} is not a volume", hint="--volume ./data:/app/data[:ro], or NAME:/app/data"
        )
    if "/" in host or host.startswith((".", "~")):
        host = os.path.abspath(os.path.expanduser(host))
    return {"host_path": host, "container_path": container, "read_only": mode == "ro"}


def read_env_file(path: str) -> list[str]:
    """Return the lines NAME=VALUE (or NAME) of a file, without empty ones and comments; values are taken as they are.

    Raises:
        InvalidParameter: it can't be read, or a line has no name; the message has file and line.
    """
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(_MAX_ENV_FILE_BYTES).splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise InvalidParameter("env-file", f"cannot read {path}: {reason}") from error
    found = []
    for number, line in enumerate(lines, 1):
        text = line.lstrip("\ufeff \t")
        if not text or text.startswith("#"):
            continue
        if not re.match(r"[^\s=]+(=|\s*$)", text):
            raise InvalidParameter("env-file", f"{path}:{number}: {text!r} is not NAME=VALUE")
        found.append(text if "=" in text else text.strip())
    return found


def image_name(agent: str, stamp: str) -> str:
    """Return the name of the image that is built for an agent: `agentainer-<agent>:<stamp>`.

    Raises:
        InvalidParameter: the agent's name can't be part of an image's name (nor be an agent's name).
    """
    if not re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", agent):
        raise InvalidParameter("name", f"{agent!r} is not a name", hint="use a-z, 0-9 and -, as in a host's name")
    return f"agentainer-{agent}:{stamp}"
