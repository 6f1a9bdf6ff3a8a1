"""Containers: from our spec to what Docker is asked for, hardened, and from what Docker says to our `Container`."""

import base64
import json
import math
import posixpath
import re
import stat
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import docker
from docker.types import LogConfig, Mount, Ulimit

from agentainerd import defaults
from agentainerd.engine.connection import Connection
from agentainerd.engine.errors import image_missing, start_failed
from agentainerd.engine.networks import AgentNetworks, rejoin
from agentainerd.errors import Conflict, Failed, NotFound
from agentainerd.model.agents import Volume
from agentainerd.model.containers import Container, ContainerSpec, ContainerState

AGENT_LABEL = "agentainer.id"
CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "SETUID", "SETGID", "NET_BIND_SERVICE", "KILL")
"""What stock images of nginx or postgres need to start; all others are dropped."""
OPEN_FILES = 4096
TMP_OPTIONS = "rw,exec,nosuid,nodev,size=64m,mode=1777"
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
NO_RESOLVER = "127.0.0.1"

_STATES = {
    "created": ContainerState.CREATED,
    "running": ContainerState.RUNNING,
    "paused": ContainerState.PAUSED,
    "exited": ContainerState.EXITED,
    "restarting": ContainerState.EXITED,  # between two runs, by a restart policy that somebody gave it
    "removing": ContainerState.GONE,
    "dead": ContainerState.GONE,  # a removal that failed half way: it can't be started any more
}
_EXIT_CODE = re.compile(r"Exited \((\d+)\)")
_UNRUNNABLE = {126: "its command can't be executed (exit 126)", 127: "its command was not found (exit 127)"}
_EXECUTABLE = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
_GO_FOLDER = 1 << 31  # the engine's mode is Go's: permissions are where Unix has them, the type is not
_DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Containers:
    """The containers of one engine. Stateless: safe from any greenlet."""

    def __init__(self, connection: Connection, networks: AgentNetworks) -> None:
        self._connection = connection
        self._networks = networks

    def create(self, spec: ContainerSpec) -> str:
        """See Engine.create. Nothing is left behind where it fails."""
        networks = self._networks.ensure()
        gateway = networks.gateway if spec.egress else networks.isolated_gateway
        first, *others = self._networks.joined(spec.egress)
        container_id = self._create(spec, first, "" if networks.is_member else gateway)
        try:
            with self._connection.calling("create", "container", spec.name) as client:
                for network in others:
                    client.connect_container_to_network(container_id, network, aliases=list(spec.aliases))
                self._check_command(client, container_id, spec)
        except BaseException:
            self.remove(container_id)
            raise
        return container_id

    def start(self, container_id: str) -> Container:
        """See Engine.start."""
        try:
            self._start(container_id)
        except Failed as error:
            if not re.search(r"network \S+ not found", error.message):
                raise
            self._rejoin(container_id)
            self._start(container_id)
        return self.inspect(container_id)

    def stop(self, container_id: str, *, grace_s: float) -> None:
        """See Engine.stop. The engine counts whole seconds: a part of one is rounded up."""
        with self._connection.calling("stop", "container", container_id) as client:
            client.stop(container_id, timeout=math.ceil(grace_s))

    def pause(self, container_id: str) -> None:
        """See Engine.pause."""
        with self._connection.calling("pause", "container", container_id) as client:
            client.pause(container_id)

    def unpause(self, container_id: str) -> None:
        """See Engine.unpause."""
        with self._connection.calling("resume", "container", container_id) as client:
            client.unpause(container_id)

    def remove(self, container_id: str) -> None:
        """See Engine.remove. A removal that is under way already is waited for."""
        try:
            with self._connection.calling("remove", "container", container_id) as client:
                client.remove_container(container_id, force=True, v=True)
        except NotFound:
            return
        except Conflict as error:
            if "already in progress" not in error.message:
                raise
            self._wait_until_removed(container_id)

    def limit(self, container_id: str, *, cpu_limit: int, memory_limit: int) -> None:
        """See Engine.limit. The client's own call knows no nano-CPUs, and the engine refuses a quota beside them."""
        limits = {"NanoCpus": cpu_limit, "Memory": memory_limit, "MemorySwap": memory_limit}
        with self._connection.calling("update", "container", container_id) as client:
            private: Any = client
            url = private._url("/containers/{0}/update", container_id)
            private._raise_for_status(
                private._post_json(url, data={key: value for key, value in limits.items() if value})
            )

    def rename(self, container_id: str, name: str) -> None:
        """See Engine.rename."""
        with self._connection.calling("rename", "container", name) as client:
            client.rename(container_id, name)

    def inspect(self, container_id: str) -> Container:
        """See Engine.inspect."""
        with self._connection.calling("inspect", "container", container_id) as client:
            return from_inspect(client.inspect_container(container_id), self._networks)

    def list(self) -> list[Container]:
        """See Engine.containers."""
        with self._connection.calling("list", "containers") as client:
            found = client.containers(all=True, filters={"label": AGENT_LABEL})
        return [from_list(item, self._networks) for item in found]

    def _create(self, spec: ContainerSpec, network: str, gateway: str) -> str:
        try:
            with self._connection.calling("create", "container", spec.name) as client:
                host = client.create_host_config(**_hardened(spec, gateway), network_mode=network)
                endpoint = client.create_endpoint_config(aliases=list(spec.aliases))
                created = client.create_container(
                    spec.image,
                    command=list(spec.command) or None,
                    name=spec.name,
                    hostname=spec.hostname,
                    environment=dict(spec.env),
                    labels=dict(spec.labels),
                    host_config=host,
                    networking_config={"EndpointsConfig": {network: endpoint}},
                )
        except NotFound as error:
            if error.noun == "image":
                raise image_missing(spec.image) from error
            raise
        return str(created["Id"])

    def _start(self, container_id: str) -> None:
        with self._connection.calling("start", "container", container_id) as client:
            client.start(container_id)

    def _rejoin(self, container_id: str) -> None:
        self._networks.ensure()
        with self._connection.calling("connect", "container", container_id) as client:
            mode = client.inspect_container(container_id)["HostConfig"]["NetworkMode"]
            rejoin(client, container_id, self._networks.joined(mode == self._networks.network))

    def _wait_until_removed(self, container_id: str) -> None:
        try:
            with self._connection.calling("remove", "container", container_id) as client:
                client.wait(container_id, condition="removed", timeout=math.ceil(self._connection.timeout_s))
        except NotFound:
            return

    def _check_command(self, client: docker.APIClient, container_id: str, spec: ContainerSpec) -> None:
        """Find a mistyped command now: with an init process, Docker starts the container and it exits with 127 later."""
        config = client.inspect_container(container_id)["Config"]
        if not spec.command or config.get("Entrypoint"):
            return
        program = spec.command[0]
        for path in _places(program, config):
            known = self._connection.stat_in_container(container_id, path)
            if known is not None:
                _check_executable(program, known)
                return
        raise start_failed(f"'{program}' is not in the image '{spec.image}'", exit_code=127)


