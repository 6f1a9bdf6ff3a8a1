"""One health check of one container: a GET, a connection, or a command in it."""

import re
import socket
import time

from agentainerd.engine.engine import Engine
from agentainerd.errors import AgentainerError
from agentainerd.model.health import HealthCheck, HealthResult
from agentainerd.proxy.target import Target

USER_AGENT = "agentainerd-health"
MAX_LINE_BYTES = 1024
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9][0-9])[ \r\n]")


def perform(engine: Engine, target: Target, check: HealthCheck) -> HealthResult:
    """Ask once and return how it went; blocks up to the check's timeout. Raises nothing."""
    began = time.monotonic()
    try:
        if check.command:
            status = engine.execute(target.container_id, check.command, timeout_s=check.timeout_s)
            message = f"{check.command[0]} exited with {status}" if status else ""
        else:
            status, message = _reach(target, check)
    except AgentainerError as error:
        status, message = 0, error.message
    return HealthResult(
        is_good=not message, at=time.time(), latency_s=time.monotonic() - began, status=status, message=message
    )


def _reach(target: Target, check: HealthCheck) -> tuple[int, str]:
    """Return the status (0: none), and what is wrong with it."""
    end = time.monotonic() + check.timeout_s
    try:
        with socket.create_connection(target.address, check.timeout_s) as connection:  # type: ignore[arg-type]
            return _get(connection, target, check.path, end) if check.path else (0, "")
    except TimeoutError:
        return 0, f"no answer within {check.timeout}"
    except OSError as error:
        return 0, (error.strerror or str(error)).lower()


def _get(connection: socket.socket, target: Target, path: str, end: float) -> tuple[int, str]:
    """Only the first line of the answer is read. Redirects are not followed: an agent that sends its visitors elsewhere lives."""
    fields = f"Host: {target.address[0]}\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\nConnection: close"
    connection.sendall(f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
    said = b""
    while b"\n" not in said and len(said) < MAX_LINE_BYTES:
        left_s = end - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        piece = connection.recv(MAX_LINE_BYTES)
        if not piece:
            break
        said += piece
    match = _STATUS_LINE.match(said)
    if match is None:
        return 0, "its answer is no HTTP" if said else "it closed the connection without an answer"
    status = int(match[1])
    return status, "" if 200 <= status < 400 else f"GET {path} answered {status}"
