"""search_files: lines that match, by ripgrep where the image has it, else by a small program of ours."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from agentainer_runtime import file_policy, paths, processes
from agentainer_runtime.built_in import BuiltIn, ToolFailed, about
from agentainer_runtime.tool import STATE_FOLDER, ToolContext

TIME_LIMIT_S = 30.0
MAX_MATCHES = 200
MAX_LINE_CHARACTERS = 400
READ_BYTES = 1024 * 1024
FALLBACK = Path(__file__).parent.parent / "line_search.py"


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="search_files",
        description=(
            "Find the lines of the workspace's files that match a regular expression. Files that git ignores are left out. "
            f"At most {MAX_MATCHES} lines are told."
        ),
        properties={
            "query": {"type": "string", "description": "a regular expression, for one line"},
            "filePattern": {
                "type": "string",
                "default": "",
                "description": 'only files like this, e.g. "*.py", "src/**/*.ts"',
            },
            "caseSensitive": {"type": "boolean", "default": False, "description": "whether A is not a"},
            "literal": {"type": "boolean", "default": False, "description": "whether query is plain text"},
            "path": {"type": "string", "default": ".", "description": "the folder or file to search in"},
        },
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    if not arguments["query"] or "\n" in arguments["query"] or "\0" in arguments["query"] + arguments["filePattern"]:
        raise ToolFailed("query must be one line that is not empty")
    place = file_policy.check(context.workspace, arguments["path"])
    with about(arguments["path"]):
        _must_exist(context, place)
    program = shutil.which("rg", path=context.environment.get("PATH"))
    argv = _ripgrep(program, arguments, place) if program else _fallback(arguments, place)
    outcome = await processes.run(
        argv,
        folder=context.workspace,
        environment=context.environment,
        outputs=context.outputs,
        until=min(context.deadline_s, time.monotonic() + TIME_LIMIT_S),
        label="search",
        shown=READ_BYTES,
    )
    if outcome.exit_code not in (0, 1) and not outcome.ended and not outcome.stdout.size:
        raise ToolFailed(f"the search failed: {outcome.stderr.text.strip()[:1000]}")
    return _answer(outcome)


def _must_exist(context: ToolContext, place: str) -> None:
    if (context.workspace / place).is_dir():
        with paths.folder(context.workspace, place):
            return
    with paths.regular_file(context.workspace, place):
        return


def _ripgrep(program: str, arguments: dict[str, Any], place: str) -> list[str]:
    return [
        program,
        *("--no-config", "--null", "--line-number", "--no-heading", "--with-filename", "--color=never", "--sort=path"),
        *("--hidden", "--no-messages", f"--max-columns={MAX_LINE_CHARACTERS * 4}", "--max-columns-preview"),
        "--case-sensitive" if arguments["caseSensitive"] else "--ignore-case",
        *(["--fixed-strings"] if arguments["literal"] else []),
        *([f"--glob={arguments['filePattern']}"] if arguments["filePattern"] else []),
        "--glob=!.git",
        f"--glob=!/{STATE_FOLDER}",
        f"--regexp={arguments['query']}",
        "--",
        place,
    ]


def _fallback(arguments: dict[str, Any], place: str) -> list[str]:
    given = {**arguments, "path": place, "skipped": [".git", STATE_FOLDER]}
    return [sys.executable, "-I", "-S", str(FALLBACK), json.dumps(given)]


def _answer(outcome: processes.Outcome) -> dict[str, Any]:
    """Return the matches: each was printed as the file, a NUL, the line's number, a colon, and the line."""
    matches = []
    for printed in outcome.stdout.beginning.decode("utf-8", "replace").split("\n"):
        file, _, rest = printed.partition("\0")
        number, _, content = rest.partition(":")
        if number.isdigit():
            matches.append(
                {
                    "file": file.removeprefix("./"),
                    "line": int(number),
                    "content": content.rstrip("\r")[:MAX_LINE_CHARACTERS],
                }
            )
    notices = []
    if outcome.ended:
        notices.append(
            f"the search was ended after {outcome.duration_s:.0f} s: what it had found is here; search in less"
        )
    if len(matches) > MAX_MATCHES or not outcome.stdout.is_all_shown:
        more = "" if outcome.stdout.is_all_shown else " and more"
        notices.append(
            f"{len(matches)}{more} lines match, the first {MAX_MATCHES} are here: be more exact, or give filePattern or path"
        )
    notice = {"notice": "; ".join(notices)} if notices else {}
    return {**notice, "matches": matches[:MAX_MATCHES], "count": len(matches)}
