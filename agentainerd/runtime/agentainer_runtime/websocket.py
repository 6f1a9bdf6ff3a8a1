"""The WebSocket of the autonomous-agent document: requests `{"id", "type", "payload"}`, each with one answer of the same id.

What it can do are the agent's tools, under their rules, and a list of what pages reported. A request of a client that leaves is
ended.
"""

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from agentainer_runtime import agui
from agentainer_runtime.agent import Agent
from agentainer_runtime.event_log import encode
from agentainer_runtime.provider import Call
from agentainer_runtime.tool import FileEdit

TOOLS = {
    "readFile": "read_file",
    "writeFile": "write_file",
    "editFile": "edit_file",
    "listFiles": "list_directory",
    "searchCode": "search_files",
    "runCommand": "run_command",
    "gitStatus": "git_status",
    "gitDiff": "git_diff",
    "gitLog": "git_log",
    "gitCommit": "git_commit",
}
"""Type of a request: the tool that does it; the payload is what it is called with."""
_MAX_AT_ONCE = 8
_MAX_LOGS = 500
_MAX_TREE = 2000


def route(agent: Agent) -> WebSocketRoute:
    """Return the route, which is any path."""
    logs: deque[dict[str, Any]] = deque(maxlen=_MAX_LOGS)

    async def serve(socket: WebSocket) -> None:
        await socket.accept()
        await _Connection(agent, socket, logs).serve()

    return WebSocketRoute("/{path:path}", serve)


class _Connection:
    """One client. Requests are worked on side by side, and answered as they are done."""

    def __init__(self, agent: Agent, socket: WebSocket, logs: deque[dict[str, Any]]) -> None:
        self._agent = agent
        self._socket = socket
        self._logs = logs
        self._tasks: set[asyncio.Task[None]] = set()
        self._own: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "fileTree": self._tree,
            "getConsoleLogs": self._get_logs,
            "clearConsoleLogs": self._clear_logs,
            "reportError": self._report,
        }

    async def serve(self) -> None:
        try:
            while True:
                await self._take(await self._socket.receive_text())
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _take(self, text: str) -> None:
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        if not isinstance(message, dict):
            await self._send(
                {"id": None, "success": False, "error": "a message is a JSON object with id, type and payload"}
            )
        elif message.get("type") == "ping":
            await self._send({"type": "pong", "timestamp": int(time.time() * 1000)})
        elif len(self._tasks) >= _MAX_AT_ONCE:
            error = f"there are {_MAX_AT_ONCE} requests at work already"
            await self._send({"id": message.get("id"), "success": False, "error": error})
        else:
            task = asyncio.create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: dict[str, Any]) -> None:
        result = await self._do(message.get("type"), message.get("payload") or {})
        if isinstance(result, dict) and "error" in result:
            await self._send({"id": message.get("id"), "success": False, "error": str(result["error"])})
        else:
            await self._send({"id": message.get("id"), "success": True, "data": result})

    async def _do(self, kind: object, payload: object) -> Any:
        if not isinstance(payload, dict):
            return {"error": "the payload is not an object"}
        if kind in self._own:
            return await self._own[str(kind)](payload)
        if kind in TOOLS:
            return await self._call(TOOLS[str(kind)], payload)
        return {"error": f"there is no type {kind!r}; there are: {', '.join(sorted({*TOOLS, *self._own}))}"}

    async def _call(self, tool: str, payload: dict[str, Any]) -> dict[str, Any]:
        def edited(edit: FileEdit) -> None:
            value = {"path": edit.path, "operation": edit.operation, "diff": edit.diff}
            self._agent.activity.note(agui.custom("file.changed", value))

        return await self._agent.toolbox.run(Call("", tool, json.dumps(payload)), edited)

    async def _tree(self, payload: dict[str, Any]) -> Any:
        """Return the files and folders below a folder, as paths; not what is in hidden ones."""
        found: list[dict[str, Any]] = []
        waiting = [str(payload.get("path") or ".")]
        while waiting and len(found) < _MAX_TREE:
            folder = waiting.pop(0)
            listed = await self._call("list_directory", {"path": folder})
            if "error" in listed:
                return listed
            for entry in listed["entries"]:
                path = entry["name"] if folder == "." else f"{folder}/{entry['name']}"
                found.append({"path": path, "type": entry["type"]})
                if entry["type"] == "directory" and not entry["name"].startswith("."):
                    waiting.append(path)
        return {"files": found[:_MAX_TREE], "truncated": bool(waiting) or len(found) > _MAX_TREE}

    async def _get_logs(self, _: dict[str, Any]) -> Any:
        return {"logs": list(self._logs)}

    async def _clear_logs(self, _: dict[str, Any]) -> Any:
        self._logs.clear()
        return {"cleared": True}

    async def _report(self, payload: dict[str, Any]) -> Any:
        self._logs.append({"timestamp": int(time.time() * 1000), "error": payload})
        return {"reported": True}

    async def _send(self, message: dict[str, Any]) -> None:
        with suppress(RuntimeError, WebSocketDisconnect, OSError):  # the client went away meanwhile
            await self._socket.send_text(encode(message).decode())
