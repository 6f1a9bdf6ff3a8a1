"""Following an agent's output: who wrote what, when, and where to go on after the daemon was away.

The daemon puts the engine's time before each line when asked to. While following we always ask, because the time of the
last line is what a reconnect goes on from; people get to see it only if they want it.
"""

import re
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from agentainerctl.client import Client, path_of
from agentainerctl.failures import ApiError, StreamBroken
from agentainerd.errors import AgentainerError

RECONNECT_LIMIT_S = 60.0  # how long the daemon may be away
_MIN_PAUSE_S = 0.1
_MAX_PAUSE_S = 2.0
_STAMP = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z) ?")

_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # splitlines knows ends of lines that the engine doesn't

Query = dict[str, object]


class Piece(NamedTuple):
    """A piece of output; `stream` is stdout or stderr, or "notice" for a word of the daemon or of ours.

    `replica`: which one wrote it, where several are read.
    """

    stream: str
    data: str
    replica: int = 0


def read_log(client: Client, agent: str, query: Query) -> Iterator[Piece]:
    """Return what there is, and end.

    Raises:
        AgentainerError: as `Client.stream`.
    """
    for entry in client.stream("GET", path_of("agents", agent, "logs"), query=query):
        yield _piece(entry)


def follow_log(
    client: Client,
    agent: str,
    query: Query,
    *,
    with_times: bool,
    limit_s: float = RECONNECT_LIMIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Piece]:
    """Return what there is and what comes, until the agent is removed; goes on where it was if the daemon restarts.

    Raises:
        AgentainerError: as `Client.stream`; after a break, only when the daemon was away for `limit_s`.
    """
    position = _Position()
    query = {**query, "follow": True, "timestamps": True}
    while True:
        try:
            for entry in client.stream("GET", path_of("agents", agent, "logs"), query=query):
                piece = _piece(entry)
                if piece.stream == "notice":
                    yield piece
                    continue
                text = position.take(piece.data, with_times=with_times)
                if text:
                    yield Piece(piece.stream, text, piece.replica)
            return
        except ApiError as error:
            if position.is_resumed and error.code == "AGENT_NOT_FOUND":
                return  # removed while the daemon was away
            raise
        except StreamBroken:
            yield Piece("notice", "the connection to agentainerd broke; reconnecting")
        wait_for_daemon(client, limit_s, sleep)
        if position.last:
            query = {**query, "since": position.epoch(), "tail": None}
            position.is_resumed = True


class _Position:
    """How far we have read: drops what a reconnect brings a second time, and the times that nobody asked for."""

    def __init__(self) -> None:
        self.last = ""
        self.is_resumed = False

    def epoch(self) -> str:
        """Return the time of the last line in epoch seconds, to the nanosecond (a float has not that many digits)."""
        seconds, _, fraction = self.last.rstrip("Z").partition(".")
        return f"{int(datetime.fromisoformat(seconds + '+00:00').timestamp())}.{fraction:0<9}"

    def take(self, data: str, *, with_times: bool) -> str:
        kept = []
        for line in _LINE.findall(data):
            match = _STAMP.match(line)
            if not match:
                kept.append(line)
                continue
            stamp = match.group(1)
            if self.is_resumed and _sortable(stamp) <= _sortable(self.last):
                continue
            self.is_resumed = False
            self.last = stamp
            kept.append(line if with_times else line[match.end() :])
        return "".join(kept)


def _sortable(stamp: str) -> str:
    """The engine writes UTC with fewer digits where they are zeros: pad them, so that text compares as time."""
    seconds, _, fraction = stamp.rstrip("Z").partition(".")
    return f"{seconds}.{fraction:0<9}"


def _piece(entry: dict[str, Any]) -> Piece:
    replica = int(entry.get("replica") or 0)
    if "notice" in entry:
        return Piece("notice", str(entry["notice"]), replica)
    return Piece(str(entry.get("stream", "stdout")), str(entry.get("data", "")), replica)


def wait_for_daemon(
    client: Client, limit_s: float = RECONNECT_LIMIT_S, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Wait until the daemon answers again, for `limit_s` at most; then raise why it does not."""
    pause_s = _MIN_PAUSE_S
    waited_s = 0.0
    while True:
        sleep(pause_s)
        waited_s += pause_s
        pause_s = min(pause_s * 2, _MAX_PAUSE_S)
        try:
            client.get(path_of("system", "ping"))
            return
        except AgentainerError:
            if waited_s >= limit_s:
                raise
