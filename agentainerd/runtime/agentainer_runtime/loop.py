"""The loop: ask the model, do what it asks for, tell it what came of it, until it has nothing more to ask for.

What was said is in the conversation as soon as it was said, so that the next run of the thread goes on from there, whatever
ended this one.
"""

import json
import logging
import uuid
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from agentainer_runtime.approvals import Decision, Pending, refusal
from agentainer_runtime.compression import Context
from agentainer_runtime.conversations import Conversation, Message
from agentainer_runtime.provider import (
    Again,
    Call,
    ContextOverflow,
    End,
    ModelFailed,
    Provider,
    Reasoning,
    Request,
    Text,
    Usage,
)
from agentainer_runtime.stuck import NUDGE, Repetitions, Verdict
from agentainer_runtime.tool import NeedsApproval
from agentainer_runtime.toolbox import Toolbox, content_of
from agentainer_runtime.transcript import Transcript
from agentainer_runtime.views import shortened

log = logging.getLogger(__name__)

_MAX_CALLS = 32
_MAX_FAULTY = 3
_MAX_PARTIAL_CHARS = 20_000
_CUT_OFF = "Your answer was cut off, because it was too long. Go on from there, in smaller pieces."
_AFTER_IT = {"error": "not done: a call before it waits for the user. Make it again when that one has its answer."}
_EMPTY = "Your answer was empty. Go on, or say that you are done and what came of it."


class LimitReached(Exception):
    """The run may not go on. `code`: step_limit, cost_limit, stuck."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


class Paused(Exception):
    """The run ends here, and the thread's next one goes on: a person has to allow a call first."""

    def __init__(self, pending: Pending) -> None:
        super().__init__(pending.question)
        self.pending = pending


@dataclass(frozen=True)
class Terms:
    """What holds for one run: the model's name, its first words and how much it takes (tokens), whether longer conversations are
    made shorter, the most steps and cost (None: any), fields of requests.
    """

    model: str
    system: str
    steps: int
    context_tokens: int
    is_compressing: bool
    cost_usd: float | None = None
    fields: dict[str, str] = field(default_factory=dict)


@dataclass
class _Answer:
    """What the model said; calls are in order."""

    text: str = ""
    calls: list[Call] = field(default_factory=list)
    finish: str = "stop"

    def message(self) -> Message:
        """Return it as it is kept. Arguments that are no JSON are not: a provider would refuse the whole conversation."""
        if not self.calls:
            return {"role": "assistant", "content": self.text}
        calls = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments if is_object(call) else "{}"},
            }
            for call in self.calls
        ]
        return {"role": "assistant", "content": self.text or None, "tool_calls": calls}


