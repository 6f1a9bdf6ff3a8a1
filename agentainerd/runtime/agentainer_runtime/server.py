"""Serving: from the settings to a listening socket, and from SIGTERM to the end of every run."""

import asyncio
import logging
import signal
import socket
from types import FrameType

import uvicorn

from agentainer_runtime.agent import Agent
from agentainer_runtime.app import make_app
from agentainer_runtime.desktop.programs import GUI_TOKEN, SCREEN_SOCKET, Desktop, programs
from agentainer_runtime.desktop.screen import PORT, Screen, make_screen
from agentainer_runtime.settings import Settings

log = logging.getLogger(__name__)
_LAST_ANSWERS_S = 1


class Server(uvicorn.Server):
    """Ends the runs before it ends the connections: their readers get the last event."""

    def __init__(self, config: uvicorn.Config, agent: Agent) -> None:
        super().__init__(config)
        self._agent = agent
        self._stopping: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal changes nothing. Called in the main thread, between two steps of the loop."""
        if self._stopping is None:
            log.info("stopping: %s", signal.Signals(sig).name)
            self._stopping = asyncio.get_running_loop().create_task(self._stop())

    async def _stop(self) -> None:
        await self._agent.close()
        self.should_exit = True


async def serve(settings: Settings) -> None:
    """Serve until a signal ends it.

    Raises:
        OSError: the workspace can't be written, or the port is taken.
    """
    agent = Agent(settings)
    ended = agent.recover()
    if ended:
        log.warning("%d runs were interrupted by the end of the container before", ended)
    if agent.repository:
        agent.repository.begin()
    desktop = _desktop(settings)
    config = uvicorn.Config(
        make_app(agent),
        loop="asyncio",
        http="h11",
        ws="wsproto",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_LAST_ANSWERS_S,
        timeout_keep_alive=75,
    )
    with socket.create_server(("", settings.port), backlog=1024) as listener:
        port, tools = listener.getsockname()[1], ", ".join(agent.toolbox.names) or "none"
        log.info("serving on port %d, model: %s, tools: %s", port, settings.model or "none", tools)
        try:
            await Server(config, agent).serve(sockets=[listener])
        finally:
            for task in desktop:
                task.cancel()
            await asyncio.gather(*desktop, return_exceptions=True)


def _desktop(settings: Settings) -> list[asyncio.Task[None]]:
    """Start the programs of the desktop and what shows it, where the image has one."""
    if not settings.screen:
        return []
    given = programs(settings.screen, settings.workspace, settings.environment)
    app = make_screen(settings.environment.get(GUI_TOKEN, ""), SCREEN_SOCKET)
    desktop = Desktop(given, settings.tool_environment())
    return [asyncio.create_task(desktop.run()), asyncio.create_task(Screen.of(app).run_on(PORT))]
