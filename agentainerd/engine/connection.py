"""The connection to one engine: docker's low-level clients, made when they are first needed and again after a loss.

Two clients: one for calls, which have a timeout, one for streams, which may be silent for hours. Nothing else in the
program holds a docker client, and nothing of docker's own private parts is used outside this file.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import docker
import docker.auth
import docker.errors
import docker.utils
from gevent import socket

from agentainerd.engine.errors import docker_errors, unreachable
from agentainerd.engine.streams import ByteStream, Duplex
from agentainerd.errors import InvalidParameter, Unavailable

_POOL_SIZE = 64
"""Connections kept open to the engine; docker's default of 10 is thrown away and made anew under load."""


class Connection:
    """One engine's address, and the clients to it. Any greenlet may call; the lock guards only the making of a client."""

    def __init__(self, host: str, *, timeout_s: float) -> None:
        """Check the address; connect to nothing. `timeout_s`: for each call, and for the first word of a stream.

        Raises:
            InvalidParameter: it is not unix:///path, tcp://host:port, http:// or https://.
        """
        self.host = _checked(host)
        self.timeout_s = timeout_s
        self._lock = threading.Lock()
        self._clients: dict[str, docker.APIClient] = {}
        self._streams: set[ByteStream] = set()

    @property
    def is_local(self) -> bool:
        """The engine is on this host."""
        return self.host.startswith("unix://")

    @contextmanager
    def calling(self, verb: str, noun: str, ref: str = "") -> Iterator[docker.APIClient]:
        """Give the client for a call, and turn what goes wrong inside into our errors (docker_errors has the words)."""
        try:
            with docker_errors(self.host, verb, noun, ref):
                yield self._client("calls")
        except Unavailable as error:
            if error.code == "ENGINE_UNAVAILABLE":
                self._forget()
            raise

    def open_stream(
        self,
        method: str,
        path: str,
        *args: str,
        params: Mapping[str, str | int],
        headers: Mapping[str, str] | None = None,
        body: IO[bytes] | None = None,
        answer_timeout_s: float | None = None,
    ) -> ByteStream:
        """Send a request whose answer is read piece by piece; return when its head is here and says yes.

        `path` has {0}, {1} for `args`. Must run inside `calling`, which turns its errors into ours.
        """
        client: Any = self._client("streams")  # its private methods are not in the type stubs
        response = client.request(
            method,
            client._url(path, *args),
            params=params,
            headers=headers,
            data=body,
            stream=True,
            timeout=answer_timeout_s or self.timeout_s,
        )
        stream = ByteStream(response, client._get_raw_response_socket(response)._sock, on_close=self._streams.discard)
        self._streams.add(stream)
        return stream

    def attach(self, container_id: str, command: Sequence[str], environment: Mapping[str, str]) -> tuple[str, Duplex]:
        """Start a command in a container; return its name and a connection to its input and output. Inside `calling`."""
        calls: Any = self._client("calls")
        started: str = calls.exec_create(container_id, list(command), stdin=True, environment=dict(environment))["Id"]
        client: Any = self._client("streams")
        response = client._post_json(
            client._url("/exec/{0}/start", started),
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
            data={"Tty": False, "Detach": False},
            stream=True,
            timeout=self.timeout_s,
        )
        client._raise_for_status(response)
        # What came with the head is in the reader's buffer already: whoever reads the socket would miss it.
        return started, Duplex(response, client._get_raw_response_socket(response)._sock, response.raw._fp.fp)

    def stat_in_container(self, container_id: str, path: str) -> str | None:
        """Return what the engine knows of a file in a container, as base64 of JSON, or None where there is none.

        Works on a container that never ran. Must run inside `calling`.
        """
        client: Any = self._client("calls")
        url = client._url("/containers/{0}/archive", container_id)
        response = client.head(url, params={"path": path}, timeout=client.timeout)
        if response.status_code == 404:
            return None
        client._raise_for_status(response)
        return str(response.headers.get("X-Docker-Container-Path-Stat", ""))

    def unpack(self, container_id: str, path: str, tar: Iterator[bytes], *, timeout_s: float) -> None:
        """Have the engine unpack a tar in a container, as it is read; what `tar` raises goes through.

        Works on a container that never ran. Must run inside `calling`.
        """
        client: Any = self._client("streams")
        url = client._url("/containers/{0}/archive", container_id)
        response = client.put(url, params={"path": path}, data=tar, timeout=(self.timeout_s, timeout_s))
        client._raise_for_status(response)

    def registry_headers(self, ref: str) -> dict[str, str]:
        """Return the header with the login for the registry of an image, if the engine's user has one."""
        client = self._client("streams")
        registry, _ = docker.auth.resolve_repository_name(ref)
        login = docker.auth.get_config_header(client, registry)
        return {"X-Registry-Auth": login.decode() if isinstance(login, bytes) else login} if login else {}

    def all_registries_headers(self) -> dict[str, str]:
        """Return the header with all logins: a build may pull from anywhere."""
        headers: dict[str, bytes | str] = {}
        client: Any = self._client("streams")
        client._set_auth_headers(headers)
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in headers.items()}

    def close(self) -> None:
        """End all streams and drop all connections; a later call makes new ones."""
        for stream in list(self._streams):
            stream.close()
        self._forget()

    def _client(self, name: str) -> docker.APIClient:
        with self._lock:
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = self._connect()
            return client

    def _connect(self) -> docker.APIClient:
        if self.host.startswith("unix://"):
            self._knock(self.host.removeprefix("unix://"))
        connect: Any = docker.APIClient  # the type stubs want whole seconds
        client: docker.APIClient = connect(self.host, version="auto", timeout=self.timeout_s, max_pool_size=_POOL_SIZE)
        client.trust_env = False  # no proxy and no .netrc between us and our engine
        return client

    def _knock(self, path: str) -> None:
        # docker's client wraps what went wrong here in text and leaves a socket open.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
            knock.settimeout(self.timeout_s)
            try:
                knock.connect(path)
            except OSError as error:
                raise unreachable(self.host, error) from error

    def _forget(self) -> None:
        """Drop the clients: the next call makes new ones, which ask for the version of what is there then."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()


def _checked(host: str) -> str:
    try:
        docker.utils.parse_host(host)
    except docker.errors.DockerException as error:
        raise InvalidParameter("docker.host", f"{host!r} is not an engine's address", hint=_FORMS) from error
    if not host.startswith(("unix:///", "tcp://", "http://", "https://")):
        raise InvalidParameter("docker.host", f"{host!r} is not an engine's address", hint=_FORMS)
    return host


_FORMS = "write it as unix:///var/run/docker.sock or tcp://host:port"
