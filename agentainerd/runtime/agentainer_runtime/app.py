"""The routes of the native tier, and those of the autonomous-agent document, over HTTP."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from agentainer_runtime import VERSION, bridge, websocket
from agentainer_runtime.agent import Agent
from agentainer_runtime.bodies import body_of
from agentainer_runtime.conversations import file_name
from agentainer_runtime.inputs import InvalidInput, run_input
from agentainer_runtime.runs import Stopping, UnknownRun

HEARTBEAT = b": still here\n"
"""A comment with one line end: a blank line after it would end an event that has an id, which some clients then parse."""
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

Handler = Callable[[Request], Awaitable[Response]]


def make_app(agent: Agent) -> ASGIApp:
    """Return the application that serves an agent."""

    async def ping(_: Request) -> Response:
        """GET /ping."""
        status = "HealthyBusy" if agent.runs.active else "Healthy"
        changed = int(agent.runs.changed_at)
        return JSONResponse(
            {
                "status": status,
                "time_of_last_update": changed,
                "bridge": "native",
                "version": VERSION,
                "model": agent.settings.model,
            }
        )

    async def invoke(request: Request) -> Response:
        """POST /invocations."""
        given = run_input(await body_of(request), request.headers)
        agent.runs.start(given)
        return _stream(agent, given.run_id, after=0)

    async def events(request: Request) -> Response:
        """GET /runs/{id}/events."""
        run_id = request.path_params["run_id"]
        if not agent.runs.knows(run_id):
            raise UnknownRun(run_id)
        after = request.query_params.get("after") or request.headers.get("last-event-id") or "0"
        return _stream(agent, run_id, after=int(after) if re.fullmatch(r"\d{1,15}", after) else 0)

    async def cancel(request: Request) -> Response:
        """POST /runs/{id}/cancel."""
        run_id = request.path_params["run_id"]
        agent.runs.cancel(run_id)
        return JSONResponse({"runId": run_id, "status": "cancelling"}, status_code=202)

    async def forget(request: Request) -> Response:
        """DELETE /conversations/{thread}."""
        thread_id = request.path_params["thread_id"]
        if agent.runs.is_active(thread_id):
            return JSONResponse({"error": "a run of this conversation is at work"}, status_code=409)
        agent.runs.forget(thread_id)
        agent.conversations.forget(file_name(thread_id))
        return Response(status_code=204)

    routes = [
        Route("/ping", ping, methods=["GET"]),
        Route("/invocations", invoke, methods=["POST"]),
        Route("/runs/{run_id}/events", events, methods=["GET"]),
        Route("/runs/{run_id}/cancel", cancel, methods=["POST"]),
        Route("/conversations/{thread_id}", forget, methods=["DELETE"]),
        *bridge.routes(agent),
        websocket.route(agent),
    ]
    errors = {
        InvalidInput: _failing(400),
        UnknownRun: _failing(404),
        Stopping: _failing(503),
        OSError: _failing(507),
        HTTPException: _http_error,
    }
    return _Cors(Starlette(routes=routes, exception_handlers=errors))


def _stream(agent: Agent, run_id: str, *, after: int) -> Response:
    async def frames() -> AsyncIterator[bytes]:
        async for each in agent.runs.events(run_id, after):
            yield HEARTBEAT if each is None else b"data: %b\nid: %d\n\n" % (each[1], each[0])

    headers = {**STREAM_HEADERS, "X-Run-Id": re.sub(r"[^\x21-\x7e]", "_", run_id)}
    return StreamingResponse(frames(), media_type="text/event-stream", headers=headers)


def _failing(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        text = f"there is no run {error}" if isinstance(error, UnknownRun) else str(error)
        return JSONResponse({"error": text}, status_code=status)

    return answer


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "Not found" if error.status_code == 404 else error.detail
    return JSONResponse({"error": text}, status_code=error.status_code, headers=error.headers)


class _Cors:
    """Pages may use the agent, as the autonomous-agent document has it; who may reach it is decided before it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers") or ())  # type: ignore[call-overload]
                message["headers"] = [*headers, (b"access-control-allow-origin", b"*")]
            await send(message)

        if scope["method"] == "OPTIONS":
            allowed = {
                "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
                "Access-Control-Allow-Headers": "Content-Type, Authorization",
            }
            await Response(headers=allowed)(scope, receive, sending)  # type: ignore[arg-type]
        else:
            await self._app(scope, receive, sending)  # type: ignore[arg-type]
