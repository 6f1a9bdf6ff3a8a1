"""Room for a conversation that is longer than the model takes. Only what the model is sent gets shorter; all of it stays on disk.

First, what old tools gave is left out, where that makes much room; then all but the first two messages and the latest ones
becomes a summary, which the model itself writes. A call of a tool and its result are never parted. It is tried once for one
question, and counts only where a tenth of the size is gone: a conversation that can't be made shorter ends the run instead of
going round.
"""

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from agentainer_runtime.conversations import Conversation, Message
from agentainer_runtime.provider import Again, End, ModelFailed, Provider, Request, Text, Usage
from agentainer_runtime.views import opening, shortened, view

FULL = 0.8  # of what the model takes: from there on room is made
TAIL = 0.25  # of it: the latest messages that stay as they are
OPENING = 0.1  # of it: each of the messages that begin it, at most; the summary is made of all that they have
KEPT_OUTPUT = 0.3  # of it, at most 40 000 tokens: the latest output of tools that is never left out
WORTH_IT = 0.15  # of it, at most 20 000 tokens: less is not worth leaving anything out
MUST_SHRINK = 0.9
_CHARS_PER_TOKEN = 3.6
_IMAGE_TOKENS = 1000
_ASK = """Summarize what follows: the work of an agent, up to now. It goes on from your summary and knows nothing else of it.
Keep what the user wants, in the user's words where they matter; what was found out, done and decided, with names of files,
commands and errors as they are; what failed, and what is to be done next. No introduction."""


class Context:
    """What of one conversation the model is sent, and how much that is.

    Sizes are tokens: what the provider said of the last request, and an estimate of what came since.
    """

    def __init__(
        self, system: str, conversation: Conversation, tools: list[dict[str, Any]], *, limit: int, is_compressing: bool
    ) -> None:
        self._system = system
        self._conversation = conversation
        self._tools = estimate([{"role": "system", "content": json.dumps(tools)}])
        self._limit = limit
        self._left_out = 0  # outputs of tools before this message are left out
        self._told = 0
        self._told_at = 0
        self._is_compressing = is_compressing

    @property
    def is_full(self) -> bool:
        """It is time to make room."""
        return self._is_compressing and self.size() > FULL * self._limit

    def messages(self) -> list[Message]:
        """Return what the model is sent."""
        return self._shown(self._conversation.summary, self._conversation.covers)

    def _shown(self, summary: str, covers: int) -> list[Message]:
        messages = self._conversation.messages
        first = opening(messages) if summary else 0
        bare = max(self._left_out, first)  # the summary has what the first call gave
        shown = [_without_output(each) if n < bare else each for n, each in enumerate(messages)]
        room = int(OPENING * self._limit * _CHARS_PER_TOKEN)
        for each in range(first):
            if isinstance(content := shown[each].get("content"), str):
                shown[each] = {**shown[each], "content": shortened(content, room)}
        return view(self._system, shown, summary, covers)

    def size(self) -> int:
        """Return how long that is."""
        if self._told:
            return self._told + estimate(self._conversation.messages[self._told_at :])
        return self._tools + estimate(self.messages())

    def told(self, usage: Usage | None) -> None:
        """Take what the provider says of a request, before its answer is added to the conversation."""
        if usage and usage.input_tokens:
            self._told, self._told_at = usage.input_tokens, len(self._conversation.messages)

    def overflowed(self) -> None:
        """Take that the model refused what it was sent: it takes less than the settings say."""
        self._limit = min(self._limit, self.size())

    def leave_out(self) -> bool:
        """Leave out what old tools gave; whether that made room."""
        messages = self._conversation.messages
        kept, place = 0, len(messages)
        while place and kept < min(40_000, KEPT_OUTPUT * self._limit):
            place -= 1
            kept += estimate([messages[place]]) if messages[place]["role"] == "tool" else 0
        old = messages[max(self._left_out, self._conversation.covers) : place]
        freed = estimate(old) - estimate([_without_output(each) for each in old])
        if freed < min(20_000, WORTH_IT * self._limit):
            return False
        self._left_out = place
        self._told = 0
        return True

    async def summarize(self, provider: Provider, model: str, fields: dict[str, str]) -> Usage:
        """Have all but the latest messages summarized by the model, and return what that took.

        Raises:
            ModelFailed: there is nothing to summarize, no summary, or it is not shorter.
            OSError: it can't be written.
        """
        conversation = self._conversation
        before, place, first = estimate(self.messages()), self._cut(), opening(conversation.messages)
        if not self._is_compressing or place < first or place <= conversation.covers:
            raise ModelFailed("the conversation is longer than the model takes, and can't be made shorter")
        told = _told(conversation.messages[conversation.covers : place], conversation.summary)
        text, usage = await _asked(provider, Request(model, self._question(told), [], fields))
        wanted = next((each for each in reversed(conversation.messages) if each["role"] == "user"), None)
        if wanted in conversation.messages[first:place]:
            text += f"\n\nWhat the user said last: {_text(wanted)}"
        after = estimate(self._shown(text, place))
        if after > MUST_SHRINK * before:
            raise ModelFailed("the conversation is longer than the model takes, and its summary is not shorter")
        conversation.summarize(text, place)
        self._told = 0
        return usage

    def _cut(self) -> int:
        """Return where the latest messages begin: as many as fit, and never between a call and its result."""
        messages = self._conversation.messages
        place, size = len(messages), 0
        best = place
        while place > 0:
            place -= 1
            size += estimate([messages[place]])
            if size > TAIL * self._limit:
                break
            if messages[place]["role"] != "tool":
                best = place
        if best == len(messages):  # not even the last one fits: what is being worked on stays nevertheless
            best = next((n for n in range(len(messages) - 1, -1, -1) if messages[n]["role"] != "tool"), 0)
        return best

    def _question(self, told: str) -> list[Message]:
        room = int(0.6 * self._limit * _CHARS_PER_TOKEN)
        return [{"role": "system", "content": _ASK}, {"role": "user", "content": shortened(told, room)}]


