"""The Lua scripts of store/lua, as Redis gets them: header, limits, records.lua, and the script itself."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from agentainerd import defaults

_LIMITS = ("HISTORY_LENGTH", "MAX_FAILED", "MAX_FAILED_BYTES", "MAX_COMPLETED", "MAX_COMPLETED_BYTES")


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the name by which Redis finds it."""

    source: bytes
    sha: str


def load(name: str, *, flags: str = "") -> Script:
    """Return the script of store/lua/`name`.lua.

    `flags` is "" for what Redis refuses, before anything is written, where it is out of memory; "allow-oom" for what
    frees memory; "no-writes" for what only reads.
    """
    folder = files("agentainerd.store") / "lua"
    header = f"#!lua flags={flags}\n" if flags else "#!lua\n"
    limits = "".join(f"local {limit} = {getattr(defaults, limit)}\n" for limit in _LIMITS)
    text = header + limits + (folder / "records.lua").read_text() + (folder / f"{name}.lua").read_text()
    source = text.encode()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
