"""edit_file: one piece of text for another."""

from typing import Any

from agentainer_runtime import file_policy, texts
from agentainer_runtime.built_in import BuiltIn, ToolFailed, in_thread
from agentainer_runtime.tool import FileEdit, ToolContext
from agentainer_runtime.tools.write_file import MAX_BYTES, content_of, replace

SHOWN_PLACES = 10


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="edit_file",
        description=(
            "Replace a piece of text in a file of the workspace. old_string must be there exactly as given, with its "
            "indentation, and once only, unless replace_all is true: take in lines before and after it until it is unique."
        ),
        properties={
            "path": {"type": "string", "description": "the file, relative to the workspace"},
            "old_string": {"type": "string", "description": "what is there now"},
            "new_string": {"type": "string", "description": "what is to be there instead"},
            "replace_all": {"type": "boolean", "default": False, "description": "wherever it is"},
        },
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    edit, count = await in_thread(_edit, arguments, context)
    context.report_edit(edit)
    return {"success": True, "operation": "modified", "path": edit.path, "replacements": count}


def _edit(arguments: dict[str, Any], context: ToolContext) -> tuple[FileEdit, int]:
    path, old, new = arguments["path"], arguments["old_string"], arguments["new_string"]
    place = file_policy.check(context.workspace, path, writes=True)
    content = content_of(context, path)
    if content is None:
        raise ToolFailed(f"{path} does not exist: make it with write_file")
    if texts.is_binary(content) or len(content) > MAX_BYTES:
        raise ToolFailed(f"{path} is not text of at most {MAX_BYTES} bytes")
    text = texts.decode(content)
    if "\r\n" in text and "\r\n" not in old:  # models write \n
        old, new = old.replace("\n", "\r\n"), new.replace("\r\n", "\n").replace("\n", "\r\n")
    count = _count(path, text, old, new, arguments["replace_all"])
    data = texts.encode(text.replace(old, new))
    replace(context, path, data)
    return FileEdit(texts.printable(place), "modified", texts.unified_diff(place, content, data)), count


def _count(path: str, text: str, old: str, new: str, is_all: bool) -> int:
    """Return how often `old` is to be replaced, or say what is wrong with it."""
    if not old:
        raise ToolFailed("old_string is empty: to make a file or replace all of it use write_file")
    if old == new:
        raise ToolFailed("old_string and new_string are the same")
    count = text.count(old)
    if count == 0:
        raise ToolFailed(f"old_string is not in {path}{_near(text, old)}")
    if count > 1 and not is_all:
        raise ToolFailed(
            f"old_string is in {path} {count} times, in lines {_lines(text, old)}: give more of what is around it, or replace_all"
        )
    return count


def _near(text: str, old: str) -> str:
    """Say where it is but for blanks, for that is what is wrong most often."""
    wanted = [line.strip() for line in old.strip().splitlines()]
    lines = [line.strip() for line in text.splitlines()]
    for at in range(len(lines) - len(wanted) + 1):
        if wanted and lines[at : at + len(wanted)] == wanted:
            return f", but line {at + 1} is like it, with other blanks at the beginnings or ends of lines: read the file again"
    return ": read the file again, it must be given exactly"


def _lines(text: str, old: str) -> str:
    numbers: list[str] = []
    at = text.find(old)
    while at >= 0 and len(numbers) < SHOWN_PLACES:
        numbers.append(str(text.count("\n", 0, at) + 1))
        at = text.find(old, at + len(old))
    return ", ".join(numbers) + (", ..." if at >= 0 else "")
