"""An `Engine` without Docker: agents are local servers on loopback. The contract suite holds it to the real one.

Every run of a container has an address of its own in 127.0.0.0/8 (another one at each start, as an engine may do), so
all agents can listen on port 8000, as in containers. An image is a name and a `Program` (tests/fakes/programs.py):

    fake = FakeEngine()                                    # the fixture `fake_engine`; the image "echo" is there
    fake.add_image("rude", Program(handler))               # local
    fake.registry["far/away:1"] = Program()                # can be pulled
    fake.build(tar, tag=..., dockerfile="Dockerfile", args={})     # FROM, EXPOSE, ARG, RUN true | RUN exit N

What can happen to an agent, by the id in its label: `kill` (SIGKILL: connections reset, `die`), `oom`, `exit`, `listen`
(of a program with listens=False), `say`; `stop`, `pause`, `start`, `remove` by container id are "from outside". Paused
agents accept connections (the kernel does) and answer nothing.

`use(agent_id, cpu_s=1.0, ...)` adds to what its container has used (memory_bytes and pids are set).

What can happen to the engine: `go_down(why)` (every call raises Unavailable, event streams break) and `come_back()`.
`calls` counts the calls of each method. Nothing here is random, and nothing waits but `stop` for its grace.
"""

import io
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from os import path
from typing import IO

import gevent
import pytest
from gevent.queue import Queue

from agentainerd import clock
from agentainerd.errors import Conflict, DeadlineExceeded, Failed, InvalidParameter, NotFound, Unavailable
from agentainerd.model.containers import (
    Container,
    ContainerSpec,
    ContainerState,
    EngineEvent,
    EngineInfo,
    Image,
    LogPiece,
    Networks,
    Progress,
)
from agentainerd.model.metrics import Usage
from agentainerd.model.replicas import number_of
from tests.fakes.commands import FakeCommand
from tests.fakes.containers import END, FakeContainer, FakeRun, FakeStream
from tests.fakes.programs import Program


