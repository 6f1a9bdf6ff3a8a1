"""The flow of a job: the model breaks the task into actions, these are done in order, and result.json says what came of them.

What fails is recorded and the flow goes on. In the end the model is asked once what makes good what failed; the job is complete
where that worked, or nothing had failed. Actions that were begun are never begun again, whatever ends the process.
"""

import json
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from agentainer_runtime.built_in import in_thread
from agentainer_runtime.conversations import Conversation
from agentainer_runtime.jobs import JobFailed, analysis, console, prompts, results
from agentainer_runtime.jobs.actions import Workshop, blank
from agentainer_runtime.jobs.analysis import Action, Analysis, Unusable
from agentainer_runtime.jobs.results import Result
from agentainer_runtime.loop import LimitReached
from agentainer_runtime.provider import (
    Again,
    Call,
    End,
    ModelFailed,
    Provider,
    Reasoning,
    Request,
    Text,
    Usage,
)
from agentainer_runtime.toolbox import content_of
from agentainer_runtime.transcript import Transcript, usage_fields
from agentainer_runtime.views import view

ANALYSIS = "analysis"
GROUPS = {analysis.SHELL: "shell commands", analysis.PYTHON: "Python code"}
RESULT = "result"
_MAX_TOLD_FILES = 20

Done = list[tuple[Action, dict[str, Any]]]


@dataclass(frozen=True)
class Terms:
    """What holds for one job: the model's name, its first words, the most steps and cost (None: any), fields of requests."""

    model: str
    system: str
    steps: int | None = None
    cost_usd: float | None = None
    fields: dict[str, str] = field(default_factory=dict)


class Flow:
    """One job's work; `go` is called once."""

    def __init__(
        self,
        terms: Terms,
        *,
        conversation: Conversation,
        transcript: Transcript,
        provider: Provider,
        workshop: Workshop,
        result: Result,
    ) -> None:
        self._terms = terms
        self._conversation = conversation
        self._transcript = transcript
        self._provider = provider
        self._workshop = workshop
        self._result = result
        self._step_names: dict[str, int] = {}
        self._number = 0

    async def go(self) -> None:
        """Work until the result is written.

        Raises:
            JobFailed, LimitReached, ModelFailed: the job is not complete, and why.
            OSError, PathRefused: the conversation or the result can't be written.
        """
        found = await self._analysis()
        self._result.content["analysis"] = found.public()
        done = await self._do_all(found.actions)
        repaired = await self._repair(done) if _failed(done) else []
        await self._conclude([*done, *repaired], _failed(repaired or done))

    async def _analysis(self, *, may_be_empty: bool = False) -> Analysis:
        """Ask for actions; an answer that has none is asked for once more."""
        for is_last in (False, True):
            self._step(ANALYSIS)
            text, finish = await self._ask()
            self._transcript.end_answer()
            self._conversation.add({"role": "assistant", "content": text})
            try:
                if finish == "length":
                    raise Unusable("it was cut off, because it was too long")
                found = analysis.parse(text, may_be_empty=may_be_empty)
                break
            except Unusable as problem:
                if is_last:
                    raise ModelFailed(f"the model gave no analysis that can be carried out: {problem}") from problem
                told = prompts.again(str(problem))
                self._conversation.add({"role": "user", "content": told})
                self._transcript.note("agent.nudge", {"text": told})
        self._transcript.think(_plan(found))
        self._transcript.end_answer()
        self._transcript.note("job.analysis", found.public())
        return found

    async def _ask(self) -> tuple[str, str]:
        """Return the model's answer and how it ended."""
        self._check_cost()
        messages = view(
            self._terms.system, self._conversation.messages, self._conversation.summary, self._conversation.covers
        )
        request = Request(self._terms.model, messages, fields=self._terms.fields)
        said: list[str] = []
        finish = "stop"
        async with aclosing(self._provider.answer(request)) as pieces:
            async for piece in pieces:
                match piece:
                    case Text(text):
                        said.append(text)
                    case Reasoning(text):
                        self._transcript.think(text)
                    case Again(reason, attempt):
                        said.clear()
                        self._transcript.again(reason, attempt)
                    case End(finish, usage):
                        self._transcript.usage = self._transcript.usage.plus(usage or Usage())
                    case Call():
                        pass  # none was offered: what it has to say is in the text, or it is asked again
        if finish == "content_filter":
            raise ModelFailed("the provider withheld the answer (content filter)")
        return "".join(said), finish

    async def _do_all(self, actions: tuple[Action, ...]) -> Done:
        done: Done = []
        for kind, group in groupby(actions, key=lambda action: action.kind):
            self._step(GROUPS[kind])
            for action in group:
                done.append((action, await self._do(action)))
        return done

    async def _do(self, action: Action) -> dict[str, Any]:
        self._number += 1
        call = Call(f"action_{self._number}", action.kind, json.dumps(action.arguments(), ensure_ascii=False))
        entry = self._result.add(action, blank(action))
        await in_thread(self._result.save)  # before it begins: whoever finds it there knows that it may have been done
        self._transcript.call(call)
        entry |= await self._workshop.carry_out(action, self._number)
        self._transcript.result(call.id, content_of(_answer(entry)))
        console.printed(entry["output"])
        console.complained(entry["error"])
        if not entry["success"]:
            console.complained(f"action {self._number} ({action.label}): {prompts.outcome(entry)}")
        await in_thread(self._result.save)
        return entry

    async def _repair(self, done: Done) -> Done:
        """Have the model make good what failed, once; [] where it has no answer to that."""
        self._conversation.add({"role": "user", "content": prompts.failed(done)})
        try:
            found = await self._analysis(may_be_empty=True)
        except ModelFailed as error:
            if error.code != "model_error":
                raise
            console.complained(f"what failed was not repaired: {error}")
            return []
        self._result.content["repair"] = found.public()
        return await self._do_all(found.actions)

    async def _conclude(self, done: Done, failed: Done) -> None:
        """Write the result. `failed`: of the actions `done` those that failed, and were not made good."""
        if self._has_room():
            self._step(RESULT)
        why = f"{len(failed)} of {len(done)} actions failed" if failed else ""
        if failed:
            action, result = failed[0]
            why += f": {action.label}: {prompts.outcome(result).removeprefix('failed, ')}"
        self._result.content["usage"] = usage_fields(self._transcript.usage)
        await in_thread(self._result.end, results.ERROR if failed else results.COMPLETE, why)
        self._transcript.say(_told(done, self._result.content["files"]))
        self._conversation.add({"role": "assistant", "content": self._transcript.end_answer()})
        if failed:
            raise JobFailed(why)

    def _step(self, name: str) -> None:
        if not self._has_room():
            raise LimitReached(f"the job was not done after {self._terms.steps} steps", "step_limit")
        count = self._step_names[name] = self._step_names.get(name, 0) + 1
        self._transcript.step(name if count == 1 else f"{name} {count}")

    def _has_room(self) -> bool:
        return self._terms.steps is None or self._transcript.steps < self._terms.steps

    def _check_cost(self) -> None:
        limit, cost = self._terms.cost_usd, self._transcript.usage.cost_usd
        if limit is not None and cost is not None and cost >= limit:
            raise LimitReached(f"the job has cost {cost:.4f} USD; its limit is {limit:g}", "cost_limit")


