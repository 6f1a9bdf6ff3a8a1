"""git_commit: what changed becomes a commit."""

from typing import Any

from agentainer_runtime import file_policy, paths
from agentainer_runtime.built_in import BuiltIn, ToolFailed
from agentainer_runtime.git import git
from agentainer_runtime.tool import ToolContext

HOOKS_LIMIT_S = 300.0  # the repository's own hooks may run its tests


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="git_commit",
        description="Commit all changes of the workspace, new files among them, or only those of the paths that are given.",
        properties={
            "message": {
                "type": "string",
                "description": "a subject of at most 72 characters; after an empty line, why",
            },
            "paths": {
                "type": "array",
                "items": {"type": "string"},
                "default": None,
                "description": "only these files and folders",
            },
        },
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    if not arguments["message"].strip() or "\0" in arguments["message"]:
        raise ToolFailed("message is empty, or has a NUL")
    only = [paths.relative(path, context.workspace) for path in arguments["paths"] or []]
    for path in only:
        file_policy.check(context.workspace, path, writes=True)
    await git(context, "add", "--all", "--", *(only or ["."]))
    staged = await git(context, "diff", "--cached", "--name-only", "-z", *(["--", *only] if only else []))
    files = [name for name in staged.stdout.beginning.decode("utf-8", "replace").split("\0") if name]
    if not files:
        raise ToolFailed("there is nothing to commit: the workspace is as the last commit has it")
    what = ["--only", "--", *only] if only else []
    await git(
        context, "commit", "--quiet", "--no-gpg-sign", f"--message={arguments['message']}", *what, limit_s=HOOKS_LIMIT_S
    )
    head = await git(context, "rev-parse", "HEAD")
    return {"success": True, "hash": head.stdout.text.strip(), "files": files[:500], "count": len(files)}
