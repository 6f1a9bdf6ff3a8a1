"""Seeing to it that an agent ends a run: asked where it can be, else cut off, and its container started anew where it goes on."""

import logging
import time
from typing import TYPE_CHECKING

from agentainerd import defaults
from agentainerd.errors import AgentainerError
from agentainerd.model.bridges import Bridge
from agentainerd.model.runs import CancelMode
from agentainerd.proxy.target import Target
from agentainerd.services.run_links import ask_to_cancel, is_busy
from agentainerd.services.run_means import Means

if TYPE_CHECKING:
    from agentainerd.services.run_executions import Execution

log = logging.getLogger(__name__)

CANCEL_TIMEOUT_S = 2.0  # for a container to take a cancel, and to answer a ping
BUSY_LOOK_S = 0.5
PINGED = (Bridge.NATIVE, Bridge.AGUI, Bridge.AGENTCORE)
"""Tiers whose containers say whether they are busy."""


def insist(execution: "Execution", means: Means, mode: CancelMode) -> None:
    """Have the agent end the run; where it does not, end it without the agent. Blocks."""
    target = execution.target
    is_asked = False
    if target is not None and execution.bridge is Bridge.NATIVE:
        is_asked = ask_to_cancel(target, execution.run.part_id, CANCEL_TIMEOUT_S)
    if is_asked and execution.ended.wait(defaults.RUN_CANCEL_GRACE_S):
        return
    if opened := execution.link:
        opened.abort()
    if target is None:
        return
    if is_asked or mode is CancelMode.KILL:
        _restart(execution, means, target)
    elif execution.bridge in PINGED:
        see_idle(execution, means, target)


def see_idle(execution: "Execution", means: Means, target: Target) -> None:
    """Give a container that says how it is the time to end what it does for this run; where it does not, start it anew. Blocks.

    One that works on another run as well is left alone: it can't be told for which it is busy.
    """
    end = time.monotonic() + defaults.RUN_CANCEL_GRACE_S
    while is_busy(target, CANCEL_TIMEOUT_S):
        if not execution.is_alone(execution) or target.is_retired:
            return
        if time.monotonic() > end:
            _restart(execution, means, target)
            return
        target.retired.wait(BUSY_LOOK_S)


def _restart(execution: "Execution", means: Means, target: Target) -> None:
    run = execution.run
    log.warning(
        "the agent did not end a run that was ended: its container is started anew",
        extra={"run_id": run.id, "agent_id": run.agent_id, "replica": target.number},
    )
    try:
        means.restart(run.agent_id, target.number)
    except AgentainerError as error:
        log.warning("it could not be: %s", error, extra={"agent_id": run.agent_id})
