"""Replicas: the containers of an agent, numbered from 1. Each has a state of its own; those of all make the agent's."""

from collections.abc import Sequence
from enum import StrEnum

import msgspec

SUCCESSOR = ".next"
"""The end of the name of a container that is to take a replica's place."""


class AgentState(StrEnum):
    """What users see, of an agent and of each of its replicas; the engine decides it."""

    CREATED = "created"
    RUNNING = "running"
    STOPPED = "stopped"
    PAUSED = "paused"
    FAILED = "failed"


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a container ended. `code` is the engine's; `at` epoch seconds; `log` its last lines (at most 20)."""

    code: int
    oom_killed: bool = False
    at: float = 0.0
    error: str = ""
    log: tuple[str, ...] = ()


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon knows of one container of an agent; times are epoch seconds, 0: never.

    `container_id` is "" before the first start and after the container was removed from outside.
    `should_run`: a person wants it to run, so a crash is restarted where `auto_restart` is on.
    `reason`: one clause that says why it is in this state ("exit 137, out of memory").
    `crashes`: in a row; RESTART_RESET_S of running sets it back to 0. `restarts`: by the daemon, since deploy.
    `next_restart_at`: while the daemon backs off before a restart. `is_idle`: it was stopped because nothing was asked of it,
    and the next request starts it.
    """

    number: int = 1
    state: AgentState = AgentState.CREATED
    reason: str = ""
    container_id: str = ""
    should_run: bool = False
    crashes: int = 0
    restarts: int = 0
    next_restart_at: float = 0.0
    is_idle: bool = False
    last_exit: Exit | None = None
    started_at: float = 0.0

    @property
    def is_alive(self) -> bool:
        """Its container runs, or is paused."""
        return self.state in (AgentState.RUNNING, AgentState.PAUSED)

    @property
    def is_expected(self) -> bool:
        """It runs, or will by itself or for a request: requests are worth holding for it."""
        return self.is_idle or (self.should_run and self.state in (AgentState.RUNNING, AgentState.STOPPED))


_ORDER = (AgentState.RUNNING, AgentState.PAUSED, AgentState.STOPPED, AgentState.FAILED, AgentState.CREATED)


def leading(replicas: Sequence[Replica]) -> Replica:
    """Return the replica that stands for all of them: one that runs before one that is paused, stopped, failed, created.

    Of those that are stopped, one that will be restarted comes first.
    """
    return min(replicas, key=lambda each: (_ORDER.index(each.state), not each.next_restart_at, each.number))


def reason_of(replicas: Sequence[Replica]) -> str:
    """Return why an agent is in its state, in one clause; of several replicas it says how many run, and why one does not."""
    first = leading(replicas)
    if len(replicas) == 1 or first.state is not AgentState.RUNNING:
        return first.reason
    away = [replica for replica in replicas if replica.state is not AgentState.RUNNING]
    if not away:
        return first.reason
    told = next((replica for replica in away if replica.reason), away[0])
    why = f": {told.reason}" if told.reason else ""
    return f"{len(replicas) - len(away)} of {len(replicas)} replicas run; replica {told.number} is {told.state}{why}"


def container_name(agent_id: str, number: int, replicas: int) -> str:
    """Return the name of a replica's container; that of an agent with one replica has no number."""
    return f"agentainer-{agent_id}" if replicas == 1 else f"agentainer-{agent_id}-{number}"


def successor_name(agent_id: str, number: int, replicas: int) -> str:
    """Return the name of the container that takes a replica's place, until it has done so."""
    return container_name(agent_id, number, replicas) + SUCCESSOR


def is_successor(container: str, agent_id: str) -> bool:
    """Return whether this is the name of a container that was to take the place of one of an agent's replicas."""
    return container.endswith(SUCCESSOR) and number_of(container.removesuffix(SUCCESSOR), agent_id) > 0


def number_of(container: str, agent_id: str) -> int:
    """Return which replica a container's name is that of, 0: of none. A name without a number is that of the first."""
    base, dash, number = container.removeprefix(f"agentainer-{agent_id}").rpartition("-")
    if base or not container.startswith(f"agentainer-{agent_id}"):
        return 0
    if not dash:
        return 1 if not number else 0
    return int(number) if number.isascii() and number.isdigit() and not number.startswith("0") else 0
