"""The routes of the autonomous-agent document: one conversation, and streams of frames told apart by their `type`."""

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agentainer_runtime import agui
from agentainer_runtime.agent import Agent
from agentainer_runtime.bodies import body_of
from agentainer_runtime.endpoints import SCRIPT_PREFIX, NoEndpoint
from agentainer_runtime.event_log import encode
from agentainer_runtime.inputs import InvalidInput, user_message
from agentainer_runtime.runs import RunInput

THREAD = "bridge"
_BUSY = b'data: {"type":"error","error":"Agent is already executing a task"}\n\n'


def routes(agent: Agent) -> list[Route]:
    """Return them."""

    async def health(_: Request) -> Response:
        """GET /health."""
        return JSONResponse({"status": "ok", "workspace": str(agent.settings.workspace)})

    async def state(_: Request) -> Response:
        """GET /agent/status."""
        return JSONResponse(status(agent))

    async def execute(request: Request) -> Response:
        """POST /agent/execute."""
        return _stream(agent, _execution(agent, await body_of(request)))

    async def chat(request: Request) -> Response:
        """POST /agent/chat."""
        body = await body_of(request)
        if not agent.conversations.has(THREAD):
            raise InvalidInput("Agent not initialized. Call /agent/execute first.")
        message = body.get("message") if isinstance(body, dict) else None
        if not isinstance(message, str) or not message.strip():
            raise InvalidInput("Message required")
        return _stream(agent, RunInput(str(uuid.uuid4()), THREAD, [user_message(message)]))

    return [
        Route("/health", health, methods=["GET"]),
        Route("/agent/status", state, methods=["GET"]),
        Route("/agent/execute", execute, methods=["POST"]),
        Route("/agent/chat", chat, methods=["POST"]),
    ]


def status(agent: Agent) -> dict[str, Any]:
    """Return what the agent does and did: the document's fields, and what is this runtime's beside them."""
    activity = agent.activity
    thread_id = activity.thread_id or (THREAD if agent.conversations.has(THREAD) else "")
    own: dict[str, Any] = {"model": agent.settings.model, "runs": agent.runs.active, "tools": agent.toolbox.names}
    if agent.repository:
        own["repository"] = agent.repository.status()
    if not thread_id:
        return {"initialized": False, **own}
    history = [
        {"role": each["role"], "content": each.get("content") or ""}
        for each in agent.conversations.open(thread_id).messages
        if each["role"] in ("user", "assistant") and isinstance(each.get("content"), str)
    ]
    return {
        "initialized": True,
        "conversationHistory": history,
        "toolCallsCount": activity.tool_calls_count,
        "isExecuting": bool(agent.runs.active),
        **({"lastError": activity.last_error} if activity.last_error else {}),
        "toolCalls": [{**call, "arguments": _arguments(call["arguments"])} for call in activity.tool_calls],
        "filesEdited": list(activity.edits),
        **own,
    }


def _execution(agent: Agent, body: object) -> RunInput:
    fields = body if isinstance(body, dict) else {}
    task, history = fields.get("task"), fields.get("conversationHistory") or []
    key, model = (fields.get(name) or "" for name in ("apiKey", "model"))
    if not isinstance(task, str) or not task.strip():
        raise InvalidInput("Task required")
    if not isinstance(key, str) or not isinstance(model, str):
        raise InvalidInput("apiKey and model are texts")
    if not isinstance(history, list) or not all(_is_message(each) for each in history):
        raise InvalidInput("conversationHistory is a list of objects with role and content")
    asked = model or agent.settings.model
    if not asked.startswith(SCRIPT_PREFIX):
        try:
            agent.settings.endpoint(asked, key)
        except NoEndpoint as error:
            raise InvalidInput(str(error)) from error
    messages = [{"role": each["role"], "content": each["content"]} for each in history]
    return RunInput(str(uuid.uuid4()), THREAD, [*messages, user_message(task)], model=model, key=key, is_fresh=True)


def _stream(agent: Agent, given: RunInput) -> Response:
    async def frames() -> AsyncIterator[bytes]:
        if agent.runs.is_active(THREAD):
            yield _BUSY
            return
        agent.runs.start(given)
        projection = _Projection()
        async for each in agent.runs.events(given.run_id):
            if each is None:
                yield b": still here\n\n"
                continue
            for frame in projection.frames(json.loads(each[1])):
                if frame["type"] == "done":
                    frame["state"] = status(agent)
                yield b"data: %b\n\n" % encode(frame)

    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(frames(), media_type="text/event-stream", headers=headers)


class _Projection:
    """AG-UI's events as the document's frames."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._arguments: dict[str, str] = {}

    def frames(self, event: agui.Event) -> list[dict[str, Any]]:
        """Return the frames that an event becomes. What is asked at the end is text: what the user says next is the answer."""
        kind = event["type"]
        if kind == agui.TEXT_MESSAGE_CONTENT:
            return [{"type": "text", "content": event["delta"]}]
        if kind == agui.TOOL_CALL_START:
            self._names[event["toolCallId"]] = event["toolCallName"]
        if kind == agui.TOOL_CALL_ARGS:
            call_id = event["toolCallId"]
            self._arguments[call_id] = self._arguments.get(call_id, "") + event["delta"]
        if kind == agui.TOOL_CALL_END:
            return [self._tool("tool-call", event, args=_arguments(self._arguments.pop(event["toolCallId"], "")))]
        if kind == agui.TOOL_CALL_RESULT:
            return [self._tool("tool-result", event, result=_arguments(event["content"]))]
        if kind == agui.CUSTOM and event["name"] == "file.changed":
            return [{"type": "file-edit", "fileEdit": {**event["value"], "timestamp": int(time.time() * 1000)}}]
        if kind == agui.RUN_FINISHED:
            asked = (event.get("outcome") or {}).get("interrupts") or ()
            return [*({"type": "text", "content": each["message"]} for each in asked), {"type": "done"}]
        return [{"type": "error", "error": event["message"]}] if kind == agui.RUN_ERROR else []

    def _tool(self, kind: str, event: agui.Event, **fields: Any) -> dict[str, Any]:
        call_id = event["toolCallId"]
        return {"type": kind, "toolName": self._names.get(call_id, ""), "toolCallId": call_id, **fields}


def _arguments(text: str) -> Any:
    """Return JSON's value; the text itself where it is none."""
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and value.get("role") in ("user", "assistant", "system")
        and isinstance(value.get("content"), str)
    )
