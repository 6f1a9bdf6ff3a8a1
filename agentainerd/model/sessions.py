"""Sessions: a conversation bound to an agent. The messages are AG-UI's, which are OpenAI's with names in camel case."""

import uuid
from typing import Any

import msgspec

from agentainerd import defaults
from agentainerd.errors import InvalidParameter


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a conversation was about. `created_at`: epoch seconds."""

    content: str
    run_count: int
    total_tokens: int
    created_at: float


class Session(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One session as it is stored, without its messages. Times are epoch seconds.

    `agent_id` is what the client gave: an id or a name, of an agent that may not be there (yet). `messages`: how many there were;
    the last MAX_SESSION_MESSAGES are kept, of at most MAX_SESSION_BYTES. `bytes`: what those take, about. `unanswered`: ids of
    the interrupts that its last run ended without an answer to, which its agent takes nothing new before it is told of.
    """

    id: str
    agent_id: str
    created_at: float
    updated_at: float
    user_id: str = ""
    team_id: str = ""
    workflow_id: str = ""
    name: str = ""
    metadata: dict[str, Any] = {}
    state: dict[str, Any] = {}
    run_count: int = 0
    messages: int = 0
    bytes: int = 0
    total_tokens: int = 0
    summary: Summary | None = None
    unanswered: list[str] = []

    def check(self) -> None:
        """Raise InvalidParameter where it is too large to be kept."""
        if not self.agent_id.strip():
            raise InvalidParameter("agent_id", "is required")
        for field in ("agent_id", "user_id", "team_id", "workflow_id", "name"):
            if len(getattr(self, field)) > defaults.MAX_SESSION_FIELD_CHARS:
                raise InvalidParameter(field, f"is longer than {defaults.MAX_SESSION_FIELD_CHARS} characters")
        for field in ("metadata", "state"):
            size = len(msgspec.json.encode(getattr(self, field)))
            if size > defaults.MAX_SESSION_STATE_BYTES:
                raise InvalidParameter(field, f"has {size} bytes; {defaults.MAX_SESSION_STATE_BYTES} are kept")


class FunctionCall(msgspec.Struct, frozen=True):
    """`arguments` is JSON as text, as the model wrote it."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """A call that an assistant's message asks for."""

    id: str
    function: FunctionCall
    type: str = "function"


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """One message of a conversation: `role` is user, assistant, tool, system or developer. `run_id`: of the run it came with."""

    id: str
    role: str
    content: str = ""
    name: str = ""
    tool_calls: list[ToolCall] = []
    tool_call_id: str = ""
    reasoning: str = ""
    run_id: str = ""
    at: float = 0.0


def new_session_id() -> str:
    """Return a UUID (RFC 9562, version 4)."""
    return str(uuid.uuid4())


def new_message_id() -> str:
    """Return an id for a message of ours."""
    return f"msg-{uuid.uuid4()}"
