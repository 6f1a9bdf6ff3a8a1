"""What a model is told to have it plan a job, and to have it mend what failed."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentainer_runtime import texts
from agentainer_runtime.jobs.analysis import MAX_ACTIONS, Action

_PLAN = """You plan a job. It is carried out without you, in a Linux container that was made for it: you break the task down \
into actions, and they are done one after the other, in your order. Answer with one JSON object and nothing else:

{{"actions": [
  {{"type": "shell_command", "description": "what it does", "command": "the command line", "working_dir": "{output}"}},
  {{"type": "python_code", "description": "what it does", "code": "a whole Python 3 program", "output_file": "optional"}}],
 "estimated_time": "2 minutes", "requirements": ["what it needs"]}}

- At most {most} actions. Each is a process of its own with no stdin: nothing that one sets, and nothing that it leaves in the \
background, is there for the next one; files are. It is ended after {timeout_s:g} s.
- Actions begin in {output}. What is there in the end is the result that the user gets; result.json is written without you.
- They are not root: only {workspace} and /tmp can be written.
- `output_file` gets what the program prints. Leave it out where the program writes its files itself.
- An action that ends with another exit code than 0 has failed, and with it the job. Where that does not matter, end the command \
with `|| true`.
- Nobody answers questions. Decide what is open as the user would most likely want it.{given}"""
_GIVEN = "\n- The user gave these, in {workspace}: {names}"
_MAX_NAMES = 100
_AGAIN = "That can't be carried out: {problem}. Answer with the JSON object alone, the whole of it."
_FAILED = """{count} of {number} actions failed. This is what came of them:

{list}

Answer with a JSON object of the same form, with the actions that make good what failed; the others are not done again. An empty \
list of actions where nothing can be done about it."""
_MAX_SHOWN_CHARS = 2000


def system(*, workspace: Path, output: Path, timeout_s: float, instructions: str) -> str:
    """Return the system message of an analysis."""
    names = _given(workspace, output)
    given = _GIVEN.format(workspace=workspace, names=", ".join(names)) if names else ""
    told = _PLAN.format(workspace=workspace, output=output, most=MAX_ACTIONS, timeout_s=timeout_s, given=given)
    return f"{told}\n\n{instructions.strip()}" if instructions.strip() else told


def again(problem: str) -> str:
    """Return what a model is told of an answer that is no analysis."""
    return _AGAIN.format(problem=problem)


def failed(done: Sequence[tuple[Action, dict[str, Any]]]) -> str:
    """Return what a model is told of actions of which some failed."""
    lines = []
    for number, (action, result) in enumerate(done, 1):
        lines.append(f"{number}. {action.kind}, {action.label}: {outcome(result)}")
        if not result["success"]:
            lines += [f"{name}: {_end_of(result[name])}" for name in ("output", "error") if result[name]]
    count = sum(not result["success"] for _, result in done)
    return _FAILED.format(count=count, number=len(done), list="\n".join(lines))


def outcome(result: dict[str, Any]) -> str:
    """Return how an action ended, in a few words."""
    if result["success"]:
        return "worked"
    if result.get("ended"):
        return f"failed, {result['ended']}"
    code = result["return_code"]
    return "failed, it could not be started" if code is None else f"failed, exit code {code}"


def _end_of(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else f"[...] {text[-_MAX_SHOWN_CHARS:]}"


def _given(workspace: Path, output: Path) -> list[str]:
    """Return what the user sent along: the names in the workspace but for those of the daemon and the runtime."""
    with suppress(OSError), os.scandir(workspace) as entries:
        names = sorted(each.name + ("/" if each.is_dir() else "") for each in entries if each.name[0] != ".")
        return [texts.printable(name) for name in names if workspace / name != output][:_MAX_NAMES]
    return []
