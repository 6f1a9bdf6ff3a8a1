"""How plans and applies look to people: what will be done to each agent and why, and what was."""

import json
import time
from collections.abc import Iterator
from typing import Any

from agentainerctl import output
from agentainerctl.output import Column, paint, plain
from agentainerctl.progress import Region

Step = dict[str, Any]

_SIGNS = {"create": "+", "replace": "~", "update": "~", "start": ">", "remove": "-"}
_COLOURS = {"create": "green", "replace": "yellow", "update": "yellow", "start": "green", "remove": "red"}
_DONE = {
    "create": "created",
    "replace": "replaced",
    "update": "updated",
    "start": "started",
    "keep": "unchanged",
    "remove": "removed",
}
_SIZES = ("memory_limit", "max_pending_bytes")
_FRAMES = "|/-\\"
_MAX_SHOWN = 12
RESULT_COLUMNS = (
    Column("NAME"),
    Column("ID"),
    Column("IMAGE", can_shrink=True),
    Column("ACTION"),
    Column("RESULT", can_shrink=True),
)


def show_plan(plan: dict[str, Any]) -> None:
    """Print what would be done: each agent with what differs, then the counts."""
    import sys

    steps = plan["steps"]
    width = max((len(step["agent"]) for step in steps if step["action"] != "keep"), default=0)
    for step in steps:
        action = step["action"]
        if action == "keep":
            continue
        line = f"{_SIGNS[action]} {plain(step['agent']):{width}}  {_what(step)}"
        output.say(paint(line.rstrip(), _COLOURS[action], sys.stdout))
        for change in step["changes"]:
            output.say(f"    {plain(change['field'])}: {_difference(change)}")
    output.say(_counts(steps))
    if plan["stray"]:
        output.say(f"Not named any more, and kept (--prune removes them): {plain(', '.join(plan['stray']))}")


def differs(plan: dict[str, Any]) -> bool:
    """Return whether there is anything to do."""
    return any(step["action"] != "keep" for step in plan["steps"])


def show_result(result: dict[str, Any], seconds: float) -> None:
    """Print what was done, agent by agent."""
    rows = [
        [each["agent"], each.get("id") or "-", each.get("image") or "-", each["action"], _outcome(each)]
        for each in result["agents"]
    ]
    output.say("Deployment Summary:")
    colours = {plain(_outcome(each)): "red" if each["stage"] == "failed" else "" for each in result["agents"]}
    output.table(RESULT_COLUMNS, rows, colours=colours)
    done = sum(1 for each in result["agents"] if _is_done(each) and each["action"] != "remove")
    output.say(f"Total agents deployed: {done} ({seconds:.1f} s)")


class Progress:
    """What goes on while agents are applied: on a terminal those under way in changing lines, elsewhere a line for each end."""

    def __init__(self, total: int, *, is_silent: bool) -> None:
        self._region = Region(is_silent=is_silent)
        self._total = total
        self._began = time.monotonic()
        self._since: dict[str, float] = {}
        self._now: dict[str, Step] = {}
        self._ended = 0

    def take(self, progress: Step) -> None:
        """Show a step's new stage."""
        name, stage = progress["agent"], progress["stage"]
        now = time.monotonic()
        if stage in ("done", "failed", "skipped"):
            self._ended += 1
            took_s = now - self._since.pop(name, now)
            self._now.pop(name, None)
            if progress["action"] != "keep" or stage == "failed":
                self._region.say(f"  {_ended_line(progress, took_s)}")
        else:
            if stage != "waiting":
                self._since.setdefault(name, now)
            self._now[name] = progress
        self.draw()

    def draw(self) -> None:
        """Show how long what is under way takes."""
        now = time.monotonic()
        frame = _FRAMES[int((now - self._began) * 5) % len(_FRAMES)]
        lines = [f"{frame} {self._ended} of {self._total} agents ({now - self._began:.0f} s)"]
        active = [each for name, each in self._now.items() if name in self._since]
        for each in active[:_MAX_SHOWN]:
            seconds = now - self._since[each["agent"]]
            lines.append(f"    {plain(each['agent'])}: {_doing(each)} ({seconds:.0f} s)")
        self._region.show(lines)

    def clear(self) -> None:
        """Take the lines away."""
        self._region.clear()


def _what(step: Step) -> str:
    action = step["action"]
    image = f"from {plain(step['image'])}" + (", which has to be built or pulled" if step.get("lacks_image") else "")
    texts = {
        "create": f"create {image}",
        "replace": "replace: "
        + ("it is stopped first" if step.get("stops_first") else "a new container takes over when it is ready"),
        "update": "update in place",
        "start": "start",
        "remove": "remove, with its container and its requests",
    }
    return texts[action] + (", and start it" if step["starts"] and action in ("replace", "update") else "")


def _difference(change: dict[str, Any]) -> str:
    before, after = (_shown(change["field"], change[side]) for side in ("before", "after"))
    if change["before"] is None:
        return f"{after} (new)"
    if change["after"] is None:
        return f"{before} -> (none)"
    if before == after:
        return f"{before} (changed)"
    return f"{before} -> {after}"


def _shown(field: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int) and field in _SIZES:
        from agentainerctl.agents import memory

        return memory({"memory_limit": value})
    if isinstance(value, int) and field == "cpu_limit":
        return f"{value / 1e9:g} cores" if value else "no limit"
    if isinstance(value, str) and value:
        return plain(value)
    return plain(json.dumps(value, ensure_ascii=False))


def _counts(steps: list[Step]) -> str:
    words = {"create": "to create", "replace": "to replace", "update": "to update", "start": "to start",
             "remove": "to remove", "keep": "unchanged"}  # fmt: skip
    told = [f"{count} {word}" for action, word in words.items() if (count := _count(steps, action))]
    return f"Plan: {', '.join(told)}."


def _count(steps: list[Step], action: str) -> int:
    return sum(1 for step in steps if step["action"] == action)


def _doing(progress: Step) -> str:
    if progress["stage"] == "starting":
        return "waiting until it is ready"
    return {
        "create": "creating", "replace": "replacing", "update": "updating", "start": "starting", "remove": "removing",
        "keep": "looking",
    }[progress["action"]]  # fmt: skip


def _ended_line(progress: Step, took_s: float) -> str:
    name = plain(progress["agent"])
    ident = f" (ID: {plain(progress['id'])})" if progress.get("id") else ""
    if progress["stage"] == "done":
        return f"✓ {name}{ident} {_DONE[progress['action']]} in {took_s:.1f} s"
    sign = "✗" if progress["stage"] == "failed" else "-"
    return f"{sign} {name} {progress['stage']}: {plain(progress['message'])}"


def _outcome(each: Step) -> str:
    if _is_done(each):
        return _DONE[each["action"]]
    return f"{each['stage']}: {each['message']}"


def _is_done(each: Step) -> bool:
    """It was done; or there was nothing to do, also where what it depends on failed."""
    return bool(each["stage"] == "done" or (each["action"] == "keep" and each["stage"] == "skipped"))


def failures(result: dict[str, Any]) -> Iterator[Step]:
    """Return what failed, with its error."""
    return (each for each in result["agents"] if each["stage"] == "failed")
