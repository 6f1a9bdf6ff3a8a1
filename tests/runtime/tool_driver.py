"""Runs the runtime's tools as the runtime does: in a process of its own, on asyncio, without gevent.

Reads one call a line from stdin, as JSON, and answers each with a line. A call with `cancel_when` is cancelled when that file
is there, one with `cancel_after` N is done and cancelled after 0, 1, 2... N turns of the event loop. The environment of the tools is made from this process's own.
"""

import asyncio
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from agentainer_runtime import environment
from agentainer_runtime.policy import Mode, Policy
from agentainer_runtime.repository import Repository, RepositoryFailed
from agentainer_runtime.source import Source
from agentainer_runtime.tool import ToolContext


async def call(asked: dict[str, Any]) -> dict[str, Any]:
    workspace = Path(asked["workspace"])
    outputs = workspace / ".agentainer" / "outputs"
    outputs.mkdir(parents=True, exist_ok=True)
    module = importlib.import_module(f"agentainer_runtime.tools.{asked['tool']}")
    tool = module.tool(Policy(Mode(asked["mode"]))) if asked["tool"].startswith("run_") else module.tool()
    edits: list[Any] = []
    given = environment.for_tools({**os.environ, **asked["environment"]}, workspace)
    context = ToolContext(workspace, given, edits.append, outputs, time.monotonic() + asked["room_s"])
    while asked["begin_when"] and not Path(asked["begin_when"]).exists():
        await asyncio.sleep(0.01)
    began = time.monotonic()
    for turns in range(asked["cancel_after"]):
        await cancelled_after(turns, tool.run(asked["arguments"], context))
    work = asyncio.ensure_future(tool.run(asked["arguments"], context))
    if asked["cancel_after"]:
        work.cancel()
    if asked["cancel_when"]:
        while not Path(asked["cancel_when"]).exists() and not work.done():
            await asyncio.sleep(0.01)
        work.cancel()
    try:
        result = await work
    except asyncio.CancelledError:
        result = {"cancelled": True}
    return {
        "result": result,
        "edits": [[edit.path, edit.operation, edit.diff] for edit in edits],
        "took_s": time.monotonic() - began,
        "children": await children(),
    }


async def cancelled_after(turns: int, coroutine: Any) -> None:
    """Cancel a call when the event loop has come round that often."""
    work = asyncio.ensure_future(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    work.cancel()
    await asyncio.wait({work})


async def answered(asked: dict[str, Any]) -> dict[str, Any]:
    return await (prepare(asked) if asked["tool"] == "repository" else call(asked))


async def prepare(asked: dict[str, Any]) -> dict[str, Any]:
    workspace = Path(asked["workspace"])
    source = Source.from_environment(asked["environment"])
    assert source is not None
    (workspace / ".agentainer" / "outputs").mkdir(parents=True, exist_ok=True)
    given = environment.for_tools({**os.environ, **asked["environment"]}, workspace)
    repository = Repository(source, workspace=workspace, environment=given, clone_limit_s=asked["room_s"])
    before = repository.status()["state"]
    error = ""
    try:
        await repository.ready()
    except RepositoryFailed as exc:
        error = str(exc)
    return {"before": before, "status": repository.status(), "error": error, "children": await children()}


async def children() -> int:
    """How many children this process has, once those that were killed have been waited for."""
    for _ in range(200):
        found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        if not found:
            return 0
        await asyncio.sleep(0.01)
    return len(found)


async def main() -> None:
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        asked = json.loads(line)
        if isinstance(asked, list):
            answer: Any = await asyncio.gather(*map(answered, asked))
        else:
            answer = await answered(asked)
        print(json.dumps(answer, allow_nan=False), flush=True)


asyncio.run(main())
