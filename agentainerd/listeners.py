"""Sockets to listen on: Unix sockets with mode and group, TCP, and what systemd hands over; and who holds a taken one.

Whatever is returned is bound and listening, and nobody accepts on it yet: connections that come early wait in the
kernel. Everything here blocks for moments only and is called while the daemon starts.
"""

import errno
import grp
import logging
import os
import shlex
import socket as stdlib_socket
import stat
import struct
from collections.abc import MutableMapping
from dataclasses import dataclass, field

import psutil
from gevent import socket

from agentainerd import defaults
from agentainerd.errors import AgentainerError, Unavailable

log = logging.getLogger(__name__)

_FIRST_INHERITED = 3  # sd_listen_fds(3)
_CREDENTIALS = struct.Struct("3i")
_PROGRAM = "agentainerd"


@dataclass(slots=True)
class Inherited:
    """Sockets that systemd bound for us, by what they are: the control socket, and TCP."""

    control: socket.socket | None = None
    tcp: list[socket.socket] = field(default_factory=list)


def inherited(environment: MutableMapping[str, str]) -> Inherited:
    """Take over the sockets of socket activation and remove its variables; nothing where there is none.

    Raises:
        Unavailable: a socket is neither TCP nor a Unix stream socket, or there are two control sockets.
    """
    count, pid = environment.pop("LISTEN_FDS", ""), environment.pop("LISTEN_PID", "")
    environment.pop("LISTEN_FDNAMES", None)
    taken = Inherited()
    if pid != str(os.getpid()) or not count.isdecimal():
        return taken
    for descriptor in range(_FIRST_INHERITED, _FIRST_INHERITED + int(count)):
        os.set_inheritable(descriptor, False)
        listener = socket.socket(fileno=descriptor)
        family = stdlib_socket.AddressFamily(listener.family)
        if family is stdlib_socket.AF_UNIX and taken.control is None:
            taken.control = listener
        elif family in (stdlib_socket.AF_INET, stdlib_socket.AF_INET6):
            taken.tcp.append(listener)
        else:
            listener.close()
            raise Unavailable(
                f"socket {descriptor} that systemd handed over is not one of ours ({family.name})",
                code="SOCKET_NOT_USABLE",
                hint="agentainerd.socket has one Unix socket and TCP ports: compare yours with the one that is shipped",
            )
    return taken


def tcp(host: str, port: int) -> list[socket.socket]:
    """Listen on every address that `host` means; port 0 takes a free one, the same for all.

    Raises:
        Unavailable: taken (the message says by whom, where that can be known), not ours, not permitted, or unknown.
    """
    try:
        found = stdlib_socket.getaddrinfo(host, None, type=stdlib_socket.SOCK_STREAM, flags=stdlib_socket.AI_PASSIVE)
    except OSError as exc:
        raise Unavailable(
            f"cannot listen on {place(host, port)}: {host} is not known here: {exc.strerror}",
            code="ADDRESS_UNKNOWN",
            hint="set server.host to an address of this machine, such as 127.0.0.1",
        ) from exc
    listeners: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            listeners.append(_bind_tcp(family, str(address[0]), port))
        except OSError as exc:
            if listeners and exc.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                continue  # localhost has ::1 in many hosts files of machines without IPv6
            for listener in listeners:
                listener.close()
            raise _tcp_refused(str(address[0]), port, exc) from exc
        port = listeners[0].getsockname()[1]
    return listeners


def unix(path: str, *, mode: int, group: str | None = None) -> socket.socket:
    """Listen on a Unix socket with these permissions; a stale one is replaced, one that answers is not.

    `group` gets the socket if it exists and we may give it.

    Raises:
        Unavailable: somebody listens there, something else has the name, or the folder is closed to us.
    """
    _make_way(path)
    listener = socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # what bind gives the file: never open for longer than we want
        listener.bind(path)
        if group:
            _give(path, group)
        os.chmod(path, mode)
        listener.listen(defaults.LISTEN_BACKLOG)
    except OSError as exc:
        listener.close()
        raise Unavailable(
            f"cannot listen on {path}: {exc.strerror}",
            code="SOCKET_NOT_USABLE",
            hint=f"the folder must belong to uid {os.geteuid()}: ls -ld {os.path.dirname(path)}",
        ) from exc
    return listener


