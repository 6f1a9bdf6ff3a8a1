"""The `Engine` protocol. Two work: Docker (`docker_engine.py`), and one in tests/fakes that runs agents as local servers.

One contract suite (tests/contract/test_engine.py) runs on both. Every method blocks its greenlet only, has a timeout
(ENGINE_TIMEOUT_S; longer where a grace or a stream says so), and raises our errors:

    NotFound("container" | "image", ...)   it is not there
    InvalidParameter                       the engine refuses a value, such as a host path that does not exist
    Conflict                               not in this state; name taken
    Unavailable, code ENGINE_UNAVAILABLE   the engine doesn't answer: with why, and what to do
    Unavailable, code NO_SPACE             the engine's disk is full
    Failed                                 the engine tried and could not (start, build, pull): its own words in the message
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Protocol, TypeVar

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
from agentainerd.model.metrics import Usage

Item = TypeVar("Item", covariant=True)


class Stream(Iterator[Item], Protocol[Item]):
    """What an engine tells piece by piece. Whoever got it closes it, also when it was read to its end."""

    def close(self) -> None:
        """End it, from any greenlet: one that waits in `next` gets StopIteration. Safe to repeat."""


class Attached(Protocol):
    """A command under way in a container. One greenlet reads and closes; any may do the rest."""

    def read(self, timeout_s: float) -> list[LogPiece]:
        """Return what it wrote since, [] at its end. Raises DeadlineExceeded, after which nothing more can be read."""

    def send(self, data: bytes) -> None:
        """Write to its input. Raises Unavailable: it takes no more."""

    def end_input(self) -> None:
        """Close its input."""

    def exit_code(self) -> int | None:
        """Return how it ended (126 or 127: it can't be run, or is not there); None: it has not. Raises NotFound, Unavailable."""

    def signal(self, name: str) -> None:
        """Send a signal ("TERM", "KILL") to its process group, once it has said anything. Raises nothing."""

    def abort(self) -> None:
        """Hear nothing more of it: a read under way ends."""

    def close(self) -> None:
        """Let go of it; it goes on."""


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

    def pull(self, ref: str) -> Stream[Progress]:
        """Pull an image, telling each step; the last has its id.

        Errors come from the call or while it is read: NotFound (no such image, or it needs a login), Unavailable (code
        REGISTRY_UNREACHABLE or NO_SPACE), TooManyRequests (code REGISTRY_RATE_LIMIT).
        """

    def build(self, context: IO[bytes], *, tag: str, dockerfile: str, args: Mapping[str, str]) -> Stream[Progress]:
        """Build an image from a tar stream, telling each line; the last has its id.

        Errors come from the call or while it is read: Failed (code BUILD_FAILED; details `step` and `lines`, the last
        30), Unavailable. The context is read by the call, and not closed.
        """

    def create(self, spec: ContainerSpec) -> str:
        """Create a container, not running; return its id.

        Raises NotFound (image), Conflict (code CONTAINER_NAME_TAKEN), InvalidParameter (a volume's host path is not there,
        more CPUs than the host has), Failed (code AGENT_START_FAILED, as `start`: the command is not in the image).
        """

    def start(self, container_id: str) -> Container:
        """Start it and return it with its address. A running one is returned unchanged.

        Raises Failed (code AGENT_START_FAILED; details `exit_code`, 126 or 127 for a command that can't be run), NotFound,
        Conflict (it is paused). A program that exits at once is no failure: what is returned may be `exited` already.
        """

    def stop(self, container_id: str, *, grace_s: float) -> None:
        """SIGTERM, then after `grace_s` SIGKILL; return when it is down. Paused: it goes on first. Not running: nothing to do."""

    def pause(self, container_id: str) -> None:
        """Freeze all its processes. Raises Conflict: it does not run, or is paused already."""

    def unpause(self, container_id: str) -> None:
        """Let them go on. Raises Conflict: it is not paused."""

    def remove(self, container_id: str) -> None:
        """Kill and remove it with its anonymous volumes. Not there: nothing to do."""

    def limit(self, container_id: str, *, cpu_limit: int, memory_limit: int) -> None:
        """Give a container other limits, while it runs too: nano-CPUs and bytes; 0 leaves one as it is.

        Raises NotFound, InvalidParameter (more CPUs than the host has).
        """

    def rename(self, container_id: str, name: str) -> None:
        """Call it otherwise. Raises NotFound, Conflict (code CONTAINER_NAME_TAKEN)."""

    def inspect(self, container_id: str) -> Container:
        """Return its state now. Raises NotFound."""

    def containers(self) -> list[Container]:
        """Return all containers with the label `agentainer.id`, in any state, in one call to the engine.

        The list API has neither exit code (but in its text) nor start time: those fields may be 0 here; `inspect` has them.
        """

    def execute(self, container_id: str, command: Sequence[str], *, timeout_s: float) -> int:
        """Run a command in a running container and return its exit code (126 or 127: it can't be run, or is not there).

        Raises NotFound, Conflict (it does not run), DeadlineExceeded: it takes longer than `timeout_s`. It can't be ended
        then; until it ends by itself, further ones in this container are DeadlineExceeded at once.
        """

    def attach(self, container_id: str, command: Sequence[str], environment: Mapping[str, str]) -> Attached:
        """Start a command in a running container, with more variables, and speak with it. The image needs a shell.

        Raises NotFound, Conflict (it does not run), Unavailable.
        """

    def usages(self, container_ids: Sequence[str]) -> dict[str, Usage]:
        """Return what each of these containers has used in this run; those that do not run are left out.

        For one caller at a time. It raises nothing for a container, or an engine, that can't be asked: it is left out too.
        """

    def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0.0,
        timestamps: bool = False,
    ) -> Stream[LogPiece]:
        """Return its output, oldest first; with `follow`, until the container's run ends, however long it is silent.

        `tail`: the last lines only; `since`: epoch seconds. Raises NotFound, at once.
        """

    def volume_folder(self, name: str) -> str:
        """Return where on its host the engine keeps a named volume. Raises NotFound("volume")."""

    def create_volume(self, name: str) -> str:
        """Create a named volume, empty, and return where it is kept. Raises Conflict (code VOLUME_EXISTS)."""

    def remove_volume(self, name: str) -> None:
        """Remove a named volume with what is in it. Raises Conflict: a container has it. Not there: nothing to do."""

    def read_volume(self, source: str, image: str) -> Stream[bytes]:
        """Return what is in a volume (a folder or file of the engine's host, or a named volume) as a tar: the root first, as ".",
        or of a file that alone; each folder before what is in it. `image`: any that the engine has.

        Times have whole seconds. Raises NotFound (volume, image), Unavailable, also while it is read.
        """

    def write_volume(self, source: str, image: str, tar: Iterator[bytes]) -> None:
        """Unpack a tar over what is in a volume; a folder of the host that is not there is made. Nothing is removed.

        Raises NotFound (image), Unavailable, Failed; what is unpacked by then stays. What `tar` raises goes through.
        """

    def tidy_volumes(self) -> None:
        """Remove what `read_volume` and `write_volume` of a daemon that died have left on the engine, but for data."""

    def events(self) -> Stream[EngineEvent]:
        """Return what happens to our containers, until it is closed.

        It never fails: it reconnects with back-off, for ever, and says `reconnected` when it begins and after each gap.
        What happens after a `reconnected` is told, so whoever reads it then looks at everything misses nothing.
        """

    def close(self) -> None:
        """Drop all connections; streams that run end."""
