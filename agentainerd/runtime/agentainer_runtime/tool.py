"""What a tool is. The runtime's own tools and those of other packages are the same: classes that an entry point names.

A package adds one with an entry point in the group `agentainer.tools`: its name is the tool's, its value a class, or another
callable without arguments, that makes a `Tool`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

ENTRY_POINT_GROUP = "agentainer.tools"
STATE_FOLDER = ".agentainer"
"""The runtime's own folder in the workspace: runs, conversations, outputs. Tools read what is in its `outputs`, nothing else."""


class NeedsApproval(Exception):
    """A person has to allow `action` before it is done; `question` is what they are asked."""

    def __init__(self, action: str, question: str) -> None:
        super().__init__(question)
        self.action = action
        self.question = question


@dataclass(frozen=True)
class FileEdit:
    """A file of the workspace that a tool made, changed or removed.

    `path` is relative to the workspace, `diff` a unified diff ("" where the content is not text).
    """

    path: str
    operation: Literal["created", "modified", "deleted"]
    diff: str = ""


@dataclass(frozen=True)
class ToolContext:
    """What a tool may use during one call.

    Attributes:
        workspace: the folder that it works in; an absolute path.
        environment: the whole environment for processes that it starts; no keys and tokens are in it.
        report_edit: to be called for each change of a file, after it was made; from the event loop's thread.
        outputs: a folder below the workspace for what an answer leaves out; it exists.
        approve: to be called with an action, and a question for people, before something is done that a person has to allow. It
            returns if they did, in this conversation; else it raises NeedsApproval, which the tool lets through: it is called
            again, as it was, once they have. None where nobody can be asked.
        deadline_s: `time.monotonic()` by which it should have ended. At that time the call is cancelled.
    """

    workspace: Path
    environment: Mapping[str, str]
    report_edit: Callable[[FileEdit], None]
    outputs: Path
    deadline_s: float
    approve: Callable[[str, str], None] | None = None


class Tool(Protocol):
    """One thing that a model can ask for. An instance serves all calls, also several at a time."""

    @property
    def name(self) -> str:
        """What the model calls it: a-z, 0-9 and _, at most 64 characters."""

    @property
    def description(self) -> str:
        """What it does and when to use it, for the model."""

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments: an object."""

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        """Do it and return what the model is told, as something that JSON has; what went wrong is `{"error": text}`.

        The arguments are an object, and not yet held against the schema. The call may be cancelled at any await: what it
        started must be gone when the CancelledError leaves it. It must not block the event loop.
        """