def peer_of(connection: stdlib_socket.socket | socket.socket) -> tuple[int, int, int]:
    """Return (pid, uid, gid) of the other end of a Unix socket, as the kernel knows them (SO_PEERCRED)."""
    raw = connection.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, uid, gid


def place(host: str, port: int) -> str:
    """Return an address for people: 127.0.0.1:8081, [::1]:8081."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe_process(pid: int) -> str:
    """Return "pid 4123 (python3 -m http.server)", or what of it can be known."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        words = []
    command = shlex.join(words)
    if any(os.path.basename(word) == _PROGRAM for word in words[:3]) or f"-m {_PROGRAM}" in command:
        return f"another agentainerd, pid {pid} ({_short(command)})"
    return f"pid {pid} ({_short(command)})" if command else f"pid {pid}"


def _bind_tcp(family: int, host: str, port: int) -> socket.socket:
    listener = socket.socket(family, stdlib_socket.SOCK_STREAM)
    try:
        listener.setsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_REUSEADDR, 1)
        if family == stdlib_socket.AF_INET6:
            listener.setsockopt(stdlib_socket.IPPROTO_IPV6, stdlib_socket.IPV6_V6ONLY, int(host != "::"))
        listener.bind((host, port))
        listener.listen(defaults.LISTEN_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _tcp_refused(host: str, port: int, exc: OSError) -> AgentainerError:
    where = place(host, port)
    if exc.errno == errno.EADDRINUSE:
        pid = _listening_on(host, port)
        return Unavailable(
            f"cannot listen on {where}: address in use" + (f" by {describe_process(pid)}" if pid else ""),
            code="ADDRESS_IN_USE",
            hint=f"stop it, or set server.port (AGENTAINER_SERVER_PORT={port % 65535 + 1})",
        )
    hints = {
        errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE: set server.port to a higher one",
        errno.EADDRNOTAVAIL: "it is no address of this machine: set server.host to 127.0.0.1, or to 0.0.0.0 for all",
    }
    return Unavailable(
        f"cannot listen on {where}: {exc.strerror}", code="ADDRESS_NOT_USABLE", hint=hints.get(exc.errno or 0)
    )


def _listening_on(host: str, port: int) -> int | None:
    """Return the pid that keeps us from this address, where we may know it."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return None
    wildcards = ("0.0.0.0", "::")
    for connection in connections:
        if connection.status != psutil.CONN_LISTEN or not connection.laddr or not connection.pid:
            continue
        theirs, taken = connection.laddr
        if taken == port and (host == theirs or host in wildcards or theirs in wildcards):
            return int(connection.pid)
    return None


def _make_way(path: str) -> None:
    """Remove a socket that nobody listens on."""
    try:
        kind = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    except OSError as exc:
        raise Unavailable(f"cannot listen on {path}: {exc.strerror}", code="SOCKET_NOT_USABLE") from exc
    if not stat.S_ISSOCK(kind):
        raise Unavailable(
            f"cannot listen on {path}: there is something that is not a socket",
            code="SOCKET_NOT_USABLE",
            hint=f"look at it, and remove it if it can go: ls -l {path}",
        )
    if holder := _answering_on(path):
        raise Unavailable(
            f"cannot listen on {path}: in use by {holder}",
            code="ADDRESS_IN_USE",
            hint="stop it, or give this one another --runtime-dir (and --state-dir, and --listen)",
        )
    log.info("stale socket removed", extra={"path": path})
    os.unlink(path)


def _answering_on(path: str) -> str:
    """Return who listens on a Unix socket, "" for nobody."""
    with socket.socket(stdlib_socket.AF_UNIX, stdlib_socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
            return describe_process(peer_of(probe)[0])
        except (ConnectionRefusedError, FileNotFoundError):
            return ""
        except OSError as exc:
            return f"somebody ({exc.strerror or exc})"


def _give(path: str, group: str) -> None:
    try:
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.debug("there is no such group: only our own user can open the socket", extra={"group": group})
    except OSError as exc:
        log.warning(
            "the socket could not be given to its group", extra={"path": path, "group": group, "error": exc.strerror}
        )


def _short(command: str) -> str:
    return command if len(command) <= 100 else command[:97] + "..."
