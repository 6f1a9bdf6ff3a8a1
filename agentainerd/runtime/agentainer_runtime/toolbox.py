"""All tools, found by entry point, and one call of one: whatever comes of it is an answer that the model can go on with."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from agentainer_runtime.provider import Call
from agentainer_runtime.tool import ENTRY_POINT_GROUP, FileEdit, NeedsApproval, Tool, ToolContext

log = logging.getLogger(__name__)
_MAX_RESULT_CHARS = 200_000
"""Of any tool, also those that cut nothing themselves."""


class Toolbox:
    """The tools of one container."""

    def __init__(
        self, tools: Iterable[Tool], *, workspace: Path, outputs: Path, environment: Mapping[str, str], timeout_s: float
    ) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._workspace = workspace
        self._outputs = outputs
        self._environment = environment
        self._timeout_s = timeout_s

    @property
    def names(self) -> list[str]:
        """What there is, by name."""
        return sorted(self._tools)

    def functions(self) -> list[dict[str, Any]]:
        """Return the tools as chat completions take them."""
        return [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.parameters},
            }
            for _, tool in sorted(self._tools.items())
        ]

    async def run(
        self, call: Call, report_edit: Callable[[FileEdit], None], allowed: Collection[str] | None = None
    ) -> dict[str, Any]:
        """Do what the model asked for and return the tool's answer; everything but a cancellation ends in one.

        `allowed`: the actions that a person allowed; None where nobody can be asked.

        Raises:
            NeedsApproval: a person has to allow it first.
        """
        tool = self._tools.get(call.name)
        if tool is None:
            return {"error": f"there is no tool {call.name!r}; there are: {', '.join(self.names)}"}
        try:
            arguments = json.loads(call.arguments or "{}")
        except ValueError as error:
            return {"error": f"the arguments are not JSON: {error}"}
        if not isinstance(arguments, dict):
            return {"error": "the arguments are not an object"}
        context = self.context(report_edit, allowed)
        try:
            async with asyncio.timeout(self._timeout_s):
                result = await tool.run(arguments, context)
        except NeedsApproval:
            raise
        except TimeoutError:
            return {"error": f"{call.name} took longer than {self._timeout_s:g} s and was ended"}
        except Exception as error:  # a tool may be anybody's: the boundary
            log.exception("a tool failed: %s", call.name)
            return {"error": f"{call.name} failed: {type(error).__name__}: {error}"}
        return result

    def context(self, report_edit: Callable[[FileEdit], None], allowed: Collection[str] | None = None) -> ToolContext:
        """Return what one call that begins now may use. `allowed`: see `run`."""

        def approve(action: str, question: str) -> None:
            if allowed is None or action not in allowed:
                raise NeedsApproval(action, question)

        return ToolContext(
            self._workspace,
            self._environment,
            report_edit,
            self._outputs,
            time.monotonic() + self._timeout_s,
            None if allowed is None else approve,
        )


def content_of(result: dict[str, Any]) -> str:
    """Return a tool's answer as the text that a model gets: JSON, cut where it is far too long."""
    try:
        text = json.dumps(result, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        return json.dumps({"error": f"the tool's answer is not JSON: {error}"})
    if len(text) <= _MAX_RESULT_CHARS:
        return text
    half = _MAX_RESULT_CHARS // 2
    note = f"{len(text)} characters, of which the first and the last {half} are shown"
    return json.dumps({"notice": note, "begin": text[:half], "end": text[-half:]}, ensure_ascii=False)


def find_tools() -> list[Tool]:
    """Return the tools that installed packages name; one that can't be loaded is logged and left out."""
    found: list[Tool] = []
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda each: each.name):
        try:
            found.append(point.load()())
        except Exception:  # somebody else's package
            log.exception("the tool %s (%s) cannot be loaded", point.name, point.value)
    return found
