"""Git as the tools use it: in the workspace, without pager, editor or questions, and without the programs that settings name."""

import contextlib
import time
from pathlib import Path

from agentainer_runtime import processes
from agentainer_runtime.built_in import ToolFailed
from agentainer_runtime.tool import STATE_FOLDER, ToolContext

TIME_LIMIT_S = 30.0
READ_BYTES = 4 * 1024 * 1024
SETTINGS = (
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.quotepath=false",
    "-c",
    "color.ui=false",
    "--literal-pathspecs",
    "--no-pager",
)


async def git(
    context: ToolContext,
    *arguments: str,
    good: tuple[int, ...] = (0,),
    shown: int = READ_BYTES,
    limit_s: float = TIME_LIMIT_S,
) -> processes.Outcome:
    """Run git in the workspace.

    Raises:
        ToolFailed: it ended with another code than `good` ones, was too slow, or is not there; the text is git's own.
    """
    hide_state(context.workspace)
    try:
        outcome = await processes.run(
            ("git", *SETTINGS, *arguments),
            folder=context.workspace,
            environment={**context.environment, "GIT_OPTIONAL_LOCKS": "0"},
            outputs=context.outputs,
            until=min(context.deadline_s, time.monotonic() + limit_s),
            label=f"git-{arguments[0].strip('-')}",
            shown=shown,
        )
    except FileNotFoundError as exc:
        raise ToolFailed("git is not installed in this image") from exc
    if outcome.ended:
        raise ToolFailed(f"git {arguments[0]} was ended after {outcome.duration_s:.0f} s: it had not finished")
    if outcome.exit_code not in good:
        said = outcome.stderr.text.strip() or outcome.stdout.text.strip()
        if "not a git repository" in said.lower():
            raise ToolFailed("the workspace is not a git repository: `git init` makes it one")
        raise ToolFailed(f"git {arguments[0]} failed: {said[:2000]}")
    return outcome


def hide_state(workspace: Path) -> None:
    """Have git not see the runtime's own folder."""
    ignored = workspace / STATE_FOLDER / ".gitignore"
    if not ignored.exists():
        with contextlib.suppress(OSError):  # a workspace that can't be written has no use for it
            ignored.parent.mkdir(exist_ok=True)
            ignored.write_text("*\n")
