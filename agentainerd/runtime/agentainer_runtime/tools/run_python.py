"""run_python: a program that the model wrote for this one time."""

import os
import secrets
from typing import Any

from agentainer_runtime import commands
from agentainer_runtime.built_in import BuiltIn, ToolFailed, in_thread
from agentainer_runtime.policy import Mode, Policy
from agentainer_runtime.tool import ToolContext
from agentainer_runtime.tools.run_command import ask

NOT_LISTED = "Command not allowed: python3. The one who runs this agent has taken it from the list"
MAX_CHARACTERS = 1_000_000


def tool(policy: Policy | None = None) -> BuiltIn:
    """Make it, with the policy of this process's environment where none is given."""
    judge = policy or Policy.from_environment(os.environ)

    async def work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        is_listed = judge.mode is Mode.OFF or "python3" in judge.allowed
        code = arguments["code"]
        question = f"May the agent run this Python program?\n{code}"
        if not is_listed and (refusal := ask(judge, context, code, NOT_LISTED, question)):
            return refusal
        return await _work(arguments, context)

    return BuiltIn(
        name="run_python",
        description=(
            "Run a Python 3 program in the workspace and return what it prints: print what you want to know. It can import "
            "the workspace's modules, has no stdin, and keeps nothing from one call to the next."
        ),
        properties={"code": {"type": "string", "description": "the program"}, "timeout_s": commands.TIMEOUT},
        work=work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    code = arguments["code"]
    if not code.strip() or len(code) > MAX_CHARACTERS:
        raise ToolFailed(f"code is empty, or has more than {MAX_CHARACTERS} characters")
    file = context.outputs / f"python-{secrets.token_hex(8)}.py"
    try:
        await in_thread(file.write_bytes, code.encode())
        return await commands.run(
            ("python3", str(file)),
            context,
            timeout_s=arguments["timeout_s"],
            label="python",
            environment={"PYTHONPATH": str(context.workspace), "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"},
        )
    finally:
        file.unlink(missing_ok=True)
