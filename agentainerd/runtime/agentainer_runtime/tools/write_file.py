"""write_file: a whole file, made or replaced."""

from typing import Any

from agentainer_runtime import file_policy, paths, texts
from agentainer_runtime.built_in import BuiltIn, ToolFailed, about, in_thread
from agentainer_runtime.tool import FileEdit, ToolContext

MAX_BYTES = 10 * 1024 * 1024


def tool() -> BuiltIn:
    """Make it."""
    return BuiltIn(
        name="write_file",
        description=(
            "Make a file of the workspace, or replace all of its content. Folders above it are made. "
            "To change a part of a file use edit_file."
        ),
        properties={
            "path": {"type": "string", "description": "the file, relative to the workspace"},
            "content": {"type": "string", "description": "its whole content"},
        },
        work=_work,
    )


async def _work(arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
    edit = await in_thread(_write, context, arguments["path"], arguments["content"])
    context.report_edit(edit)
    return {"success": True, "operation": edit.operation, "path": edit.path}


def _write(context: ToolContext, path: str, content: str) -> FileEdit:
    data = content.encode()
    place = file_policy.check(context.workspace, path, writes=True)
    old = content_of(context, path)
    replace(context, path, data)
    diff = texts.unified_diff(place, old, data) if len(old or b"") <= MAX_BYTES else ""
    return FileEdit(texts.printable(place), "created" if old is None else "modified", diff)


def replace(context: ToolContext, path: str, data: bytes) -> None:
    """Write the file.

    Raises:
        ToolFailed: it would be too large.
        PathRefused, OSError: as `paths.write`.
    """
    if len(data) > MAX_BYTES:
        raise ToolFailed(f"the content has {len(data)} bytes, more than {MAX_BYTES}: make it with a program")
    with about(path):
        paths.write(context.workspace, path, data)


def content_of(context: ToolContext, path: str) -> bytes | None:
    """Return what is in the file, at most MAX_BYTES and one; None where there is none.

    Raises:
        PathRefused, OSError: as `paths.regular_file`.
    """
    try:
        with (
            about(path),
            paths.regular_file(context.workspace, path) as descriptor,
            open(descriptor, "rb", closefd=False) as file,
        ):
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
