"""Events: what happened to agents, one line each. Nothing here does I/O."""

import re
from enum import StrEnum

import msgspec

from agentainerd.model.replicas import AgentState, Replica

_ID = re.compile(r"([0-9]{1,15})-([0-9]{1,10})")


class Action(StrEnum):
    """What happened. New ones are added here; docs/events.md has the table."""

    CREATE = "create"
    UPDATE = "update"
    START = "start"
    READY = "ready"
    STOP = "stop"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    DIE = "die"
    OOM = "oom"
    FAIL = "fail"
    HEALTH = "health"
    REMOVE = "remove"
    REPLAY = "replay"
    DEPLOY = "deploy"


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. `id` is made by the store, and orders them; `at` epoch seconds; `agent` the name it had then.

    `details`: what belongs to the action, as `exit_code` to `die`; never a secret.
    """

    action: Action
    id: str = ""
    at: float = 0.0
    agent_id: str = ""
    agent: str = ""
    message: str = ""
    details: dict[str, str | int | float | bool] = {}


class EventFilter(msgspec.Struct, frozen=True):
    """Which events are asked for: those of all given kinds; what is empty asks for all."""

    actions: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()

    def matches(self, event: Event) -> bool:
        """Return whether an event is asked for. An agent is named by its id, or by the name it had then."""
        is_named = not self.agents or event.agent_id in self.agents or event.agent in self.agents
        return is_named and (not self.actions or event.action in self.actions)


def next_id(last: str, at: float) -> str:
    """Return the id of an event at `at` (epoch seconds) that comes after `last` ("": the first of all)."""
    match = _ID.fullmatch(last)
    last_ms, last_seq = (int(match[1]), int(match[2])) if match else (0, 0)
    ms = max(int(at * 1000), last_ms)
    return f"{ms}-{last_seq + 1 if ms == last_ms else 0}"


def is_event_id(text: str) -> bool:
    """Return whether this is the form of an event's id."""
    return _ID.fullmatch(text) is not None


def id_before(at: float) -> str:
    """Return an id that comes right before all events from `at` (epoch seconds) on; "" for 0."""
    return f"{int(at * 1000) - 1}-9999999999" if at > 0 else ""


class Change(msgspec.Struct, frozen=True):
    """What became of a replica: the action of an event, and what it says."""

    action: Action
    message: str = ""
    details: dict[str, str | int | float | bool] = {}


def changes(before: Replica, now: Replica) -> list[Change]:
    """Return what happened to a replica between two records of it, in order."""
    found = []
    end = now.last_exit
    is_running, was_running = now.state is AgentState.RUNNING, before.state is AgentState.RUNNING
    if end is not None and end != before.last_exit and (before.is_alive or now.state is not AgentState.FAILED):
        if end.oom_killed:
            found.append(Change(Action.OOM, "it had more memory than its limit allows"))
        found.append(Change(Action.DIE, now.reason, {"exit_code": end.code, "oom_killed": end.oom_killed}))
    elif now.state is AgentState.STOPPED and before.is_alive:
        found.append(Change(Action.STOP, "nothing was asked of it" if now.is_idle else now.reason))
    if now.state is AgentState.FAILED and before.state is not AgentState.FAILED:
        found.append(Change(Action.FAIL, now.reason))
    if is_running and before.state is AgentState.PAUSED:
        found.append(Change(Action.UNPAUSE))
    elif is_running and (not was_running or (now.started_at != before.started_at and before.started_at)):
        found.append(Change(Action.START))
    if now.state is AgentState.PAUSED and before.state is not AgentState.PAUSED:
        found.append(Change(Action.PAUSE))
    return found