def from_inspect(found: Mapping[str, Any], networks: AgentNetworks) -> Container:
    """Return our view of the engine's answer to an inspect."""
    state = found["State"]
    status = _STATES.get(state["Status"], ContainerState.EXITED)
    exit_code = int(state.get("ExitCode") or 0)
    labels = found["Config"].get("Labels") or {}
    return Container(
        id=found["Id"],
        agent_id=labels.get(AGENT_LABEL, ""),
        name=found["Name"].removeprefix("/"),
        state=status,
        image_id=found["Image"],
        address=_address(found["NetworkSettings"].get("Networks"), networks),
        started_at=epoch_s(state.get("StartedAt")),
        finished_at=epoch_s(state.get("FinishedAt")),
        exit_code=exit_code,
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or (_UNRUNNABLE.get(exit_code, "") if status is ContainerState.EXITED else ""),
        labels=labels,
    )


def from_list(found: Mapping[str, Any], networks: AgentNetworks) -> Container:
    """Return our view of one item of the engine's list, which says less than an inspect."""
    labels = found.get("Labels") or {}
    code = _EXIT_CODE.match(found.get("Status") or "")
    return Container(
        id=found["Id"],
        agent_id=labels.get(AGENT_LABEL, ""),
        name=(found.get("Names") or [""])[0].removeprefix("/"),
        state=_STATES.get(found["State"], ContainerState.EXITED),
        image_id=found.get("ImageID") or "",
        address=_address((found.get("NetworkSettings") or {}).get("Networks"), networks),
        exit_code=int(code[1]) if code else 0,
        labels=labels,
    )


