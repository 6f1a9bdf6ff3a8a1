"""Where a run is: waiting for its agent to be ready, and finding the container that has it, or that it may be given to."""

import time
from typing import TYPE_CHECKING

import gevent

from agentainerd import defaults
from agentainerd.errors import NotFound, Unavailable
from agentainerd.model.replicas import Replica
from agentainerd.model.runs import Run, RunCode, RunStatus
from agentainerd.proxy.routing import Gate, Route
from agentainerd.proxy.target import Target
from agentainerd.services.run_ends import OUT_OF_MEMORY, Gone
from agentainerd.services.run_means import Means

if TYPE_CHECKING:
    from agentainerd.services.run_executions import Execution

NOTED_S = 5.0  # for the end of a container to be written down, once the engine tells of it


def ready(execution: "Execution", means: Means) -> tuple[Route, Target]:
    """Wait until the agent takes requests; return the container that has the run, or one that may have it.

    Raises:
        NotFound: the agent was removed. Gone: the container is, or the run's time is over. Stopped. Unavailable: the agent was
            not ready in time.
    """
    end = time.monotonic() + defaults.RUN_READY_TIMEOUT_S
    while True:
        execution.check()
        route = means.fleet.route(execution.run.agent_id)
        if route is None:
            raise NotFound("agent", execution.run.agent)
        if route.gate is not Gate.OPEN and execution.run.status is RunStatus.QUEUED:
            execution.change(status=RunStatus.STARTING)
        left_s = min(end, execution.ends_at) - time.monotonic()
        is_open = route.wait_open(min(1.0, max(0.0, left_s)), even_closed=True) is Gate.OPEN
        if is_open and (target := chosen(execution.run, means, route)):
            return route, target
        if execution.run.is_given and not is_open:
            _check_return(execution.run, means)
        if is_open:  # others of its containers are there, and not the one that has it
            gevent.sleep(defaults.READY_PROBE_INTERVAL_S)
        if execution.run.started_at and time.monotonic() >= execution.ends_at:
            raise Gone((execution.late(), RunCode.TIMEOUT))
        if left_s <= 0:
            raise Unavailable(
                f"agent '{execution.run.agent}' was not ready within {defaults.RUN_READY_TIMEOUT_S:g} s",
                code="AGENT_NOT_READY",
            )


def _check_return(run: Run, means: Means) -> None:
    """Raise Gone where the container that has the run was stopped, or ended, and will not be started by itself."""
    agent = means.fleet.find(run.agent_id)
    replica = next((one for one in agent.replicas if one.number == run.replica), None)
    if replica is not None and (replica.is_expected or replica.is_alive):
        return
    if replica is not None and replica.last_exit is not None and replica.last_exit.oom_killed:
        raise Gone(OUT_OF_MEMORY)
    why = f" ({replica.reason})" if replica is not None and replica.reason else ""
    raise Gone((f"agent '{run.agent}' was stopped while it worked{why}", RunCode.CONTAINER_LOST))


def chosen(run: Run, means: Means, route: Route) -> Target | None:
    """Return the container that has the run, or any where none has: of an agent that is to go on, while it has that one."""
    if not (run.started_at and run.replica):
        return route.pick()
    same = next((target for target in route.serving if target.number == run.replica), None)
    if same is None and not run.is_given:
        agent = means.fleet.find(run.agent_id)
        return None if any(one.number == run.replica for one in agent.replicas) else route.pick()
    return same


def after_the_end_of(run: Run, means: Means, target: Target) -> Replica | None:
    """Return the replica whose container ended, when that is written down; that takes a moment."""
    target.retired.wait(NOTED_S)
    if means.fleet.route(run.agent_id) is None:
        raise NotFound("agent", run.agent)
    with means.fleet.locked(run.agent_id) as agent:  # whoever takes note of an end holds it until it is written
        return next((one for one in agent.replicas if one.number == target.number), None)
