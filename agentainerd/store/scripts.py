"""The Lua scripts of store/lua, as Redis gets them: header, limits, records.lua, fence.lua where it changes
something for a daemon, and the script itself.
"""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from agentainerd import defaults

_LIMITS = (
    "HISTORY_LENGTH",
    "MAX_FAILED",
    "MAX_FAILED_BYTES",
    "MAX_COMPLETED",
    "MAX_COMPLETED_BYTES",
    "MAX_RETRY_AFTER_S",
)


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name by which Redis finds it. `is_fenced`: its last argument is the epoch of who runs it."""

    source: bytes
    sha: str
    is_fenced: bool = False


def load(name: str, *, flags: str = "", is_fenced: bool = False) -> Script:
    """Return the script of store/lua/`name`.lua. `is_fenced`: it is refused where another epoch has begun.

    `flags` is "" for what Redis refuses, before anything is written, where it is out of memory; "allow-oom" for what
    frees memory; "no-writes" for what only reads.
    """
    folder = files("agentainerd.store") / "lua"
    header = f"#!lua flags={flags}\n" if flags else "#!lua\n"
    limits = "".join(f"local {limit} = {getattr(defaults, limit)}\n" for limit in _LIMITS)
    fence = (folder / "fence.lua").read_text() if is_fenced else ""
    text = header + limits + (folder / "records.lua").read_text() + fence + (folder / f"{name}.lua").read_text()
    source = text.encode()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest(), is_fenced)
