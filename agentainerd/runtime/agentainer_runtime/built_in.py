"""What the runtime's own tools have in common: arguments held against the schema, and every failure told as an answer."""

import asyncio
import contextlib
import errno
import json
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from agentainer_runtime.paths import PathRefused
from agentainer_runtime.tool import ToolContext

T = TypeVar("T")
KINDS: dict[str, type] = {"string": str, "integer": int, "boolean": bool, "number": float, "array": list}


class ToolFailed(Exception):
    """What was asked for can't be done; the text says what, why, and what to do instead."""


@dataclass(frozen=True)
class BuiltIn:
    """A tool of ours. `properties` are JSON schemas, with `default` where an argument may be left out."""

    name: str
    description: str
    properties: dict[str, dict[str, Any]]
    work: Callable[[dict[str, Any], ToolContext], Awaitable[dict[str, Any]]]

    @property
    def parameters(self) -> dict[str, Any]:
        """JSON schema of the arguments."""
        required = [name for name, schema in self.properties.items() if "default" not in schema]
        shown = {
            name: {key: value for key, value in schema.items() if key != "default" or value is not None}
            for name, schema in self.properties.items()
        }
        return {"type": "object", "properties": shown, "required": required, "additionalProperties": False}

    async def run(self, arguments: dict[str, Any], context: ToolContext) -> dict[str, Any]:
        """Do it. Whatever is wrong with the arguments, the files or the programs is `{"error": text}`."""
        try:
            return await self.work(self._checked(arguments), context)
        except (ToolFailed, PathRefused) as exc:
            return {"error": str(exc)}
        except OSError as exc:
            return {"error": describe(exc)}

    def _checked(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return a value for each property. What models get wrong harmlessly is taken: null, numbers as text, other names."""
        checked = {}
        for name, schema in self.properties.items():
            value = arguments.get(name)
            if value is None:
                if "default" not in schema:
                    given = ascii(sorted(arguments)) if arguments else "none"
                    raise ToolFailed(
                        f"{name} is missing; the arguments are: {', '.join(self.properties)}; given: {given}"
                    )
                checked[name] = schema["default"]
                continue
            checked[name] = self._value(name, schema, value)
        return checked

    def _value(self, name: str, schema: dict[str, Any], value: Any) -> Any:
        kind = schema["type"]
        if not _is_utf8(value):
            raise ToolFailed(f"{name} has characters that UTF-8 does not have (lone surrogates)")
        if kind != "string" and isinstance(value, str):
            try:
                value = json.loads(value.lower() if kind == "boolean" else value)
            except ValueError:
                raise ToolFailed(f"{name} is {value[:60]!r}: it must be of type {kind}") from None
        if kind in ("integer", "number") and isinstance(value, float | int) and not isinstance(value, bool):
            value = int(value) if kind == "integer" and value == value // 1 else value
        is_number = kind in ("integer", "number")
        if not isinstance(value, (int, float) if kind == "number" else KINDS[kind]) or (
            is_number and isinstance(value, bool)
        ):
            raise ToolFailed(f"{name} is {str(value)[:60]!r}: it must be of type {kind}")
        if is_number and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
            raise ToolFailed(f"{name} is {value}: it must be from {schema.get('minimum')} to {schema.get('maximum')}")
        if isinstance(value, list) and not all(isinstance(item, str) for item in value):
            raise ToolFailed(f"{name} has something else than text in it")
        return value


def _is_utf8(value: Any) -> bool:
    """Whether it can be written anywhere: JSON lets a text have halves of characters."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def describe(exc: OSError) -> str:
    """Return an error of the system as a sentence: what, and to which file."""
    reasons = {
        errno.ENOENT: "does not exist",
        errno.EACCES: "may not be touched: permission denied",
        errno.EPERM: "may not be touched: operation not permitted",
        errno.ENOTDIR: "is not a folder, or one above it is not",
        errno.EISDIR: "is a folder",
        errno.EROFS: "is on a read-only file system: only the workspace and /tmp can be written",
        errno.ELOOP: "has too many symbolic links on its way",
        errno.ENAMETOOLONG: "is too long a name",
        errno.ENOSPC: "could not be written: there is no room on the disk",
        errno.E2BIG: "has more in its arguments than a program can be given: write it to a file",
        errno.EDQUOT: "could not be written: the quota of the disk is used up",
    }
    if not exc.errno:
        return str(exc)
    reason = reasons.get(exc.errno) or os.strerror(exc.errno)
    return f"{os.fsdecode(exc.filename) if isinstance(exc.filename, str | bytes) else 'it'} {reason}"


@contextlib.contextmanager
def about(path: str) -> Iterator[None]:
    """Have errors of the system name `path`, as it was asked for, and not what lies behind it."""
    try:
        yield
    except OSError as exc:
        exc.filename, exc.filename2 = path, None
        raise


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Call what blocks in a thread. A cancellation waits for it: when that leaves here, nothing is at work any more."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
