"""What a job's program writes: its two streams apart, each to the file descriptor of that name, in the order they came."""

import sys
import time
from collections.abc import Callable

from agentainerctl.client import Client
from agentainerctl.jobs import FINAL
from agentainerctl.logstream import wait_for_daemon
from agentainerctl.runstream import job_path
from agentainerd.errors import AgentainerError

_PAUSE_S = 0.5

Write = Callable[[str, bytes], object]


def show_logs(client: Client, job_id: str, stream: str, *, tail: int | None, follow: bool) -> None:
    """Write what a job wrote ("stdout", "stderr", or "" for both) to our own streams; with `follow` what it writes until it ends,
    across its attempts and restarts of the daemon. `tail`: only the last lines of each, of what was there.

    Raises:
        AgentainerError: as `Client.stream`; of a break while following, only when the daemon stayed away.
    """
    if not follow:
        _read(client, job_id, {"stream": stream or None, "tail": tail}, _write)
        return
    seen = {"stdout": 0, "stderr": 0}
    query: dict[str, object] = {"stream": stream or None}
    if tail is not None:
        _begin(client, job_id, query, tail, seen)
    is_over = False
    while True:
        was_over, is_over = is_over, _follow(client, job_id, query, seen)
        if was_over:
            return  # and all of it was read since
        if not is_over:
            time.sleep(_PAUSE_S)


def _follow(client: Client, job_id: str, query: dict[str, object], seen: dict[str, int]) -> bool:
    """Write what comes after what was `seen`, in bytes, and count it there; return whether the job has ended."""
    missing = dict(seen)  # the daemon begins at the beginning

    def fresh(stream: str, data: bytes) -> None:
        part = data[missing[stream] :]
        missing[stream] -= len(data) - len(part)
        seen[stream] += len(part)
        _write(stream, part)

    try:
        _read(client, job_id, {**query, "follow": True}, fresh)
        return client.get(job_path(job_id))["status"] in FINAL
    except AgentainerError as error:
        if error.code != "CONNECTION_LOST":
            raise
    wait_for_daemon(client)
    return False


def _begin(client: Client, job_id: str, query: dict[str, object], tail: int, seen: dict[str, int]) -> None:
    """Write the last lines of what is there, and count all that is there as seen."""
    kept: dict[str, bytearray] = {}

    def keep(stream: str, data: bytes) -> None:
        seen[stream] += len(data)
        text = kept.setdefault(stream, bytearray())
        text.extend(data)
        del text[: _start_of(text, tail)]

    _read(client, job_id, query, keep)
    for stream, text in kept.items():
        _write(stream, bytes(text) if tail else b"")


def _read(client: Client, job_id: str, query: dict[str, object], write: Write) -> None:
    for entry in client.stream("GET", job_path(job_id, "logs"), query=query):
        write(str(entry["stream"]), str(entry["data"]).encode("utf-8", "surrogateescape"))


def _start_of(text: bytearray, lines: int) -> int:
    """Return where the last `lines` lines of a text begin, of which the last one may have no end."""
    start = len(text) - text.endswith(b"\n")
    for _ in range(lines):
        start = text.rfind(b"\n", 0, max(start, 0))
        if start < 0:
            return 0
    return start + 1


def _write(stream: str, data: bytes) -> None:
    out = (sys.stderr if stream == "stderr" else sys.stdout).buffer
    out.write(data)
    out.flush()
