"""Runs that wait for an answer: paused when the agent asks for something, gone on with when it was answered.

A run that waits has no connection and no container: only its place in its session.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from agentainerd import clock, defaults
from agentainerd.errors import NotFound, Unavailable
from agentainerd.model.interrupts import Answer, interrupts_of
from agentainerd.services import run_costs
from agentainerd.services.run_links import RunRefused
from agentainerd.services.run_means import Means
from agentainerd.store.connection import Argument
from agentainerd.store.runs import RunStore

if TYPE_CHECKING:
    from agentainerd.services.run_executions import Execution

LOOK_S = 15.0  # so often it is seen whether its agent is still there, and whether the clock was set


def answer(execution: "Execution", means: Means, answers: Sequence[Answer]) -> bool:
    """Have it go on with these; return False where it does not wait for any (more). They are on disk when this returns.

    Raises:
        Unavailable: they are not.
    """
    if not execution.is_waiting or execution.is_being_answered:
        return False
    before, changed = execution.run, execution.run.going_on(answers, clock.now())
    execution.is_being_answered = True
    try:
        write = means.writer.write(RunStore.put(changed))
        if not write.wait(defaults.JOURNAL_WAIT_S):
            if not means.writer.withdraw(write):
                means.writer.write(RunStore.put(before), insists=True)
            raise Unavailable("Redis does not answer", code="REDIS_UNAVAILABLE", retry_after_s=2)
    finally:
        execution.is_being_answered = False
    if not execution.is_waiting:
        return False  # it was cancelled meanwhile, or its time was over; which is written behind this
    execution.run = changed
    execution.ends_at = execution.end_of_time()
    execution.log.paused_seq = 0
    execution.settled.clear()
    execution.wanted.set()
    return True


def pause(execution: "Execution", means: Means, payload: bytes, event: dict[str, Any]) -> None:
    """Wait for an answer from now on; what the agent asks for and the run that waits are written together."""
    try:
        interrupts = interrupts_of(event)
    except ValueError as error:
        raise RunRefused(str(error)) from error

    usage = run_costs.used(means, execution.run, execution.result.usage)

    def paused() -> list[Argument]:
        run = msgspec.structs.replace(
            execution.run, output=execution.result.output, steps=execution.result.steps, usage=usage,
            last_seq=execution.log.last_seq,
        )  # fmt: skip
        execution.run = run.paused(interrupts, clock.now(), means.answer_timeout_s())
        return RunStore.put(execution.run)

    execution.target, execution.has_begun, execution.joined_at = None, False, 0
    execution.log.pause(payload, paused)
    if execution.is_waiting:  # else somebody answered as soon as it could be read
        execution.settled.set()


def await_answer(execution: "Execution", means: Means) -> bool:
    """Wait until somebody answers; return False where nobody did as long as it waits.

    Raises:
        NotFound: its agent was removed. Stopped.
    """
    while execution.is_waiting:
        if means.fleet.route(execution.run.agent_id) is None:
            raise NotFound("agent", execution.run.agent)
        left_s = execution.run.answer_by - clock.now()
        if left_s <= 0 and not execution.is_being_answered:
            return False
        execution.wanted.wait(min(max(left_s, 0.1), LOOK_S))
        execution.wanted.clear()
        execution.check()
    return True
