"""Where the daemon is, and who says so: flag, environment or default. Every connection error names both.

Knows nothing of HTTP and opens no connection; looks at the file system only to pick the default socket and to read a
token file.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from agentainerd import defaults
from agentainerd.errors import InvalidParameter

HOST_HINT = f"write it as unix://{defaults.SYSTEM_RUNTIME_DIR}/{defaults.CONTROL_SOCKET} or http://127.0.0.1:8081"


class Endpoint(NamedTuple):
    """One way to the daemon.

    `socket_path` is "" for TCP, else `host` and `port` mean nothing. `source` and `token_source` are clauses for
    people: "from AGENTAINER_HOST", "the default". `tried`: all sockets that were looked for, where none exists.
    """

    source: str
    socket_path: str = ""
    host: str = ""
    port: int = 0
    token: str = ""
    token_source: str = ""
    tried: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """The endpoint as a person would write it."""
        if self.socket_path:
            return f"unix://{self.socket_path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


def find_endpoint(
    environment: Mapping[str, str],
    *,
    host: str = "",
    token: str = "",
    token_file: str = "",
    is_root: bool | None = None,
) -> Endpoint:
    """Return the endpoint that flags, environment and defaults give, in this order.

    Raises:
        InvalidParameter: the host is not an endpoint, or the token file can't be read.
    """
    if host:
        endpoint = _parse(host, "from --host")
    elif environment.get("AGENTAINER_HOST"):
        endpoint = _parse(environment["AGENTAINER_HOST"], "from AGENTAINER_HOST")
    else:
        endpoint = _default(environment, os.geteuid() == 0 if is_root is None else is_root)
    if token:
        source = "from --token"
    elif token_file:
        token, source = _read_token(token_file), f"from {token_file}"
    else:
        token, source = environment.get("AGENTAINER_TOKEN", ""), "from AGENTAINER_TOKEN"
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidParameter("token", f"has characters that no token has ({source})")
    return endpoint._replace(token=token, token_source=source if token else "")


def _parse(text: str, source: str) -> Endpoint:
    if text.startswith("unix://") and text[7:].startswith("/"):
        return Endpoint(source, socket_path=text[7:])
    try:
        parts = urlsplit(text)
        port = parts.port or defaults.LISTEN_PORT
    except ValueError:
        raise InvalidParameter("host", f"{text!r} is not an endpoint ({source})", hint=HOST_HINT) from None
    if parts.scheme == "https":
        raise InvalidParameter(
            "host", "agentainerd speaks no TLS itself", hint="use http://, through an SSH tunnel or VPN"
        )
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise InvalidParameter("host", f"{text!r} is not an endpoint ({source})", hint=HOST_HINT)
    return Endpoint(source, host=parts.hostname, port=port)


def _default(environment: Mapping[str, str], is_root: bool) -> Endpoint:
    if environment.get("AGENTAINER_RUNTIME_DIR"):
        path = os.path.abspath(os.path.join(environment["AGENTAINER_RUNTIME_DIR"], defaults.CONTROL_SOCKET))
        return Endpoint("from AGENTAINER_RUNTIME_DIR", socket_path=path)
    system = f"{defaults.SYSTEM_RUNTIME_DIR}/{defaults.CONTROL_SOCKET}"
    if is_root:
        return Endpoint("the default", socket_path=system)
    private = os.path.join(_private_dir(environment), defaults.CONTROL_SOCKET)
    if _is_ours(private):
        return Endpoint("the default", socket_path=private)
    tried = () if os.path.exists(system) else (f"unix://{private}", f"unix://{system}")
    return Endpoint("the default", socket_path=system, tried=tried)


def _private_dir(environment: Mapping[str, str]) -> str:
    """Return the runtime folder of a daemon that a person runs as themselves, as the daemon chooses it."""
    if environment.get("XDG_RUNTIME_DIR"):
        return os.path.join(environment["XDG_RUNTIME_DIR"], "agentainer")
    return os.path.join(environment.get("TMPDIR") or "/tmp", f"agentainer-{os.geteuid()}")


def _is_ours(path: str) -> bool:
    """There is a socket, in a folder that nobody else could have put there to listen to what we say."""
    try:
        return os.path.exists(path) and os.stat(os.path.dirname(path)).st_uid == os.geteuid()
    except OSError:
        return False


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            token = file.read(4096).strip()
    except OSError as error:
        raise InvalidParameter("token-file", f"cannot read {path}: {error.strerror}") from error
    if not token:
        raise InvalidParameter("token-file", f"{path} is empty")
    return token