class Loop:
    """One run's work; `go` is called once."""

    def __init__(
        self, terms: Terms, *, conversation: Conversation, transcript: Transcript, provider: Provider, toolbox: Toolbox
    ) -> None:
        self._terms = terms
        self._conversation = conversation
        self._transcript = transcript
        self._provider = provider
        self._toolbox = toolbox
        self._context = Context(
            terms.system,
            conversation,
            toolbox.functions(),
            limit=terms.context_tokens,
            is_compressing=terms.is_compressing,
        )
        self._can_shorten = True
        self._repetitions = Repetitions()
        self._faulty = 0
        self._used_ids: set[str] = set()

    async def go(self) -> None:
        """Work until the model is done.

        Raises:
            LimitReached, ModelFailed: it is not, and that is why it ends. Paused: not yet.
            OSError: the conversation can't be written.
        """
        while True:
            self._check_limits()
            answer = await self._ask()
            self._conversation.add(answer.message())
            if answer.calls:
                await self._do_all(answer)
            elif self._is_whole(answer):
                return

    async def resume(self, pending: Pending, decision: Decision) -> None:
        """Do the call that waited, or tell the model that it may not be done. Before `go`, where there is one.

        Raises:
            Paused: it needs another word. OSError: the conversation can't be written.
        """
        call = Call(pending.call_id, pending.tool, pending.arguments)
        self._used_ids.add(call.id)
        self._transcript.reopen(call)
        self._conversation.settle(pending.action if decision.allows else "")  # before it is done: it is not done twice
        try:
            result = await self._run(call) if decision.allows else refusal(decision)
        except NeedsApproval as needed:
            raise self._paused(call, needed) from None
        self._tell(call, result)

    def keep_partial(self) -> None:
        """Keep what the model had said of an answer that is not going to end; of a very long one, how it began and went on.

        Raises:
            OSError: the conversation can't be written.
        """
        last = self._conversation.messages[-1]["role"] if self._conversation.messages else ""
        if self._transcript.text and last != "assistant" and not self._transcript.open_calls:
            self._conversation.add(
                {"role": "assistant", "content": shortened(self._transcript.text, _MAX_PARTIAL_CHARS)}
            )

    def _check_limits(self) -> None:
        terms, transcript = self._terms, self._transcript
        if transcript.steps >= terms.steps:
            raise LimitReached(f"the model was not done after {terms.steps} steps", "step_limit")
        cost = transcript.usage.cost_usd
        if terms.cost_usd is not None and cost is not None and cost >= terms.cost_usd:
            raise LimitReached(f"the run has cost {cost:.4f} USD; its limit is {terms.cost_usd:g}", "cost_limit")

    async def _ask(self) -> _Answer:
        self._transcript.step()
        if (
            self._context.is_full
            and not (self._context.leave_out() and not self._context.is_full)
            and self._can_shorten
        ):
            try:
                await self._shorten()
            except ModelFailed as error:
                log.warning("the conversation was not made shorter: %s", error)
                self._can_shorten = False  # not again and again: the model may take it as it is
        try:
            return await self._answer()
        except ContextOverflow:
            if not self._terms.is_compressing:
                raise
            self._context.overflowed()
            if not self._context.leave_out() or self._context.is_full:
                await self._shorten()
            return await self._answer()

    async def _shorten(self) -> None:
        before = self._context.size()
        usage = await self._context.summarize(self._provider, self._terms.model, self._terms.fields)
        self._transcript.usage = self._transcript.usage.plus(usage)
        self._transcript.note("context.compressed", {"before_tokens": before, "after_tokens": self._context.size()})

    async def _answer(self) -> _Answer:
        request = Request(self._terms.model, self._context.messages(), self._toolbox.functions(), self._terms.fields)
        answer = _Answer()
        async with aclosing(self._provider.answer(request)) as pieces:
            async for piece in pieces:
                self._take(piece, answer)
        answer.text = self._transcript.end_answer()
        for call in answer.calls:
            self._transcript.call(call)
        return answer

    def _take(self, piece: object, answer: _Answer) -> None:
        match piece:
            case Text(text):
                self._transcript.say(text)
            case Reasoning(text):
                self._transcript.think(text)
            case Call():
                answer.calls.append(self._named(piece))
            case Again(reason, attempt):
                answer.calls.clear()
                self._transcript.again(reason, attempt)
            case End(finish, usage):
                answer.finish = finish
                self._transcript.usage = self._transcript.usage.plus(usage or Usage())
                self._context.told(usage)

    def _named(self, call: Call) -> Call:
        """Give a call an id that no other of this run has: some servers count from 0 in each answer."""
        call_id, number = call.id, 1
        while call_id in self._used_ids:
            number += 1
            call_id = f"{call.id}_{number}"
        self._used_ids.add(call_id)
        return Call(call_id, call.name, call.arguments)

    async def _do_all(self, answer: _Answer) -> None:
        """Do the calls one after the other, as they were given: they may build on each other."""
        verdicts = set()
        for number, call in enumerate(answer.calls):
            if number >= _MAX_CALLS:
                result: dict[str, Any] = {"error": f"not done: an answer may have at most {_MAX_CALLS} calls"}
            elif not is_object(call) and answer.finish == "length":
                result = {"error": f"not done: the call was cut off. {_CUT_OFF}"}
            else:
                try:
                    result = await self._run(call)
                except NeedsApproval as needed:
                    for later in answer.calls[number + 1 :]:
                        self._tell(later, _AFTER_IT)
                    raise self._paused(call, needed) from None
            content = self._tell(call, result)
            verdicts.add(self._repetitions.add(f"{call.name} {call.arguments}", content, is_error="error" in result))
        self._count_faulty(is_faulty=not any(map(is_object, answer.calls)))
        if Verdict.STUCK in verdicts:
            raise LimitReached("the model repeats the same calls, and was told so", "stuck")
        if Verdict.NUDGE in verdicts:
            self._nudge(NUDGE)

    async def _run(self, call: Call) -> dict[str, Any]:
        return await self._toolbox.run(call, self._transcript.edited, self._conversation.allowed)

    def _tell(self, call: Call, result: dict[str, Any]) -> str:
        content = content_of(result)
        self._conversation.add({"role": "tool", "tool_call_id": call.id, "content": content})
        self._transcript.result(call.id, content)
        return content

    def _paused(self, call: Call, needed: NeedsApproval) -> Paused:
        pending = Pending(f"int_{uuid.uuid4().hex}", call.id, call.name, call.arguments, needed.action, needed.question)
        self._conversation.wait_for(pending)
        return Paused(pending)

    def _is_whole(self, answer: _Answer) -> bool:
        """Whether an answer without calls is the end of the work; where it is none, the model is told."""
        if answer.finish == "content_filter":
            raise ModelFailed("the provider withheld the answer (content filter)")
        if answer.finish == "length":
            verdict = self._repetitions.say(answer.text)
            if verdict is Verdict.STUCK:
                raise LimitReached("the model says the same again and again, and was told so", "stuck")
            self._nudge(NUDGE if verdict is Verdict.NUDGE else _CUT_OFF)
            return False
        if not answer.text.strip():
            self._count_faulty(is_faulty=True)
            self._nudge(_EMPTY)
            return False
        return True

    def _count_faulty(self, *, is_faulty: bool) -> None:
        self._faulty = self._faulty + 1 if is_faulty else 0
        if self._faulty >= _MAX_FAULTY:
            raise ModelFailed(f"the model gave {_MAX_FAULTY} answers in a row that nothing can be done with")

    def _nudge(self, text: str) -> None:
        self._conversation.add({"role": "user", "content": text})
        self._transcript.note("agent.nudge", {"text": text})


def is_object(call: Call) -> bool:
    """Whether a call's arguments are the JSON object that they have to be."""
    try:
        return isinstance(json.loads(call.arguments or "{}"), dict)
    except ValueError:
        return False
