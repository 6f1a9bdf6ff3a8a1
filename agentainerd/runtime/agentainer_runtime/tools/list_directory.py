"""list_directory: what is in a folder."""

import contextlib
import os
from typing import Any

from agentainer_runtime import file_policy, paths, texts
from agentainer_runtime.built_in import BuiltIn, about, in_thread
from agentainer_runtime.tool import STATE_FOLDER, ToolContext

MAX_ENTRIES = 1000


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="list_directory",
        description="List a folder of the workspace: the name and type of each entry, and the size of files. Folders first.",
        properties={"path": {"type": "string", "default": ".", "description": "the folder, relative to the workspace"}},
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    return await in_thread(_list, context, arguments["path"])


def _list(context: ToolContext, path: str) -> dict[str, Any]:
    place = file_policy.check(context.workspace, path)
    with about(path), paths.folder(context.workspace, path) as descriptor, os.scandir(descriptor) as scan:
        entries = [_entry(entry) for entry in scan if place != "." or entry.name != STATE_FOLDER]
    entries.sort(key=lambda entry: (entry["type"] != "directory", entry["name"]))
    if len(entries) <= MAX_ENTRIES:
        return {"entries": entries}
    return {
        "notice": f"{len(entries)} entries, of which the first {MAX_ENTRIES} are shown",
        "entries": entries[:MAX_ENTRIES],
    }


def _entry(entry: os.DirEntry[str]) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": texts.printable(entry.name), "type": _type(entry)}
    if shown["type"] == "file":
        with contextlib.suppress(FileNotFoundError):  # removed meanwhile
            shown["size"] = entry.stat(follow_symlinks=False).st_size
    return shown


def _type(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "symlink"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
