"""Following a run or a job: each of its events once and in order, also when the connection or the daemon goes away."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from agentainerctl.client import Client, path_of
from agentainerctl.logstream import RECONNECT_LIMIT_S, wait_for_daemon
from agentainerd.errors import AgentainerError

Record = dict[str, Any]

_PAUSE_S = 1.0
_LAST = ("RUN_FINISHED", "RUN_ERROR")  # exactly one of them ends every run


def run_path(*parts: str) -> str:
    """Return the path of the API for runs, a run, or something of it."""
    return path_of("api", "v1", "runs", *parts)


def job_path(*parts: str) -> str:
    """Return the path of the API for jobs, a job, or something of it."""
    return path_of("api", "v1", "jobs", *parts)


PATHS = {"run": run_path, "job": job_path}
"""By what it is called."""


def follow_run(
    client: Client,
    run_id: str,
    *,
    after: int = 0,
    on_break: Callable[[], None] = lambda: None,
    limit_s: float = RECONNECT_LIMIT_S,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Record]:
    """Return the events of a run that come after number `after`, and end with its last one.

    They end too with the one by which the agent asks for something, where that was not answered. A stream that ends before (the
    daemon stops, the reader was too slow) is taken up again after the last number that was seen; `on_break` is called then.

    Raises:
        AgentainerError: as `Client.events`; after a break, only when the daemon was away for `limit_s`.
    """
    deadline = 0.0  # until when the daemon may be away; 0.0 while events come
    while True:
        is_asking = False
        try:
            for event in client.events(run_path(run_id, "events"), {"after": after}):
                is_asking = asks(event)
                number = event.get("seq")
                if isinstance(number, int) and number > after:
                    after, deadline = number, 0.0
                    yield event
                if is_last(event):  # told in any case, also to those who have seen it
                    return
            if is_asking:
                return
        except AgentainerError as error:
            if not _is_away(error, has_seen_it=deadline > 0) or 0 < deadline < time.monotonic():
                raise
        if deadline:
            sleep(_PAUSE_S)  # nothing came since the last break
        else:
            deadline = time.monotonic() + limit_s
            on_break()
        wait_for_daemon(client, limit_s, sleep)


def is_last(event: Record) -> bool:
    """Return whether a run ends with `event`."""
    return isinstance(event.get("event"), dict) and event["event"].get("type") in _LAST and not asks(event)


def asks(event: Record) -> bool:
    """Return whether the agent asks for something with `event`, and waits for the answer."""
    payload = event.get("event")
    outcome = payload.get("outcome") if isinstance(payload, dict) else None
    return isinstance(outcome, dict) and outcome.get("type") == "interrupt"


def call_again(client: Client, method: str, path: str, *, body: object = None, key: str = "") -> Record:
    """Return the envelope of an answer; a call whose connection breaks is made again when the daemon is back.

    Only for what may be done twice: reading, cancelling, and what has an idempotency `key`.

    Raises:
        AgentainerError: as `Client.call`; of a broken connection, only when the daemon was away for RECONNECT_LIMIT_S.
    """
    headers = {"Idempotency-Key": key} if key else {}
    deadline = 0.0
    while True:
        try:
            return client.call(method, path, body=body, headers=headers)
        except AgentainerError as error:
            if not _is_away(error, has_seen_it=deadline > 0) or 0 < deadline < time.monotonic():
                raise
        deadline = deadline or time.monotonic() + RECONNECT_LIMIT_S
        wait_for_daemon(client)


def cancel(client: Client, run_id: str, mode: str = "interrupt", *, noun: str = "run") -> Record:
    """Ask the daemon to end a run or job; return its answer: it as `data`, and `cancelled`, False where it had ended before."""
    return call_again(client, "POST", PATHS[noun](run_id, "cancel"), body={"mode": mode})


def answer(client: Client, run_id: str, body: Record) -> Record:
    """Answer what a run waits for, as the API takes it; return the run. The same answer twice is one.

    Raises:
        AgentainerError: as `Client.call`; RUN_NOT_WAITING where it does not wait.
    """
    return dict(call_again(client, "POST", run_path(run_id, "input"), body=body)["data"])


def _is_away(error: AgentainerError, *, has_seen_it: bool) -> bool:
    """Return whether `error` is of a daemon that stopped in the middle, or, `has_seen_it`, of one that is not there again yet."""
    if error.code == "CONNECTION_LOST":
        return True
    return has_seen_it and (error.code == "DAEMON_UNREACHABLE" or getattr(error, "status", 0) == 503)
