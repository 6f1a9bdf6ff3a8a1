"""run_command: a line for the shell, as far as the command policy lets it."""

import os
from typing import Any

from agentainer_runtime import commands, file_policy, paths
from agentainer_runtime.built_in import BuiltIn, ToolFailed, about
from agentainer_runtime.policy import Mode, Policy
from agentainer_runtime.tool import ToolContext


def tool(policy: Policy | None = None) -> BuiltIn:
    """Make it, with the policy of this process's environment where none is given."""
    judge = policy or Policy.from_environment(os.environ)

    async def work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        return await _work(judge, arguments, context)

    return BuiltIn(
        name="run_command",
        description=_description(judge),
        properties={
            "command": {"type": "string", "description": "the command line"},
            "timeout_s": commands.TIMEOUT,
            "directory": {"type": "string", "default": ".", "description": "the folder of the workspace it begins in"},
        },
        work=work,
    )


def _description(policy: Policy) -> str:
    text = (
        "Run a command in the workspace and return what it prints. It has no stdin, and processes in the background end with it. "
        "What is long is cut and kept in a file."
    )
    if policy.mode is Mode.OFF:
        return text
    return f"{text} Pipes, &&, ; and redirections work; these programs may be run: {' '.join(sorted(policy.allowed))}"


def ask(policy: Policy, context: ToolContext, action: str, reason: str, question: str) -> dict[str, Any]:
    """Return the answer to what is not on the list; {} where a person is to be asked and has allowed it.

    Raises:
        NeedsApproval: they are to be asked.
    """
    if policy.mode is not Mode.CONFIRM or context.approve is None:
        return {"error": reason}
    context.approve(action, question)
    return {}


async def _work(policy: Policy, arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    command = arguments["command"]
    if not command.strip() or "\0" in command:
        raise ToolFailed("command is empty, or has a NUL")
    folder = file_policy.check(context.workspace, arguments["directory"])
    with about(arguments["directory"]), paths.folder(context.workspace, folder):
        decision = policy.judge(command, context.workspace, folder)
    question = f"May the agent run this command?\n{command}"
    if decision.reason and (refusal := ask(policy, context, command, decision.reason, question)):
        return refusal
    return await commands.run(decision.argv, context, timeout_s=arguments["timeout_s"], label="command", folder=folder)