class FakeEngine:
    """See the module."""

    def __init__(self) -> None:
        self.registry: dict[str, Program] = {}
        self.registry_down = False
        self.calls: Counter[str] = Counter()
        self.commands: list[FakeCommand] = []
        self._why_down, self._lost_at = "", 0.0
        self._images: dict[str, tuple[Image, Program]] = {}
        self._boxes: dict[str, FakeContainer] = {}
        self._volumes: dict[str, tempfile.TemporaryDirectory[str]] = {}
        self._watchers: list[Queue] = []
        self._ids = count(1)
        self.add_image("echo")

    # What tests do to it

    def add_image(self, name: str, program: Program | None = None, labels: Mapping[str, str] | None = None) -> Image:
        """Make `program` (default: the echo server) a local image under this name; one without a tag is `:latest`."""
        program = program or Program()
        exposed = program.ports if program.exposed is None else program.exposed
        tag = _tagged(name)
        image = Image(
            id=f"sha256:{next(self._ids):064x}",
            tags=(tag,),
            exposed=tuple(sorted(exposed)),
            created_at=time.time(),
            size=1,
            labels=dict(labels or {}),
        )
        self._images[tag] = (image, program)
        return image

    def remove_image(self, name: str) -> None:
        """Forget a local image, as `docker rmi -f` does: containers of it go on."""
        del self._images[_tagged(name)]

    def program(self, name: str) -> Program:
        """Return the program of a local image; change it, and the next start does so."""
        return self._images[_tagged(name)][1]

    def kill(self, agent_id: str, replica: int = 0) -> None:
        """SIGKILL to the agent, as by `docker kill`; to one of its replicas, or to the last one."""
        self._die(self._box_of(agent_id, replica), 137)

    def oom(self, agent_id: str) -> None:
        """The kernel kills the agent, because it used too much memory."""
        box = self._box_of(agent_id)
        self._tell("oom", box)
        self._die(box, 137, oom=True)

    def exit(self, agent_id: str, code: int = 0) -> None:
        """The agent's program ends by itself."""
        self._die(self._box_of(agent_id), code)

    def listen(self, agent_id: str) -> None:
        """Let an agent whose program has listens=False begin to accept connections."""
        run = self._box_of(agent_id).run
        assert run is not None, f"{agent_id} does not run"
        run.listen()

    def say(self, agent_id: str, text: str, *, stream: str = "stdout", replica: int = 0) -> None:
        """Write a line to the agent's log."""
        self._box_of(agent_id, replica).log(stream, text)

    def use(self, agent_id: str, replica: int = 0, **counters: float) -> None:
        """Add to the counters of an agent's run; of memory and processes it says what there is."""
        run = self._box_of(agent_id, replica).run
        assert run is not None, f"{agent_id} does not run"
        for name, value in counters.items():
            is_gauge = name in ("memory_bytes", "memory_limit_bytes", "cache_bytes", "pids")
            run.used[name] = value if is_gauge else run.used.get(name, 0) + value

    def environment_of(self, agent_id: str) -> Mapping[str, str]:
        """Return the variables that the agent's container was made with."""
        return self._box_of(agent_id).spec.env

    def go_down(self, why: str = "the engine was stopped") -> None:
        """Answer nothing any more; agents go on (as with the engine's live restore)."""
        self._why_down, self._lost_at = why, time.time()

    def come_back(self) -> None:
        """Answer again; event streams say `reconnected`."""
        self._why_down = ""
        for watcher in self._watchers:
            watcher.put(EngineEvent("reconnected", at=time.time(), since=self._lost_at))

    def lose_events(self) -> None:
        """Break the event streams for a moment: they say `reconnected`."""
        self.come_back()

    # Engine

    def ping(self) -> None:
        self._called("ping")

    def info(self) -> EngineInfo:
        self._called("info")
        return EngineInfo("0-fake", "1.41", tempfile.gettempdir(), "memory", "2", len(self._boxes), len(self._images))

    def ensure_networks(self) -> Networks:
        self._called("ensure_networks")
        return Networks(gateway="127.0.0.1", isolated_gateway="127.0.0.1")

    def image(self, ref: str) -> Image:
        self._called("image")
        return self._find_image(ref)[0]

    def pull(self, ref: str) -> FakeStream[Progress]:
        self._called("pull")
        return FakeStream(self._pull(ref))

    def build(self, context: IO[bytes], *, tag: str, dockerfile: str, args: Mapping[str, str]) -> FakeStream[Progress]:
        self._called("build")
        try:
            with tarfile.open(fileobj=io.BytesIO(context.read())) as archive:
                found = [member for member in archive if path.normpath(member.name) == path.normpath(dockerfile)]
                file = archive.extractfile(found[0]) if found else None
                text = file.read().decode() if file else ""
        except tarfile.TarError as error:
            raise _build_failed(f"the context can't be read: {error}", "", []) from error
        return FakeStream(self._build(text, tag, dockerfile, args))

    def create(self, spec: ContainerSpec) -> str:
        self._called("create")
        image, program = self._find_image(spec.image)
        if any(box.spec.name == spec.name for box in self._boxes.values()):
            raise Conflict(f"there is a container with the name '{spec.name}' already", code="CONTAINER_NAME_TAKEN")
        for volume in spec.volumes:
            if not volume.is_named and not path.exists(volume.host_path):
                raise InvalidParameter("volumes", f"'{volume.host_path}' does not exist", code="VOLUME_SOURCE_MISSING")
            if volume.is_named and volume.host_path not in self._volumes:
                self.create_volume(volume.host_path)
        box = FakeContainer(f"{next(self._ids):064x}", spec, image, program)
        self._boxes[box.id] = box
        self._tell("create", box)
        return box.id

    def start(self, container_id: str) -> Container:
        self._called("start")
        box = self._box(container_id)
        if box.state is ContainerState.PAUSED:
            raise Conflict("the container is paused", code="CONTAINER_PAUSED")
        if box.state is ContainerState.RUNNING:
            return box.seen()
        if box.program.fails:
            box.exit_code, box.error = box.program.fails
            raise Failed(
                f"the container could not be started: {box.error}",
                code="AGENT_START_FAILED",
                details={"exit_code": box.exit_code},
            )
        self._run(box)
        return box.seen()

    def volume_folder(self, name: str) -> str:
        self._called("volume_folder")
        if name not in self._volumes:
            raise NotFound("volume", name)
        return self._volumes[name].name

    def create_volume(self, name: str) -> str:
        self._called("create_volume")
        if name in self._volumes:
            raise Conflict(f"there is a volume '{name}' already", code="VOLUME_EXISTS")
        self._volumes[name] = tempfile.TemporaryDirectory(prefix="volume-")
        return self._volumes[name].name

    def remove_volume(self, name: str) -> None:
        self._called("remove_volume")
        users = [box.spec.name for box in self._boxes.values() for each in box.spec.volumes if each.host_path == name]
        if users:
            raise Conflict(f"the volume '{name}' is in use by {users[0]}", code="ENGINE_CONFLICT")
        if name in self._volumes:
            self._volumes.pop(name).cleanup()

    def read_volume(self, source: str, image: str) -> FakeStream[bytes]:
        self._called("read_volume")
        self._find_image(image)
        place = source if source.startswith("/") else self.volume_folder(source)
        if not path.lexists(place):
            raise NotFound("volume", source)
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
            archive.add(place, "." if path.isdir(place) else "volume", filter=_whole_seconds)
        data = packed.getvalue()
        return FakeStream(iter([data[at : at + 65536] for at in range(0, len(data), 65536)]))

    def write_volume(self, source: str, image: str, tar: Iterator[bytes]) -> None:
        self._called("write_volume")
        self._find_image(image)
        place = source if source.startswith("/") else self.volume_folder(source)
        packed = io.BytesIO(b"".join(tar))
        with tarfile.open(fileobj=packed) as archive:
            archive.extractall(place, filter="fully_trusted", numeric_owner=True)

    def tidy_volumes(self) -> None:
        self._called("tidy_volumes")

    def stop(self, container_id: str, *, grace_s: float) -> None:
        self._called("stop")
        box = self._box(container_id)
        run = box.run
        if run is None:
            return
        run.thawed.set()
        code = 143
        if not box.program.heeds_sigterm:
            gevent.sleep(grace_s)
            code = 137
        if box.run is run:
            self._die(box, code)

    def limit(self, container_id: str, *, cpu_limit: int, memory_limit: int) -> None:
        self._called("limit")
        box = self._box(container_id)
        if cpu_limit > 64 * 10**9:
            raise InvalidParameter("cpu_limit", "the host has 64 CPUs")
        box.spec = replace(
            box.spec, cpu_limit=cpu_limit or box.spec.cpu_limit, memory_limit=memory_limit or box.spec.memory_limit
        )

    def pause(self, container_id: str) -> None:
        self._called("pause")
        box = self._box(container_id)
        if box.run is None or box.state is not ContainerState.RUNNING:
            raise Conflict(f"the container is {box.state}", code="CONTAINER_NOT_RUNNING")
        box.run.thawed.clear()
        box.state = ContainerState.PAUSED
        self._tell("pause", box)

    def unpause(self, container_id: str) -> None:
        self._called("unpause")
        box = self._box(container_id)
        if box.run is None or box.state is not ContainerState.PAUSED:
            raise Conflict(f"the container is {box.state}, not paused", code="CONTAINER_NOT_PAUSED")
        box.state = ContainerState.RUNNING
        box.run.thawed.set()
        self._tell("unpause", box)

    def remove(self, container_id: str) -> None:
        self._called("remove")
        box = self._boxes.get(container_id)
        if box is None:
            return
        if box.run is not None:
            self._die(box, 137)
        box.state = ContainerState.GONE
        del self._boxes[box.id]
        self._tell("destroy", box)

    def rename(self, container_id: str, name: str) -> None:
        self._called("rename")
        box = self._box(container_id)
        if any(other.spec.name == name for other in self._boxes.values() if other is not box):
            raise Conflict(f"there is a container with the name '{name}' already", code="CONTAINER_NAME_TAKEN")
        box.spec = replace(box.spec, name=name)

    def inspect(self, container_id: str) -> Container:
        self._called("inspect")
        return self._box(container_id).seen()

    def containers(self) -> list[Container]:
        self._called("containers")
        return [box.seen() for box in self._boxes.values() if box.agent_id]

    def execute(self, container_id: str, command: Sequence[str], *, timeout_s: float) -> int:
        """Understands `sh -c "exit N"` and `sh -c "sleep N"`; any other word ends as the program's `commands_exit` says."""
        self._called("execute")
        box = self._box(container_id)
        if box.run is None or box.state is not ContainerState.RUNNING:
            raise Conflict(f"the container is {box.state}", code="CONTAINER_STATE")
        if box.busy_until > time.monotonic():
            raise DeadlineExceeded("the command before it still runs")
        word, _, number = command[-1].partition(" ")
        if word == "sleep":
            box.busy_until = time.monotonic() + float(number)
            gevent.sleep(min(float(number), timeout_s))
            if box.busy_until > time.monotonic():
                raise DeadlineExceeded("the command did not end in time")
        return int(number) if word == "exit" else box.program.commands_exit

    def attach(self, container_id: str, command: Sequence[str], environment: Mapping[str, str]) -> FakeCommand:
        self._called("attach")
        box = self._box(container_id)
        if box.run is None or box.state is not ContainerState.RUNNING:
            raise Conflict(f"the container is {box.state}", code="CONTAINER_STATE")
        self.commands.append(FakeCommand(box.program.command, list(command), {**box.spec.env, **environment}))
        return self.commands[-1]

    def usages(self, container_ids: Sequence[str]) -> dict[str, Usage]:
        self.calls["usages"] += 1
        boxes = [self._boxes[one] for one in container_ids if one in self._boxes]
        return {box.id: Usage(at=clock.now(), **box.run.used) for box in boxes if box.run is not None}

    def logs(
        self,
        container_id: str,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: float = 0.0,
        timestamps: bool = False,
    ) -> FakeStream[LogPiece]:
        self._called("logs")
        box = self._box(container_id)
        lines = [line for line in box.lines if line[0] >= since]
        if tail is not None:
            lines = lines[-tail:] if tail else []
        queue = None
        if follow and box.run is not None:
            queue = Queue()
            box.followers.append(queue)
        return FakeStream(lines, queue, shape=lambda line: _piece(line, timestamps))

    def events(self) -> FakeStream[EngineEvent]:
        self.calls["events"] += 1
        watcher: Queue = Queue()
        self._watchers.append(watcher)
        if not self._why_down:
            watcher.put(EngineEvent("reconnected", at=time.time()))
        return FakeStream((), watcher)

    def close(self) -> None:
        """End everything, containers too."""
        for watcher in self._watchers:
            watcher.put(END)
        self._watchers = []
        for box in list(self._boxes.values()):
            if box.run is not None:
                self._die(box, 137)
        for volume in self._volumes.values():
            volume.cleanup()
        self._volumes = {}
        gevent.sleep(0)

    # Inside

    def _called(self, method: str) -> None:
        self.calls[method] += 1
        if self._why_down:
            raise Unavailable(
                f"cannot reach the Docker engine: {self._why_down}",
                code="ENGINE_UNAVAILABLE",
                hint="start it with: sudo systemctl start docker",
            )

    def _box(self, container_id: str) -> FakeContainer:
        box = self._boxes.get(container_id)
        if box is None:
            raise NotFound("container", container_id)
        return box

    def _box_of(self, agent_id: str, replica: int = 0) -> FakeContainer:
        boxes = [
            box
            for box in self._boxes.values()
            if box.agent_id == agent_id and (not replica or number_of(box.spec.name, agent_id) == replica)
        ]
        assert boxes, f"no container of {agent_id}"
        return boxes[-1]

    def _find_image(self, ref: str) -> tuple[Image, Program]:
        for image, program in self._images.values():
            if image.id == ref or _tagged(ref) in image.tags:
                return image, program
        raise NotFound(
            "image",
            ref,
            message=f"docker image '{ref}' not found. Please build or pull the image first",
            hint=f"docker pull {ref}",
        )

    def _run(self, box: FakeContainer) -> None:
        box.runs += 1
        run = FakeRun(box, box.runs, lambda code: self._die(box, code))
        run.choose_address()
        if box.program.listens:
            run.listen()
        box.run = run
        box.state = ContainerState.RUNNING
        box.exit_code, box.oom_killed, box.error = 0, False, ""
        box.started_at = max(time.time(), box.started_at + 1e-6)
        self._tell("start", box)
        for line in box.program.prints:
            box.log("stdout", line)
        if box.program.exits is not None:
            self._die(box, box.program.exits)

    def _die(self, box: FakeContainer, code: int, *, oom: bool = False) -> None:
        run, box.run = box.run, None
        if run is None:
            return
        box.state = ContainerState.EXITED
        box.exit_code, box.oom_killed, box.finished_at = code, oom, time.time()
        run.end()
        box.end_followers()
        self._tell("die", box, exit_code=code)

    def _tell(self, action: str, box: FakeContainer, *, exit_code: int = 0) -> None:
        if self._why_down or not box.agent_id:
            return
        for watcher in self._watchers:
            watcher.put(EngineEvent(action, box.agent_id, box.id, time.time(), exit_code))

    def _pull(self, ref: str) -> Iterator[Progress]:
        if self.registry_down:
            raise Unavailable("cannot reach the registry", code="REGISTRY_UNREACHABLE")
        if ref not in self.registry:
            raise NotFound("image", ref, message=f"no registry has an image '{ref}', or it needs a login")
        yield Progress(text="Pulling", status="Pulling", id="layer", current=1, total=2)
        yield Progress(text="Done", image_id=self.add_image(ref, self.registry[ref]).id)

    def _build(self, text: str, tag: str, dockerfile: str, args: Mapping[str, str]) -> Iterator[Progress]:
        said: list[str] = []
        if not text:
            raise _build_failed(f"there is no {dockerfile} in the context", "", said)
        base, exposed = Program(), None
        steps = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        for number, line in enumerate(steps, 1):
            word, _, rest = line.partition(" ")
            step = f"Step {number}/{len(steps)} : {line}"
            said.append(step)
            yield Progress(text=step + "\n")
            if word == "FROM":
                with_args = rest.replace("$BASE", args.get("BASE", "")).replace("${BASE}", args.get("BASE", ""))
                try:
                    base = self._find_image(with_args)[1]
                except NotFound as error:
                    raise _build_failed(error.message, step, said) from error
            elif word == "EXPOSE":
                exposed = tuple(int(port) for port in rest.split())
            elif word == "RUN" and rest.startswith("exit ") and rest != "exit 0":
                raise _build_failed(f"The command '/bin/sh -c {rest}' returned a non-zero code", step, said)
        program = Program(**vars(base)) if exposed is None else Program(**{**vars(base), "exposed": exposed})
        yield Progress(text="Successfully built\n", image_id=self.add_image(tag, program).id)


@pytest.fixture
def fake_engine() -> Iterator[FakeEngine]:
    """A new engine; all its agents are ended after the test."""
    engine = FakeEngine()
    yield engine
    engine.close()


def _whole_seconds(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mtime = int(member.mtime)
    return member


def _piece(line: tuple[float, str, str], timestamps: bool) -> LogPiece:
    at, stream, text = line
    stamp = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z ") if timestamps else ""
    return LogPiece(stream, f"{stamp}{text}\n".encode())


def _build_failed(why: str, step: str, said: list[str]) -> Failed:
    return Failed(f"the build failed: {why}", code="BUILD_FAILED", details={"step": step, "lines": [*said, why][-30:]})


def _tagged(ref: str) -> str:
    return ref if ":" in ref.rpartition("/")[2] or "@" in ref else f"{ref}:latest"
