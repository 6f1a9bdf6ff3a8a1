"""git_diff: what changed in the files."""

from typing import Any

from agentainer_runtime import paths
from agentainer_runtime.built_in import BuiltIn
from agentainer_runtime.git import git
from agentainer_runtime.tool import ToolContext

SHOWN_BYTES = 30_000


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="git_diff",
        description="Show what changed and is not staged yet; with staged, what the next commit gets.",
        properties={
            "path": {"type": "string", "default": "", "description": "only this file or folder"},
            "staged": {"type": "boolean", "default": False, "description": "what is staged, against the last commit"},
        },
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    only = ["--", paths.relative(arguments["path"], context.workspace)] if arguments["path"] else []
    staged = ["--cached"] if arguments["staged"] else []
    outcome = await git(context, "diff", "--no-ext-diff", "--no-textconv", *staged, *only, shown=SHOWN_BYTES)
    notice = outcome.stdout.notice("the diff", context.workspace)
    told = {"notice": notice} if notice else {}
    return {**told, "diff": outcome.stdout.text, "hasChanges": outcome.stdout.size > 0}
