"""How a job is given to its container: as a run of its tier, or, for `exec`, by the container's own start (decision 0018)."""

import codecs
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import chain

import msgspec
from gevent.event import Event

from agentainerd.engine.engine import Engine, Stream
from agentainerd.errors import AgentainerError, NotFound
from agentainerd.model.agui import EventType
from agentainerd.model.bridges import Bridge
from agentainerd.model.containers import Container, LogPiece
from agentainerd.model.narration import Narration, encode, finished
from agentainerd.model.runs import Run, RunCode
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import CallBroken, CallTimedOut
from agentainerd.services.bridges import BridgeService
from agentainerd.services.logs import STAMP
from agentainerd.services.run_links import Link, Sent, Task, WaitS

ATTEMPT_SPAN = 1 << 40
"""Numbers of events are those of their container, and of attempt n in the n-th span of so many."""


class AttemptLink:
    """A link whose events are numbered across attempts: of later ones RUN_STARTED is left out, as a run has begun once."""

    def __init__(self, link: Link, attempt: int) -> None:
        self._link = link
        self._attempt = attempt

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """See Link."""
        for sent in self._link.events(wait_s):
            if self._attempt > 1 and b"RUN_STARTED" in sent.payload and _type(sent.payload) == EventType.RUN_STARTED:
                continue
            yield Sent(sent.number and base_of(self._attempt) + sent.number, sent.payload)

    def abort(self) -> None:
        """See Link."""
        self._link.abort()

    def close(self) -> None:
        """See Link."""
        self._link.close()


class JobBridges(BridgeService):
    """The tiers of agents, with the numbers of a job's attempts."""

    def link(self, bridge: Bridge, target: Target, task: Task, *, after: int = 0) -> Link:
        """See BridgeService."""
        attempt = task.attempt
        return AttemptLink(super().link(bridge, target, task, after=max(0, after - base_of(attempt))), attempt)


class EntrypointLink:
    """A container whose own program is the job: what it writes on standard output is the answer, how it ends is the end.

    `container` returns it as it is now. `after`: the number of the last event that is known, which is the time of a line in
    nanoseconds; `is_speaking`: it said something by then. `halt` ends the container, and blocks.
    """

    def __init__(
        self,
        engine: Engine,
        container: Callable[[], Container],
        run: Run,
        halt: Callable[[], None],
        *,
        after: int,
        is_speaking: bool,
        spawn: Callable[..., object],
    ) -> None:
        self.exit_code: int | None = None
        self.oom_killed = False
        self._engine = engine
        self._container = container
        self._run = run
        self._after = after
        self._is_speaking = is_speaking
        self._halt = halt
        self._spawn = spawn
        self._closed = Event()
        self._is_late = False
        self._stream: Stream[LogPiece] | None = None
        self._last_piece: LogPiece | None = None

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """See Link."""
        run = self._run
        narration = Narration(f"{run.id}-{run.attempt}", is_open=self._is_speaking)
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        for piece, at in chain(self._pieces(wait_s), self._rest()):
            text = decoders[piece.stream].decode(piece.data)
            if piece.stream == "stdout":
                payloads = narration.text(text)
            else:
                payloads = (
                    [encode(EventType.CUSTOM, name="log", value={"stream": piece.stream, "text": text})] if text else []
                )
            for payload in payloads[:-1]:
                yield Sent(0, payload)
            for payload in payloads[-1:]:
                yield Sent(at, payload)
        container = self._ended()
        yield from (Sent(0, payload) for payload in narration.pause())
        yield Sent(0, self._last(container))

    def abort(self) -> None:
        """See Link; blocks until the container is down."""
        self._halt()
        if self._stream is not None:
            self._stream.close()

    def close(self) -> None:
        """See Link."""
        self._closed.set()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _pieces(self, wait_s: WaitS) -> Iterator[tuple[LogPiece, int]]:
        """Return what it writes, without the times, and the times in nanoseconds."""
        try:
            container = self._container()
            since = self._after // 10**9 if self._after else 0.0
            stream = self._stream = self._engine.logs(container.id, follow=True, since=since, timestamps=True)
            self._spawn(f"time of job {self._run.id}", self._guard, wait_s)
        except AgentainerError as error:
            raise _broken(error) from error
        while True:
            try:
                piece = next(stream, None)
            except AgentainerError as error:
                raise _broken(error) from error
            if self._is_late:
                raise CallTimedOut("its time is over", is_sent=True)
            if piece is None:
                return
            at, data = _timed(piece.data)
            self._last_piece = piece
            if not at or at > self._after:
                yield LogPiece(piece.stream, data), at

    def _rest(self) -> Iterator[tuple[LogPiece, int]]:
        """Return, as `_pieces`, what the engine keeps of a container that is down beyond what it told: who reads along while it
        ends may be told of the end before the last lines (seen with 20.10).
        """
        last = self._last_piece
        known_at = max(self._after, _timed(last.data)[0]) if last else self._after
        container = self._ended()
        try:
            stream = self._stream = self._engine.logs(container.id, since=known_at // 10**9, timestamps=True)
            is_new = False
            for piece in stream:
                at, data = _timed(piece.data)
                if is_new or at > known_at:
                    is_new = True
                    yield LogPiece(piece.stream, data), at
                elif piece == last:
                    is_new = True
        except AgentainerError as error:
            raise _broken(error) from error

    def _guard(self, wait_s: WaitS) -> None:
        """End the reading when its time is over."""
        if not self._closed.wait(wait_s()) and self._stream is not None:
            self._is_late = True
            self._stream.close()

    def _ended(self) -> Container:
        """Return the container when it is down."""
        try:
            container = self._container()
        except NotFound as error:
            raise CallBroken(error.message, is_sent=True) from error
        except AgentainerError as error:
            raise _broken(error) from error
        if container.is_alive:
            raise CallBroken("the engine broke its output off", is_sent=True)
        self.exit_code, self.oom_killed = container.exit_code, container.oom_killed
        return container

    def _last(self, container: Container) -> bytes:
        run, code = self._run, container.exit_code
        if container.oom_killed:
            message = "its container had more memory than its limit allows"
            return encode(EventType.RUN_ERROR, message=message, code=RunCode.OOM, rawEvent={"exit_code": code})
        if code or container.error:
            message = container.error or f"its program ended with {code}"
            return encode(EventType.RUN_ERROR, message=message, code=RunCode.ERROR, rawEvent={"exit_code": code})
        return finished(run.id, run.id, {"exit_code": 0})


def base_of(attempt: int) -> int:
    """Return what is added to the numbers of an attempt's events."""
    return (max(1, attempt) - 1) * ATTEMPT_SPAN


def _broken(error: AgentainerError) -> CallBroken:
    return CallBroken(error.message, is_sent=True)


def _timed(line: bytes) -> tuple[int, bytes]:
    """Split an entry of the engine's log into its time, nanoseconds since the epoch, and the rest."""
    match = STAMP.match(line)
    if match is None:
        return 0, line
    whole = datetime.fromisoformat(match.group(1).decode() + "+00:00").timestamp()
    return int(whole) * 10**9 + int((match.group(2) or b"").ljust(9, b"0")), line[match.end() :]


def _type(payload: bytes) -> object:
    try:
        event = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return event.get("type") if isinstance(event, dict) else None
