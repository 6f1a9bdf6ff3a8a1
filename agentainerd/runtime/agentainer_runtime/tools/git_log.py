"""git_log: the commits before."""

from typing import Any

from agentainer_runtime import paths
from agentainer_runtime.built_in import BuiltIn
from agentainer_runtime.git import git
from agentainer_runtime.tool import ToolContext

FORMAT = "%H%x1f%an%x1f%aI%x1f%s%x1e"


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="git_log",
        description="List the last commits of the branch, newest first.",
        properties={
            "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 10, "description": "how many"},
            "path": {"type": "string", "default": "", "description": "only those that changed this file or folder"},
        },
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    has_commits = (await git(context, "rev-parse", "--verify", "--quiet", "HEAD", good=(0, 1))).exit_code == 0
    if not has_commits:
        return {"commits": [], "count": 0}
    only = ["--", paths.relative(arguments["path"], context.workspace)] if arguments["path"] else []
    limit = arguments["limit"]
    outcome = await git(context, "log", "--no-show-signature", f"--max-count={limit}", f"--format={FORMAT}", *only)
    records = [
        record.strip("\n").split("\x1f") for record in outcome.stdout.beginning.decode("utf-8", "replace").split("\x1e")
    ]
    commits = [
        {"hash": record[0], "message": record[3], "author": record[1], "date": record[2]}
        for record in records
        if len(record) == 4
    ]
    return {"commits": commits, "count": len(commits)}