def _failed(done: Done) -> Done:
    return [(action, result) for action, result in done if not result["success"]]


def _answer(entry: dict[str, Any]) -> dict[str, Any]:
    """Return a result as the runtime's tools answer."""
    kept = [entry[name] for name in ("full_output", "full_error") if name in entry]
    notices = [
        f"Ended: {entry['ended']}." if "ended" in entry else "",
        f"All of it is in {', '.join(kept)}." if kept else "",
    ]
    notice = " ".join(filter(None, notices))
    return {
        **({"notice": notice} if notice else {}),
        "success": entry["success"],
        "exitCode": entry["return_code"],
        "stdout": entry["output"],
        "stderr": entry["error"],
    }


def _plan(found: Analysis) -> str:
    """Return an analysis as a person reads it."""
    lines = [f"{number}. {action.kind}: {action.label}" for number, action in enumerate(found.actions, 1)]
    about = [f"{len(lines)} action{'' if len(lines) == 1 else 's'}"]
    about += [f"estimated time: {found.estimated_time}"] if found.estimated_time else []
    about += [f"needs: {', '.join(found.requirements)}"] if found.requirements else []
    return "\n".join(["; ".join(about), *lines])


def _told(done: Done, files: list[dict[str, Any]]) -> str:
    """Return the answer: how the actions ended, and which files are there."""
    lines = [f"{number}. {action.label}: {prompts.outcome(result)}" for number, (action, result) in enumerate(done, 1)]
    if files:
        named = [f"{file['path']} ({file['bytes']} bytes)" for file in files[:_MAX_TOLD_FILES]]
        more = f" and {len(files) - len(named)} more" if len(files) > len(named) else ""
        lines.append(f"Files: {', '.join(named)}{more}")
    return "\n".join(lines)
