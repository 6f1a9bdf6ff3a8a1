"""What executions of runs work with."""

from collections.abc import Callable
from dataclasses import dataclass

from agentainerd.model.runs import Usage
from agentainerd.proxy.routing import Route
from agentainerd.proxy.target import Target
from agentainerd.services.bridges import BridgeService
from agentainerd.services.fleet import Fleet
from agentainerd.services.sessions import SessionService
from agentainerd.store.run_writer import RunWriter
from agentainerd.store.runs import RunStore


@dataclass(frozen=True, slots=True)
class Means:
    """`dead_check` blocks and says whether a target's container died. `restart` (blocks) starts one container of an agent anew,
    by its number. `used` returns what the calls to models were counted to use that a run made through the daemon, None for none.
    `answer_timeout_s` returns how long a run may wait for an answer.
    """

    fleet: Fleet
    bridges: BridgeService
    sessions: SessionService
    store: RunStore
    writer: RunWriter
    dead_check: Callable[[Route, Target], bool]
    restart: Callable[[str, int], object]
    used: Callable[[str], Usage | None]
    answer_timeout_s: Callable[[], float]
    spawn: Callable[..., object]
