"""What is wrong with the files of the workspace, as far as somebody is there to say it: the syntax of Python, JSON, TOML and
YAML, and what ruff says where the image has it.

Linters are programs, under the rules of every program of a tool: they are ended with their call, and see no key. What did not
run is not said to have found nothing.
"""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from agentainer_runtime import file_policy, paths, processes, texts
from agentainer_runtime.built_in import ToolFailed, about
from agentainer_runtime.tool import ToolContext

TIME_LIMIT_S = 60.0
MAX_ERRORS = 500
_READ_BYTES = 8 * 1024 * 1024
_SYNTAX = Path(__file__).with_name("syntax_check.py")
_OF_SYNTAX = (None, "", "invalid-syntax", "E999")  # the codes of ruff for what is said already


async def find_errors(path: str, context: ToolContext) -> dict[str, Any]:
    """Return `errors` (`file`, `line`, `column`, `linter`, `message`; 0: a line or column that is not known), their `count`, and
    `linters`: `name` and `files`, how many files each looked at. `notice` says what was left out.

    Raises:
        ToolFailed, paths.PathRefused, OSError: the path can't be looked at.
    """
    place = file_policy.check(context.workspace, path)
    with about(path):
        _must_exist(context.workspace, place)
    looked, errors, notices = _syntax(await _output(("-I", str(_SYNTAX), place), sys.executable, context, "syntax"))
    ruff = shutil.which("ruff", path=context.environment.get("PATH"))
    if ruff and looked.get("python"):
        argv = ("check", "--no-cache", "--exit-zero", "--output-format", "json", "--", place)
        found = _ruff(await _output(argv, ruff, context, "ruff"), context.workspace)
        if found is None:
            notices.append("ruff did not work")
        else:
            looked["ruff"] = looked["python"]
            errors += found
    errors.sort(key=lambda error: (error["file"], error["line"], error["column"]))
    if len(errors) > MAX_ERRORS:
        notices.insert(0, f"{len(errors)} errors, of which the first {MAX_ERRORS} are here")
    return {
        **({"notice": ". ".join(notices)} if notices else {}),
        "errors": errors[:MAX_ERRORS],
        "count": len(errors),
        "linters": [{"name": name, "files": files} for name, files in sorted(looked.items())],
    }


def _must_exist(workspace: Path, place: str) -> None:
    is_folder = (workspace / place).is_dir()
    with paths.folder(workspace, place) if is_folder else paths.regular_file(workspace, place):
        return


async def _output(arguments: tuple[str, ...], program: str, context: ToolContext, name: str) -> processes.Outcome:
    outcome = await processes.run(
        (program, *arguments),
        folder=context.workspace,
        environment=context.environment,
        outputs=context.outputs,
        until=min(context.deadline_s, time.monotonic() + TIME_LIMIT_S),
        label=f"lint-{name}",
        shown=_READ_BYTES,
    )
    if outcome.ended:
        raise ToolFailed(f"{name} had not finished after {outcome.duration_s:.0f} s: ask for a folder or file")
    return outcome


def _syntax(outcome: processes.Outcome) -> tuple[dict[str, int], list[dict[str, Any]], list[str]]:
    looked: dict[str, int] = {}
    errors: list[dict[str, Any]] = []
    notices = (
        [] if outcome.exit_code == 0 else ["the check of syntax broke off: files after the last one were not looked at"]
    )
    for line in texts.decode(outcome.stdout.beginning).splitlines():
        try:
            told = json.loads(line)
        except ValueError:  # it broke off there
            continue
        if "left_out" in told:
            notices.append(told["left_out"])
            continue
        looked[told["linter"]] = looked.get(told["linter"], 0) + 1
        if told["fault"]:
            errors.append({"file": told["file"], "linter": told["linter"], **told["fault"]})
    return looked, errors, notices


def _ruff(outcome: processes.Outcome, workspace: Path) -> list[dict[str, Any]] | None:
    """Return what ruff found; None where it said nothing that can be understood."""
    try:
        return [
            {
                "file": str(each["filename"]).removeprefix(f"{workspace.resolve()}/"),
                "linter": "ruff",
                "line": each["location"]["row"],
                "column": each["location"]["column"],
                "message": f"{each['code']} {each['message']}",
            }
            for each in json.loads(outcome.stdout.beginning)
            if each["code"] not in _OF_SYNTAX
        ]
    except (ValueError, KeyError, TypeError):
        return None
