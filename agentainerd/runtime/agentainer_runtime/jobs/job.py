"""One job from its first line on the container's standard output to its result.json, which is valid whatever ends it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agentainer_runtime import file_policy
from agentainer_runtime.built_in import describe
from agentainer_runtime.conversations import Conversation, file_name, from_agui
from agentainer_runtime.jobs import JobFailed, console, prompts, results, stand_in
from agentainer_runtime.jobs.actions import Workshop, policy_of
from agentainer_runtime.jobs.flow import Flow, Terms
from agentainer_runtime.jobs.results import Result
from agentainer_runtime.paths import PathRefused
from agentainer_runtime.provider import Provider
from agentainer_runtime.runs import JobOrder, Run
from agentainer_runtime.script import said
from agentainer_runtime.settings import Settings
from agentainer_runtime.tool import STATE_FOLDER
from agentainer_runtime.transcript import Transcript, usage_fields

NOTES = f"{STATE_FOLDER}/jobs"
"""A file for each job that is at work."""
_PROMPT_FILE = "JOB_PROMPT_FILE"


async def carry_out(
    run: Run,
    order: JobOrder,
    settings: Settings,
    *,
    conversation: Conversation,
    transcript: Transcript,
    provider: Callable[[], Provider],
    fields: dict[str, str],
) -> None:
    """Do a job. `provider` makes whom the model is asked of; `fields` go into the head of each request to a model.

    Raises:
        JobFailed, LimitReached, ModelFailed: it is not complete, and why. TimeoutError: the run's time was over.
    """
    prompt = said([from_agui(message) for message in run.given.messages], "user")
    console.starting(order.id, prompt)
    given = run.given
    try:
        workshop = _workshop(settings, order)
        result = _result(run, order, workshop, prompt, transcript.model)
        result.begin()
    except (OSError, PathRefused) as error:
        raise JobFailed(describe(error) if isinstance(error, OSError) else str(error)) from error
    told = prompts.system(
        workspace=settings.workspace,
        output=workshop.folder,
        timeout_s=settings.action_timeout_s,
        instructions=settings.instructions,
    )
    terms = Terms(transcript.model, told, given.steps, given.cost_usd, fields)
    try:
        async with asyncio.timeout(given.wall_s), _closing(provider()) as asked:
            await Flow(
                terms,
                conversation=conversation,
                transcript=transcript,
                provider=asked,
                workshop=workshop,
                result=result,
            ).go()
    except asyncio.CancelledError:
        code, message = run.ending or ("interrupted", "the run was ended")
        _end(result, transcript, results.CANCELLED if code == "cancelled" else results.ERROR, message)
        raise
    except TimeoutError:
        _end(result, transcript, results.ERROR, f"the job took longer than {given.wall_s or 0:g} s")
        raise
    except (OSError, PathRefused) as error:
        why = describe(error) if isinstance(error, OSError) else str(error)
        _end(result, transcript, results.ERROR, why)
        raise JobFailed(why) from error
    except Exception as error:
        _end(result, transcript, results.ERROR, str(error))
        raise


@asynccontextmanager
async def _closing(provider: Provider) -> AsyncIterator[Provider]:
    try:
        yield provider
    finally:
        await provider.close()


def _workshop(settings: Settings, order: JobOrder) -> Workshop:
    """Raises PathRefused where the output folder is none in the workspace."""
    output = file_policy.check(settings.workspace, order.output_dir or "output", writes=True)
    if output == ".":
        raise PathRefused(f"{order.output_dir} is the workspace itself: a job's output folder is one in it")
    about = {"JOB_ID": order.id, "JOB_ATTEMPT": str(order.attempt), "JOB_OUTPUT_DIR": str(settings.workspace / output)}
    if prompt_file := settings.environment.get(_PROMPT_FILE):
        about[_PROMPT_FILE] = prompt_file
    return Workshop(
        workspace=settings.workspace,
        output=output,
        programs=settings.workspace / STATE_FOLDER / "outputs",
        environment={**settings.tool_environment(), **about},
        policy=policy_of(settings.environment),
        timeout_s=settings.action_timeout_s,
    )


def _result(run: Run, order: JobOrder, workshop: Workshop, prompt: str, model: str) -> Result:
    content: dict[str, Any] = {
        "task": prompt,
        "analysis": {"actions": [], "estimated_time": "", "requirements": []},
        "shell_results": [],
        "python_results": [],
        "status": results.RUNNING,
        "error": None,
        "job_id": order.id,
        "attempt": order.attempt,
        "model": model,
        **({"note": stand_in.NOTE} if model in stand_in.NAMES else {}),
        "started_at": time.time(),
    }
    note = workshop.workspace / NOTES / f"{file_name(run.given.run_id)}.json"
    return Result(workshop.workspace, workshop.output, note, content)


def _end(result: Result, transcript: Transcript, status: str, why: str) -> None:
    """Write how it ended, where that was not done; the disk may be full, and then that is what is said."""
    console.complained(f"job {result.content['job_id']} ended: {why}")
    if result.content["status"] == status == results.ERROR:
        return
    result.content["usage"] = usage_fields(transcript.usage)
    try:
        result.end(status, why)
    except (OSError, PathRefused) as error:
        console.complained(f"{results.NAME} can't be written: {error}")


def recover(workspace: Path) -> int:
    """End the results of jobs that another process left at work; return how many."""
    return results.recover(workspace, workspace / NOTES)
