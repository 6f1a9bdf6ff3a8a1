"""The WebSocket of the autonomous-agent document: requests `{"id", "type", "payload"}`, each with one answer of the same id.

What it can do are the agent's tools, under their rules, a push of what was committed, what linters say, and a list of what pages
reported. Beside answers there are changes of the files that a client watches: `{"id", "type": "fileChanged", "payload"}`, with
the id of the request for it. A request of a client that leaves is ended, and nothing is watched for it any more.
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

from agentainer_runtime import agui, lint
from agentainer_runtime.agent import Agent
from agentainer_runtime.built_in import ToolFailed, describe
from agentainer_runtime.event_log import encode
from agentainer_runtime.file_watch import FileWatch, TooManyWatched
from agentainer_runtime.paths import PathRefused
from agentainer_runtime.provider import Call
from agentainer_runtime.repository import RepositoryFailed
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
        self._watch = FileWatch(agent.settings.workspace)
        self._watchers: dict[str, object] = {}
        self._own: dict[str, Callable[[dict[str, Any], object], Awaitable[Any]]] = {
            "fileTree": self._tree,
            "gitPush": self._push,
            "getLintErrors": self._lint,
            "watchFile": self._watch_file,
            "unwatchFile": self._unwatch_file,
            "getConsoleLogs": self._get_logs,
            "clearConsoleLogs": self._clear_logs,
            "reportError": self._report,
        }

    async def serve(self) -> None:
        teller = asyncio.create_task(self._tell_changes())
        try:
            while True:
                await self._take(await self._socket.receive_text())
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary message
            pass
        finally:
            tasks = {teller, *self._tasks}
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            self._watch.close()

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
            await self._send({"type": "pong", "timestamp": _now_ms()})
        elif len(self._tasks) >= _MAX_AT_ONCE:
            error = f"there are {_MAX_AT_ONCE} requests at work already"
            await self._send({"id": message.get("id"), "success": False, "error": error})
        else:
            task = asyncio.create_task(self._answer(message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: dict[str, Any]) -> None:
        try:
            result = await self._do(message, message.get("payload") or {})
        except (ToolFailed, PathRefused, TooManyWatched, RepositoryFailed) as error:
            result = {"error": str(error)}
        except OSError as error:
            result = {"error": describe(error)}
        if isinstance(result, dict) and "error" in result:
            await self._send({"id": message.get("id"), "success": False, "error": str(result["error"])})
        else:
            await self._send({"id": message.get("id"), "success": True, "data": result})

    async def _do(self, message: dict[str, Any], payload: object) -> Any:
        kind = message.get("type")
        if not isinstance(payload, dict):
            return {"error": "the payload is not an object"}
        if not isinstance(kind, str):
            kind = ""
        if kind in self._own:
            return await self._own[kind](payload, message.get("id"))
        if kind in TOOLS:
            return await self._call(TOOLS[kind], payload)
        return {"error": f"there is no type {kind!r}; there are: {', '.join(sorted({*TOOLS, *self._own}))}"}

    async def _call(self, tool: str, payload: dict[str, Any]) -> dict[str, Any]:
        return await self._agent.toolbox.run(Call("", tool, json.dumps(payload)), self._edited)

    def _edited(self, edit: FileEdit) -> None:
        value = {"path": edit.path, "operation": edit.operation, "diff": edit.diff}
        self._agent.activity.note(agui.custom("file.changed", value))

    async def _push(self, payload: dict[str, Any], _: object) -> Any:
        """Push what was committed to the repository's remote."""
        if self._agent.repository is None:
            hint = "deploy it with --repo, or push with runCommand where no credential is asked for"
            return {"error": f"this agent has no repository of its own: {hint}"}
        return await self._agent.repository.push(_text(payload, "branch", ""))

    async def _lint(self, payload: dict[str, Any], _: object) -> Any:
        """Return what linters say of a file, or of a folder and all below it."""
        return await lint.find_errors(_text(payload, "path", "."), self._agent.toolbox.context(self._edited))

    async def _watch_file(self, payload: dict[str, Any], request_id: object) -> Any:
        """Tell this client the changes of a file, or of what is directly in a folder, from now on."""
        path = _text(payload, "path")
        self._watchers[path] = request_id
        return {"watching": path, "exists": await self._watch.add(path)}

    async def _unwatch_file(self, payload: dict[str, Any], _: object) -> Any:
        path = _text(payload, "path")
        self._watchers.pop(path, None)
        return {"path": path, "wasWatched": await self._watch.remove(path)}

    async def _tell_changes(self) -> None:
        async for change in self._watch.changes():
            payload = {"path": change.path, "operation": change.operation, "timestamp": _now_ms()}
            await self._send({"id": self._watchers.get(change.watched), "type": "fileChanged", "payload": payload})

    async def _tree(self, payload: dict[str, Any], _: object) -> Any:
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

    async def _get_logs(self, payload: dict[str, Any], _: object) -> Any:
        return {"logs": list(self._logs)}

    async def _clear_logs(self, payload: dict[str, Any], _: object) -> Any:
        self._logs.clear()
        return {"cleared": True}

    async def _report(self, payload: dict[str, Any], _: object) -> Any:
        self._logs.append({"timestamp": _now_ms(), "error": payload})
        return {"reported": True}

    async def _send(self, message: dict[str, Any]) -> None:
        with suppress(RuntimeError, WebSocketDisconnect, OSError):  # the client went away meanwhile
            await self._socket.send_text(encode(message).decode())


def _text(payload: dict[str, Any], name: str, default: str | None = None) -> str:
    """Return a field of a payload. Raises ToolFailed: it is missing, or no text."""
    value = payload.get(name, default)
    if not isinstance(value, str):
        raise ToolFailed(f"{name} is missing, or is no text")
    return value


def _now_ms() -> int:
    return int(time.time() * 1000)