def epoch_s(text: str | None) -> float:
    """Return epoch seconds for RFC 3339 with nanoseconds; 0.0 for the engine's "never" (year 1) and for nothing."""
    if not text or text.startswith("0001-"):
        return 0.0
    return datetime.fromisoformat(text).timestamp()


def _hardened(spec: ContainerSpec, gateway: str) -> dict[str, Any]:
    """Return the keyword arguments of `create_host_config`: the baseline for every agent, and the spec's limits."""
    options: dict[str, Any] = {
        "cap_drop": ["ALL"],
        "cap_add": list(CAPABILITIES),
        "security_opt": ["no-new-privileges:true"],
        "pids_limit": spec.pids_limit,
        "ulimits": [Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES)],
        # Docker's init runs as the image's user: what its tools start could read every variable from /proc/1/environ.
        "init": not spec.is_runtime,
        "read_only": spec.is_runtime,
        "log_config": LogConfig(type=LogConfig.types.JSON, config=LOG_OPTIONS),
        "restart_policy": {"Name": "no"},
        "mounts": [_mount(volume) for volume in spec.volumes],
        "extra_hosts": {defaults.DAEMON_NAME: gateway} if gateway else None,
    }
    if all(posixpath.normpath(volume.container_path) != "/tmp" for volume in spec.volumes):
        options["tmpfs"] = {"/tmp": TMP_OPTIONS}
    if spec.memory_limit:
        options["mem_limit"] = options["memswap_limit"] = spec.memory_limit
    if spec.cpu_limit:
        options["nano_cpus"] = spec.cpu_limit
    if not spec.egress:
        # Engines before 25.0.5 ask the host's own resolver on behalf of a network without a way out (CVE-2024-29018).
        options["dns"] = [NO_RESOLVER]
        options["dns_opt"] = ["timeout:1", "attempts:2"]  # nobody answers there: fail in 2 s, not in 10
    return options


def _mount(volume: Volume) -> Mount:
    kind: Literal["volume", "bind"] = "volume" if volume.is_named else "bind"
    return Mount(volume.container_path, volume.host_path, type=kind, read_only=volume.read_only)


def _address(joined: Mapping[str, Mapping[str, Any]] | None, networks: AgentNetworks) -> str:
    for name in (networks.network, networks.isolated):
        address = (joined or {}).get(name, {}).get("IPAddress")
        if address:
            return str(address)
    return ""


def _places(program: str, config: Mapping[str, Any]) -> list[str]:
    """Return where the program of a command can be, in the order in which it is looked for."""
    folder = config.get("WorkingDir") or "/"
    if "/" in program:
        return [posixpath.join(folder, program)]
    paths = [entry for entry in config.get("Env") or () if entry.startswith("PATH=")] or [_DEFAULT_PATH]
    return [posixpath.join(folder, part, program) for part in paths[-1].removeprefix("PATH=").split(":")]


def _check_executable(program: str, known: str) -> None:
    found = json.loads(base64.b64decode(known)) if known else {}
    mode = int(found.get("mode", _EXECUTABLE))
    if not found.get("linkTarget") and (mode & _GO_FOLDER or not mode & _EXECUTABLE):
        raise start_failed(f"'{program}' is not executable", exit_code=126)
