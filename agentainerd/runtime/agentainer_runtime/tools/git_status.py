"""git_status: which files changed."""

from typing import Any

from agentainer_runtime import texts
from agentainer_runtime.built_in import BuiltIn
from agentainer_runtime.git import git
from agentainer_runtime.tool import ToolContext

MAX_FILES = 500


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="git_status",
        description=(
            "Tell the branch and the files that differ from the last commit. A status is two letters as in "
            "`git status --short`: what is staged, what is not; ?? is a new file."
        ),
        properties={},
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    outcome = await git(context, "status", "--porcelain=v1", "-z", "--branch", "--untracked-files=all")
    head, *records = texts.decode(outcome.stdout.beginning).split("\0")
    files = _files(records)
    answer: dict[str, Any] = {}
    if len(files) > MAX_FILES or not outcome.stdout.is_all_shown:
        answer["notice"] = f"{len(files)} files differ or more, the first {MAX_FILES} are here"
    branch = head.removeprefix("## ").removeprefix("No commits yet on ").split("...")[0]
    return {**answer, "branch": texts.printable(branch), "files": files[:MAX_FILES], "count": len(files)}


def _files(records: list[str]) -> list[dict[str, str]]:
    """Read git's records; after a rename or copy follows the name from before."""
    files = []
    rest = iter(records)
    for record in rest:
        if len(record) < 4:
            continue
        file = {"status": record[:2].strip(), "file": texts.printable(record[3:])}
        if record[0] in "RC":
            file["from"] = texts.printable(next(rest, ""))
        files.append(file)
    return files
