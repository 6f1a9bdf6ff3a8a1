"""The `Engine` protocol. Two work: Docker (`docker_engine.py`), and one in tests/fakes that runs agents as local servers.

One contract suite (tests/contract/test_engine.py) runs on both. Every method blocks its greenlet only, has a timeout
(ENGINE_TIMEOUT_S; longer where a grace or a stream says so), and raises our errors:

    NotFound("container" | "image", ...)   it is not there
    Conflict                               not in this state; name or port taken
    Unavailable, code ENGINE_UNAVAILABLE   the engine doesn't answer: with why, and what to do
    Failed                                 the engine tried and could not (start, build, pull): its own words in the message
"""

from collections.abc import Iterator, Mapping
from typing import IO, Protocol

from agentainerd.model.containers import (
    Container,
    ContainerSpec,
    EngineEvent,
    EngineInfo,
    Image,
    LogPiece,
    Networks,
    Progress,
)


class Engine(Protocol):
    """Containers, images and networks of one host."""

    def ping(self) -> None:
        """Return if the engine answers; raise Unavailable with the reason and a hint if not."""

    def info(self) -> EngineInfo:
        """Return what the engine says of itself."""

    def ensure_networks(self) -> Networks:
        """Make the agents' networks where they are missing. Safe to repeat."""

    def image(self, ref: str) -> Image:
        """Return a local image by name, tag or id. Raises NotFound."""

    def pull(self, ref: str) -> Iterator[Progress]:
        """Pull an image, telling each step. Raises NotFound (no such image), Unavailable (no registry, no disk)."""

    def build(self, context: IO[bytes], *, tag: str, dockerfile: str, args: Mapping[str, str]) -> Iterator[Progress]:
        """Build an image from a tar stream, telling each line. Raises Failed with the failing step and its last lines."""

    def create(self, spec: ContainerSpec) -> str:
        """Create a container, not running; return its id. Raises NotFound (image), Conflict (name)."""

    def start(self, container_id: str) -> Container:
        """Start it and return it with its address. A running one is returned unchanged. Raises Failed: with exit code and why."""

    def stop(self, container_id: str, *, grace_s: float) -> None:
        """SIGTERM, then after `grace_s` SIGKILL; return when it is down. Not running: nothing to do."""

    def pause(self, container_id: str) -> None:
        """Freeze all its processes."""

    def unpause(self, container_id: str) -> None:
        """Let them go on."""

    def remove(self, container_id: str) -> None:
        """Kill and remove it with its anonymous volumes. Not there: nothing to do."""

    def inspect(self, container_id: str) -> Container:
        """Return its state now. Raises NotFound."""

    def containers(self) -> list[Container]:
        """Return all containers with the label `agentainer.id`, in any state, in one call to the engine.

        The list API has neither exit code (but in its text) nor start time: those fields may be 0 here; `inspect` has them.
        """

    def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0.0,
        timestamps: bool = False,
    ) -> Iterator[LogPiece]:
        """Return its output, oldest first; with `follow`, until it ends. Close the iterator to stop. Raises NotFound."""

    def events(self) -> Iterator[EngineEvent]:
        """Return what happens to our containers, for ever: reconnects with back-off, and says `reconnected` after a gap."""

    def close(self) -> None:
        """Drop all connections; streams that run end."""
