"""What happens to our containers, as the engine tells it; the stream outlives the engine's restarts.

An event that happened just before a `reconnected` may be told after it; none that happens after it is left out.
"""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from agentainerd.engine.connection import Connection
from agentainerd.engine.containers import AGENT_LABEL
from agentainerd.engine.errors import docker_errors
from agentainerd.engine.streams import ByteStream, lines_of
from agentainerd.errors import AgentainerError
from agentainerd.model.containers import EngineEvent

log = logging.getLogger(__name__)

ACTIONS = ("create", "start", "die", "oom", "pause", "unpause", "destroy")
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0


class Events:
    """One consumer's stream of events. One greenlet reads, any may close."""

    def __init__(self, connection: Connection, *, on_close: Callable[["Events"], object]) -> None:
        self._connection = connection
        self._on_close = on_close
        self._closed = threading.Event()
        self._source: ByteStream | None = None
        self._lines: Iterator[bytes] = iter(())
        self._failures = 0
        self._connected_at = 0.0
        self._lost_at = 0.0

    def __iter__(self) -> Iterator[EngineEvent]:
        return self

    def __next__(self) -> EngineEvent:
        """Return the next event; blocks its greenlet, for ever if nothing happens. Never fails."""
        while not self._closed.is_set():
            if self._source is None:
                if self._connect():
                    return EngineEvent("reconnected", at=time.time(), since=self._lost_at)
                continue
            event = self._read()
            if event is not None:
                return event
        raise StopIteration

    def close(self) -> None:
        """End it. Safe to repeat."""
        self._closed.set()
        self._on_close(self)
        source = self._source
        if source is not None:
            source.close()

    def _connect(self) -> bool:
        """Open the stream; False after a wait where the engine can't be reached."""
        filters = {"type": ["container"], "label": [AGENT_LABEL], "event": list(ACTIONS)}
        # The engine answers a moment before it listens for us: what happens in between is told because of `since`.
        params = {"filters": json.dumps(filters), "since": f"{time.time():.9f}"}
        try:
            with self._connection.calling("watch", "engine"):
                source = self._connection.open_stream("GET", "/events", params=params)
        except AgentainerError as error:
            self._back_off(error.message)
            return False
        self._source, self._lines, self._connected_at = source, lines_of(source), time.monotonic()
        if self._closed.is_set():
            source.close()
        if self._failures:
            log.info("engine events are read again")
        return not self._closed.is_set()

    def _read(self) -> EngineEvent | None:
        """Return the next event of the open stream; None where it broke, or said something that is not for us."""
        try:
            with docker_errors(self._connection.host, "watch", "engine", ""):
                line = next(self._lines, None)
        except AgentainerError:
            line = None
        if line is None:
            self._source = None
            self._lost_at = time.time()
            self._back_off("the engine closed the stream")
            return None
        self._failures = 0
        return from_message(json.loads(line))

    def _back_off(self, why: str) -> None:
        """Wait before the next attempt: longer after each that failed or broke at once."""
        if self._connected_at and time.monotonic() - self._connected_at > MAX_BACKOFF_S:
            self._failures = 0
        self._connected_at = 0.0
        if self._closed.is_set():
            return
        if self._failures == 0:
            log.warning("engine events broke off: %s", why)
        self._closed.wait(min(FIRST_BACKOFF_S * 2**self._failures, MAX_BACKOFF_S))
        self._failures = min(self._failures + 1, 16)


def from_message(said: dict[str, Any]) -> EngineEvent | None:
    """Return the engine's message as an event, or None where it is of another kind."""
    action = str(said.get("Action") or said.get("status") or "")
    actor = said.get("Actor") or {}
    attributes = actor.get("Attributes") or {}
    if action not in ACTIONS or AGENT_LABEL not in attributes:
        return None
    return EngineEvent(
        action,
        agent_id=attributes[AGENT_LABEL],
        container_id=actor.get("ID") or said.get("id") or "",
        at=said["timeNano"] / 1e9 if "timeNano" in said else float(said.get("time", 0)),
        exit_code=int(attributes.get("exitCode") or 0),
    )
