"""noVNC and the way from its WebSocket to the screen, for whoever shows the port's token: that is the daemon."""

import asyncio
import contextlib
import hmac
import logging
import socket
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

log = logging.getLogger(__name__)
PORT = 6080
PAGES = Path("/usr/share/novnc")
_PAGE = "vnc.html?autoconnect=true&resize=scale&reconnect=true&reconnect_delay=1000"
_PIECE = 256 * 1024


def make_screen(token: str, vnc: Path, pages: Path = PAGES) -> ASGIApp:
    """Return the application. `vnc`: the socket of the VNC server; without a token nobody gets in."""

    async def start(_: Request) -> RedirectResponse:
        """GET /: the page, connected to the screen."""
        return RedirectResponse(_PAGE)

    async def watch(websocket: WebSocket) -> None:
        """The WebSocket of the page: bytes of VNC's protocol, both ways, until either side ends."""
        try:
            reader, writer = await asyncio.open_unix_connection(vnc)
        except OSError:
            await websocket.close(1013)
            return
        asked = websocket.scope.get("subprotocols", ())
        await websocket.accept(subprotocol="binary" if "binary" in asked else None)
        ways = {asyncio.create_task(_show(reader, websocket)), asyncio.create_task(_steer(websocket, writer))}
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            with contextlib.suppress(RuntimeError):  # the page closed it first
                await websocket.close()

    routes = [
        Route("/", start),
        WebSocketRoute("/websockify", watch),
        Mount("/", StaticFiles(directory=pages, check_dir=False)),
    ]
    return _Closed(Starlette(routes=routes), token)


class Screen(uvicorn.Server):
    """Serves it beside the runtime, in the same loop: signals are the runtime's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    @classmethod
    def of(cls, app: ASGIApp) -> "Screen":
        """Return the server of an application."""
        return cls(
            uvicorn.Config(
                app,
                loop="asyncio",
                http="h11",
                ws="wsproto",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    async def run_on(self, port: int) -> None:
        """Serve on a port until this is cancelled, which ends its connections. A port that is taken is only said in the log."""
        try:
            listener = socket.create_server(("", port), backlog=128)
        except OSError as error:
            log.error("the screen can't be served on port %d: %s", port, error)
            return
        with listener:
            await self.run_with(listener)

    async def run_with(self, listener: socket.socket) -> None:
        """Serve on a listening socket until this is cancelled, which ends its connections."""
        serving = asyncio.ensure_future(self.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        finally:
            self.should_exit = True
            await serving


class _Closed:
    """Lets pass who shows the token, of requests and WebSockets alike."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = b"".join(value for name, value in scope["headers"] if name == b"authorization")
        if self._expected and hmac.compare_digest(given, self._expected):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # before it was accepted: 403
        else:
            await PlainTextResponse("Open this port through agentainerd: agentainerctl open\n", 403)(
                scope, receive, send
            )


async def _show(reader: asyncio.StreamReader, websocket: WebSocket) -> None:
    while data := await reader.read(_PIECE):
        await websocket.send_bytes(data)


async def _steer(websocket: WebSocket, writer: asyncio.StreamWriter) -> None:
    while (message := await websocket.receive())["type"] == "websocket.receive":
        writer.write(message.get("bytes") or (message.get("text") or "").encode())
        await writer.drain()
