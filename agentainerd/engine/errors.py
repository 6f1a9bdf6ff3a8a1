"""Docker's errors to ours, once, at this edge: `docker_errors` around every call, and the engine's words trimmed.

What went wrong is told apart by type and HTTP status where they say it; where the engine says it only in its text, the
patterns are here, and each has been seen on a real engine (tests/contract, tests/integration) but those of a full disk.
"""

import errno
import grp
import os
import pwd
import re
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from urllib.parse import urlsplit

import docker.errors
import requests  # noqa: TID251 - docker's client lets its errors through
import urllib3

from agentainerd.errors import (
    AgentainerError,
    Conflict,
    Failed,
    InvalidParameter,
    NotFound,
    TooManyRequests,
    Unavailable,
)

DOCKER_ERRORS = (docker.errors.DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""All that docker's client raises when a call goes wrong."""
_TIMEOUTS = (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError)
_BREAKS = (ConnectionError, IncompleteRead, urllib3.exceptions.ProtocolError)

_NOISE = re.compile(
    r"^(?:Error response from daemon: |failed to create (?:shim )?task(?: for container)?: |OCI runtime create failed: |"
    r"runc create failed: |container_linux\.go:\d+: starting container process caused: |"
    r"unable to start container process: |(?:error during container init: )|Conflict\. )+"
)
_TAIL = re.compile(r"(?:: unknown)+$")
_NO_SPACE = re.compile(r"no space left on device|disk quota exceeded|not enough space", re.IGNORECASE)
_BIND_MISSING = re.compile(r"bind source path does not exist: (.+)$")
_UNREACHABLE = re.compile(
    r"no such host|dial tcp|i/o timeout|connection (?:refused|reset)|network is unreachable|no route to host|x509|tls:|"
    r"Client\.Timeout|TLS handshake|server gave HTTP response|server misbehaving|context deadline exceeded|\bEOF$",
    re.IGNORECASE,
)
_NO_SUCH_IMAGE = re.compile(
    r"pull access denied|repository does not exist|manifest unknown|manifest for .* not found|not found|"
    r"unauthorized|denied:|authentication required|no basic auth|name unknown|invalid reference|no matching manifest",
    re.IGNORECASE,
)
_SYSTEM_SOCKETS = ("/var/run/docker.sock", "/run/docker.sock")


@contextmanager
def docker_errors(host: str, verb: str, noun: str, ref: str) -> Iterator[None]:
    """Turn what docker's client raises inside into our errors.

    `host` is the engine's address, `verb` what was tried ("start"), on the `noun` ("container", "image", "network",
    "engine") that is called `ref`; they are words of the messages.
    """
    try:
        yield
    except docker.errors.APIError as error:
        raise from_answer(error.status_code or 0, error.explanation or str(error), verb, noun, ref) from error
    except DOCKER_ERRORS as error:
        raise unreachable(host, error) from error


def from_answer(status: int, text: str, verb: str, noun: str, ref: str) -> AgentainerError:
    """Return our error for an answer of the engine that says no."""
    if verb == "pull":
        return from_pull(ref, text)
    if verb == "build":
        return build_failed(text, "", [])
    words = trimmed(text)
    if _NO_SPACE.search(text):
        return no_space(verb, noun, ref, words)
    for refused in (_refused_value, _wrong_state, _start_failure):
        if error := refused(status, words, verb, noun, ref):
            return error
    if status == 404:
        return image_missing(ref) if noun == "image" or "such image" in text.lower() else NotFound(noun, ref)
    return Failed(f"cannot {verb} {noun} '{_short(ref)}': {words}", code="ENGINE_FAILED", details={"status": status})


def image_missing(ref: str) -> NotFound:
    """Return the error for an image that is not on this engine; the sentence is the original's."""
    return NotFound(
        "image",
        ref,
        message=f"docker image '{ref}' not found. Please build or pull the image first",
        hint=f"docker pull {ref}, or give a Dockerfile",
    )


def no_space(verb: str, noun: str, ref: str, words: str) -> Unavailable:
    """Return the error for a full disk of the engine."""
    return Unavailable(
        f"cannot {verb} {noun} '{_short(ref)}': the engine has no space left ({words})",
        code="NO_SPACE",
        hint="docker system df shows what can go; docker image prune removes images without a name",
    )


def from_pull(ref: str, text: str) -> AgentainerError:
    """Return our error for what the engine says of a pull that failed."""
    words = trimmed(text)
    if _NO_SPACE.search(text):
        return no_space("pull", "image", ref, words)
    if "toomanyrequests" in text.lower().replace(" ", ""):
        return TooManyRequests(f"the registry refuses to send '{ref}' now: {words}", code="REGISTRY_RATE_LIMIT")
    if _UNREACHABLE.search(text):
        return Unavailable(
            f"cannot pull '{ref}': its registry can't be reached: {words}",
            code="REGISTRY_UNREACHABLE",
            hint="check the network of this host, or bring the image with: docker load",
        )
    if _NO_SUCH_IMAGE.search(text):
        return NotFound(
            "image",
            ref,
            message=f"no registry has an image '{ref}', or it needs a login ({words})",
            hint="check the name, or: docker login",
        )
    return Failed(f"cannot pull '{ref}': {words}", code="PULL_FAILED")


def build_failed(why: str, step: str, lines: list[str]) -> AgentainerError:
    """Return our error for a build: `step` as the builder printed it, `lines` its last ones."""
    words = trimmed(why)
    if _NO_SPACE.search(why):
        return no_space("build", "image", step, words)
    at = f" at {step}" if step else ""
    return Failed(f"the build failed{at}: {words}", code="BUILD_FAILED", details={"step": step, "lines": lines})


def unreachable(host: str, error: BaseException) -> Unavailable:
    """Return the error for an engine that doesn't answer: why, and what to do."""
    cause = _root(error)
    if isinstance(cause, _TIMEOUTS) and not getattr(cause, "errno", None):
        return _unavailable(host, "no answer in time", "see whether it hangs: docker info")
    if not isinstance(cause, OSError) or cause.errno is None:
        if isinstance(cause, _BREAKS):
            return _unavailable(host, "the connection broke off", "see whether it restarts: systemctl status docker")
        return _unavailable(host, f"what answers there is not a Docker engine ({cause})", _CHECK_HOST)
    if host.startswith("unix://"):
        return _no_socket(host, host.removeprefix("unix://"), cause)
    if isinstance(cause, socket.gaierror):
        return _unavailable(host, f"the name '{urlsplit(host).hostname}' is unknown", _CHECK_HOST)
    return _unavailable(host, (cause.strerror or str(cause)).lower(), _CHECK_HOST)


def trimmed(text: str) -> str:
    """Return the engine's words without the layers of software that passed them on."""
    return _TAIL.sub("", _NOISE.sub("", text.strip())).strip()


_CHECK_HOST = "check docker.host in the configuration (--docker-host, AGENTAINER_DOCKER_HOST)"


def _unavailable(host: str, why: str, hint: str) -> Unavailable:
    return Unavailable(f"cannot reach the Docker engine at {host}: {why}", code="ENGINE_UNAVAILABLE", hint=hint)


def _no_socket(host: str, path: str, cause: OSError) -> Unavailable:
    start = "start it with: sudo systemctl start docker"
    hint = start if path in _SYSTEM_SOCKETS else f"{start}; or {_CHECK_HOST}"
    if cause.errno in (errno.EACCES, errno.EPERM):
        return _no_permission(path)
    if cause.errno == errno.ENOENT:
        return _unavailable(host, "no such file", hint)
    if cause.errno == errno.ECONNREFUSED:
        return _unavailable(host, "connection refused (a socket that nobody listens on any more)", hint)
    if cause.errno == errno.ENOTSOCK:
        return _unavailable(host, "not a socket", _CHECK_HOST)
    return _unavailable(host, (cause.strerror or str(cause)).lower(), hint)


def _no_permission(path: str) -> Unavailable:
    user = _name_of(os.geteuid(), lambda uid: pwd.getpwuid(uid).pw_name)
    try:
        found = os.stat(path)
        mode = f"owner {_owner(found)}, mode {stat.S_IMODE(found.st_mode):04o}"
    except OSError:
        mode = "a folder above it is closed"
    return Unavailable(
        f"no permission for {path} ({mode}); agentainerd runs as uid {os.geteuid()} ({user})",
        code="ENGINE_UNAVAILABLE",
        hint=f"sudo usermod -aG docker {user} && sudo systemctl restart agentainerd (the docker group is root-equivalent)",
    )


def _owner(found: os.stat_result) -> str:
    user = _name_of(found.st_uid, lambda uid: pwd.getpwuid(uid).pw_name)
    group = _name_of(found.st_gid, lambda gid: grp.getgrgid(gid).gr_name)
    return f"{user}:{group}"


def _name_of(number: int, look_up: Callable[[int], str]) -> str:
    try:
        return look_up(number)
    except KeyError:
        return str(number)


def _refused_value(status: int, words: str, verb: str, noun: str, ref: str) -> AgentainerError | None:
    if verb != "create" or status not in (400, 500):
        return None
    if missing := _BIND_MISSING.search(words):
        return InvalidParameter("volumes", f"'{missing[1]}' does not exist on this host", code="VOLUME_SOURCE_MISSING")
    for field, pattern in (
        ("cpu_limit", "Range of CPUs"),
        ("memory_limit", "inimum memory limit"),
        ("volumes", "mount"),
        ("image", "invalid reference format"),
    ):
        if pattern in words:
            return InvalidParameter(field, words)
    if "no command specified" in words.lower():
        return InvalidParameter("command", "the image has none of its own, so one must be given")
    return None


def _wrong_state(status: int, words: str, verb: str, noun: str, ref: str) -> AgentainerError | None:
    if "is already in use by container" in words:
        return Conflict(
            f"there is a container with the name '{ref}' already", code="CONTAINER_NAME_TAKEN", hint=f"docker rm {ref}"
        )
    if status == 409 or (status == 500 and words.endswith("is not paused")):
        code = "CONTAINER_STATE" if noun == "container" else "ENGINE_CONFLICT"
        return Conflict(f"cannot {verb} {noun} '{_short(ref)}': {words}", code=code)
    return None


def _start_failure(status: int, words: str, verb: str, noun: str, ref: str) -> AgentainerError | None:
    if verb != "start" or "o such container" in words:
        return None
    if missing := _BIND_MISSING.search(words):
        words = f"'{missing[1]}', which is one of its volumes, does not exist on this host"
    return start_failed(words, exit_code=_exit_code(words))


def start_failed(words: str, *, exit_code: int) -> Failed:
    """Return the error for a container that could not be started; exit code 126 or 127 as of a shell, else 128."""
    return Failed(
        f"the container could not be started: {words}",
        code="AGENT_START_FAILED",
        hint="see its image, command and volumes: agentainerctl inspect AGENT",
        details={"exit_code": exit_code},
    )


def _exit_code(words: str) -> int:
    if "executable file not found" in words or words.endswith("no such file or directory"):
        return 127
    return 126 if words.startswith("exec") and "permission denied" in words else 128


def _short(ref: str) -> str:
    return ref[:12] if re.fullmatch(r"[0-9a-f]{64}", ref) else ref


def _root(error: BaseException) -> BaseException:
    """Return the error of a chain that says most: one with an errno, or a timeout, or the first cause."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        item = queue.pop(0)
        if not isinstance(item, BaseException) or item in seen:
            continue
        seen.append(item)
        queue += [
            item.__cause__,
            None if item.__suppress_context__ else item.__context__,
            getattr(item, "reason", None),
            *item.args,
        ]
    told = [item for item in seen if isinstance(item, OSError) and item.errno is not None]
    timeouts = [item for item in seen if isinstance(item, _TIMEOUTS)]
    return (told or timeouts or seen[-1:])[0]