def estimate(messages: Sequence[Message]) -> int:
    """Return about how many tokens messages are."""
    count = 0.0
    for message in messages:
        content = message.get("content") or ""
        if isinstance(content, list):
            count += _IMAGE_TOKENS * sum(part.get("type") == "image_url" for part in content)
        count += 4 + len(_text(message)) / _CHARS_PER_TOKEN
        for call in message.get("tool_calls", ()):
            count += 8 + len(call["function"]["arguments"]) / _CHARS_PER_TOKEN
    return int(count)


async def _asked(provider: Provider, request: Request) -> tuple[str, Usage]:
    text, usage = "", Usage()
    async with aclosing(provider.answer(request)) as pieces:
        async for piece in pieces:
            if isinstance(piece, Text):
                text += piece.text
            elif isinstance(piece, Again):
                text = ""
            elif isinstance(piece, End):
                usage = piece.usage or usage
    if not text.strip():
        raise ModelFailed("the conversation is longer than the model takes, and its summary was empty")
    return text.strip(), usage


def _told(messages: Sequence[Message], summary: str) -> str:
    """Return messages as a text to be summarized."""
    lines = [f"[before]\n{summary}"] if summary else []
    for message in messages:
        calls = [
            f"{call['function']['name']} {call['function']['arguments']}" for call in message.get("tool_calls", ())
        ]
        lines.append(f"[{message['role']}]\n" + "\n".join(filter(None, [_text(message), *calls])))
    return "\n\n".join(lines)


def _without_output(message: Message) -> Message:
    if message["role"] != "tool" or len(_text(message)) < 200:
        return message
    return {
        **message,
        "content": json.dumps({"notice": f"{len(_text(message))} characters were left out, to make room"}),
    }


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return str(content or "")
