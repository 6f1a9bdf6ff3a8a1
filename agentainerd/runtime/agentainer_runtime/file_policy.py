"""Which files the file tools may touch, beyond that they are in the workspace: the runtime's folder and git's are not theirs."""

from pathlib import Path

from agentainer_runtime.paths import PathRefused, canonical
from agentainer_runtime.tool import STATE_FOLDER


def check(workspace: Path, path: str, *, writes: bool = False) -> str:
    """Return where `path` is, relative to the workspace, with links resolved.

    Raises:
        PathRefused: it is outside, is the runtime's own (but for its outputs, to read), or would write what is git's.
    """
    place = canonical(workspace, path)
    parts = place.split("/")
    if parts[0] == STATE_FOLDER and (writes or parts[1:2] != ["outputs"]):
        raise PathRefused(f"{path} is the runtime's own")
    if writes and ".git" in parts:
        raise PathRefused(f"{path} is git's own: use the git tools, or git in run_command")
    return place
