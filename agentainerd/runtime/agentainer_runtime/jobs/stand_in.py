"""What analyses a task where no model does. It is called `script` wherever a model is named, and only ever prints.

A prompt that is itself one plain `echo` is carried out, with each of its words taken as it is. Anything else is refused where no
model is configured; where the model is the built-in echo script, the prompt is what is said.
"""

import json
import shlex
from collections.abc import AsyncGenerator

from agentainer_runtime import shell
from agentainer_runtime.jobs.analysis import SHELL
from agentainer_runtime.provider import End, ModelFailed, Piece, Request, Text, Usage
from agentainer_runtime.script import said

NONE = "script"
ECHO = "script/echo.yaml"
NAMES = (NONE, ECHO)
NOTE = "No model analysed this task: the built-in script did, which only says what it is told."
_MAX_SAID_CHARS = 2000


class StandIn:
    """A provider. `is_chosen`: somebody wants it to say whatever the prompt is."""

    def __init__(self, *, is_chosen: bool) -> None:
        self._is_chosen = is_chosen

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See Provider.answer."""
        prompt = said(request.messages, "user")
        words = echoed(prompt) or (["printf", "%s\\n", prompt[:_MAX_SAID_CHARS]] if self._is_chosen else [])
        if not words:
            raise ModelFailed(
                "no model is configured for this job (models.default of the daemon, AGENT_MODEL, or `model` with the job); "
                "without one only a prompt `echo TEXT` is carried out"
            )
        action = {"type": SHELL, "description": "Say it", "command": shlex.join(words)}
        text = json.dumps({"actions": [action], "estimated_time": "1 second", "requirements": []})
        yield Text(text)
        yield End("stop", Usage())

    async def close(self) -> None:
        """See Provider.close."""


def echoed(prompt: str) -> list[str]:
    """Return the words of a prompt that is one `echo` of plain words; [] for any other."""
    try:
        steps = shell.parse(prompt.strip()).steps
    except shell.Refused:
        return []
    if len(steps) != 1:
        return []
    command, operator = steps[0]
    if operator or command.assignments or command.redirections or command.body:
        return []
    words = [word.text for word in command.words if word.is_literal]
    return words if len(words) == len(command.words) and words[:1] == ["echo"] else []
