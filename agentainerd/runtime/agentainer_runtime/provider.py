"""What a model is to the loop: something that is sent a conversation, and gives back pieces of an answer as they come."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentainer_runtime.conversations import Message


@dataclass(frozen=True, slots=True)
class Usage:
    """What an answer took. `cost_usd` is None where nobody said; `cost_source` is "provider" where the provider did."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    cost_source: str = ""

    def plus(self, other: "Usage") -> "Usage":
        """Return the sum; what is known of the cost is summed, what is not is left out."""
        costs = [each for each in (self.cost_usd, other.cost_usd) if each is not None]
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            sum(costs) if costs else None,
            other.cost_source or self.cost_source,
        )


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool, whole; `arguments` is the text that the model gave, JSON or not."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Again:
    """The answer broke off and is begun again: what came of it so far does not count."""

    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class End:
    """The answer is whole. `finish`: stop, tool_calls, length, content_filter. `usage` is None where it was not told."""

    finish: str
    usage: Usage | None = None


Piece = Text | Reasoning | Call | Again | End


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. `tools` are functions as chat completions take them; `fields` go into the head of the request."""

    model: str
    messages: list[Message]
    tools: list[dict[str, Any]] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """Somewhere to ask."""

    def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """Give the pieces of the answer; the last one is an End.

        Raises:
            ModelFailed: there is no answer, after all that was tried.
        """

    async def close(self) -> None:
        """Give back what it holds."""


class ModelFailed(Exception):
    """No answer. `code` is what the run ends with: model_error or cost_limit."""

    def __init__(self, message: str, code: str = "model_error") -> None:
        super().__init__(message)
        self.code = code


class ContextOverflow(ModelFailed):
    """The conversation is longer than the model takes."""
