"""What can go wrong between this program and the daemon, in words for people.

The texts name the endpoint and who chose it, the socket's owner and mode, and the caller: all that is needed to see
why. `pwd` and `grp` are imported on use, because most runs need neither.
"""

import os
import stat
from typing import Any

from agentainerctl.endpoints import Endpoint
from agentainerd.errors import AgentainerError, DeadlineExceeded, Forbidden, Unauthorized, Unavailable

START_HINT = "sudo systemctl start agentainerd   then: journalctl -u agentainerd -n 20   (without systemd: agentainerd)"


class ApiError(AgentainerError):
    """The daemon's own answer that it did not do it; `status` is HTTP's, 0 for an error inside a stream."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        details = body.get("details")
        super().__init__(
            str(body.get("message") or body.get("error") or f"HTTP status {status}"),
            code=str(body.get("code") or f"HTTP_{status}"),
            hint=str(body["hint"]) if body.get("hint") else None,
            details=details if isinstance(details, dict) else None,
        )
        self.status = status


class StreamBroken(Unavailable):
    """An answer stopped in the middle: the daemon stopped, or the way to it broke."""

    default_code = "CONNECTION_LOST"


def unreachable(endpoint: Endpoint, error: OSError) -> AgentainerError:
    """Return what a failed connect to `endpoint` means."""
    if endpoint.socket_path and isinstance(error, PermissionError):
        return _socket_denied(endpoint.socket_path)
    tried = " and ".join(endpoint.tried) or endpoint.url
    why = ""
    if not endpoint.socket_path or not isinstance(error, FileNotFoundError):
        why = f": {_reason(error)}"
    hint = START_HINT
    if endpoint.source not in ("the default", "from AGENTAINER_RUNTIME_DIR"):
        hint = f"check the endpoint, which is {endpoint.source}; on its host: {START_HINT}"
    return Unavailable(
        f"agentainerd is not running (tried {tried}, {endpoint.source}){why}", code="DAEMON_UNREACHABLE", hint=hint
    )


def connection_lost(endpoint: Endpoint, error: Exception) -> AgentainerError:
    """Return what it means that the connection broke after the request was sent, before an answer."""
    return Unavailable(
        f"the connection to agentainerd ({endpoint.url}) broke before it answered: {_reason(error)}",
        code="CONNECTION_LOST",
        hint="it may or may not have been done; see: agentainerctl list",
    )


def not_agentainerd(endpoint: Endpoint) -> AgentainerError:
    """Return what an answer means that is not of our API."""
    return Unavailable(
        f"what answers at {endpoint.url} ({endpoint.source}) is not agentainerd's API",
        code="NOT_AGENTAINERD",
        hint="agentainerctl system ping   shows which endpoint is used; --host chooses another",
    )


def no_answer(endpoint: Endpoint, timeout_s: float) -> AgentainerError:
    """Return what it means that nothing came within the time."""
    return DeadlineExceeded(
        f"agentainerd ({endpoint.url}) did not answer within {timeout_s:g} s",
        hint="it may still be done; see: agentainerctl list",
    )


def token_refused(endpoint: Endpoint, error: ApiError) -> AgentainerError:
    """Return `error` (status 401) with where the token came from; never shows more of it than its end."""
    where = f"{endpoint.host}:{endpoint.port}" if not endpoint.socket_path else endpoint.url
    if not endpoint.token:
        return Unauthorized(
            f"{where} asks for a token, and none was given",
            code=error.code,
            hint="export AGENTAINER_TOKEN=...   (on the daemon's host: agentainerctl token show)",
        )
    if error.code == "TOKEN_EXPIRED":
        return error
    end = f", ends in ...{endpoint.token[-4:]}" if len(endpoint.token) >= 16 else ""
    return Unauthorized(
        f"{where} refused the token ({endpoint.token_source}{end})",
        code=error.code,
        hint="on the daemon's host: agentainerctl token show   or unset AGENTAINER_HOST to use the local socket",
    )


def _reason(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


def _socket_denied(path: str) -> AgentainerError:
    import grp
    import pwd

    user_id = os.geteuid()
    try:
        user = pwd.getpwuid(user_id).pw_name
    except KeyError:
        user = str(user_id)
    own_groups = [_group_name(group_id) for group_id in sorted({os.getegid(), *os.getgroups()})]
    try:
        status = os.stat(path)
    except OSError:
        message = f"permission denied on {path} (a folder on the way is closed to you); you are {user}"
        return Forbidden(message, code="SOCKET_DENIED", hint="sudo agentainerctl ...")
    group = _group_name(status.st_gid)
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = str(status.st_uid)
    message = (
        f"permission denied on {path} (owner {owner}:{group}, mode {stat.S_IMODE(status.st_mode):04o}); "
        f"you are {user} (groups: {', '.join(own_groups)})"
    )
    hint = f"sudo usermod -aG {group} {user}, then log in again"
    if status.st_gid == 0 or not status.st_mode & stat.S_IWGRP:
        hint = "sudo agentainerctl ...   or: sudo groupadd agentainer, restart agentainerd, and join that group"
    elif group not in own_groups and user in grp.getgrgid(status.st_gid).gr_mem:
        hint = f"you are in group {group}, but not in this session: log in again, or: newgrp {group}"
    return Forbidden(message, code="SOCKET_DENIED", hint=hint)


def _group_name(group_id: int) -> str:
    import grp

    try:
        return grp.getgrgid(group_id).gr_name
    except KeyError:
        return str(group_id)
