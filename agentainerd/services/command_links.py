"""Runs as commands in a container: of programs that know nothing of HTTP. One command a run, which ends with it."""

import codecs
import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any

import msgspec
from gevent.event import Event

from agentainerd import defaults
from agentainerd.engine.engine import Attached
from agentainerd.errors import AgentainerError, DeadlineExceeded
from agentainerd.model import acp
from agentainerd.model.agui import EventType
from agentainerd.model.narration import Narration, encode, failed, finished, started
from agentainerd.model.runs import RunCode
from agentainerd.model.sessions import Message
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import CallBroken, CallTimedOut
from agentainerd.services.run_links import RunRefused, Sent, Task, WaitS, spoken_input
from agentainerd.version import VERSION

TERM_S = 5.0  # between TERM and KILL
END_S = 2.0  # for the engine to know how a command ended, after its output did
MAX_PROMPT_VARIABLE_BYTES = (
    100_000  # the kernel takes 128 KiB for one variable; longer prompts are on standard input only
)
_STOP_REASONS = {"max_tokens": RunCode.MODEL_ERROR, "max_turn_requests": RunCode.STEP_LIMIT, "refusal": RunCode.ERROR}

Open = Callable[[Mapping[str, str]], Attached]


class _CommandLink:
    """What both have in common: a command that is begun with the run and ended with it."""

    def __init__(self, begin: Open, target: Target, task: Task) -> None:
        self._begin = begin
        self._target = target
        self._task = task
        self._command: Attached | None = None
        self._over = Event()

    def abort(self) -> None:
        """See Link; blocks until the command is gone."""
        if self._command is not None and not self._over.is_set():
            self._command.signal("TERM")
            if not self._over.wait(TERM_S):
                self._command.signal("KILL")
            self._command.abort()

    def close(self) -> None:
        """See Link."""
        if self._command is None:
            return
        if not self._over.is_set():
            self._command.signal("KILL")
            self._over.set()
        self._command.close()
        self._command = None
        self._target.in_flight -= 1
        self._target.used_at = time.monotonic()

    def _open(self) -> Attached:
        run = self._task.run
        words = spoken_input(run)
        prompt = {"JOB_PROMPT": words} if len(words.encode()) <= MAX_PROMPT_VARIABLE_BYTES else {}
        names = {"JOB_ID": run.id, "AGENT_RUN_ID": run.id, "AGENT_SESSION_ID": self._task.thread_id}
        try:
            self._command = self._begin({**names, **prompt, **({"AGENT_MODEL": run.model} if run.model else {})})
        except AgentainerError as error:
            raise CallBroken(error.message, is_sent=True) from error
        self._target.in_flight += 1  # the agent is not idle
        return self._command

    def _pieces(self, command: Attached, wait_s: WaitS) -> Iterator[tuple[str, bytes]]:
        while True:
            try:
                pieces = command.read(wait_s())
            except DeadlineExceeded as error:
                raise CallTimedOut(error.message, is_sent=True) from None
            if not pieces:
                return
            for piece in pieces:
                yield piece.stream, piece.data

    def _ended(self, command: Attached) -> int:
        """Return the exit code of a command whose output is over; one that went on without it is killed."""
        end = time.monotonic() + END_S
        try:
            while (code := command.exit_code()) is None and time.monotonic() < end:
                self._over.wait(defaults.READY_PROBE_INTERVAL_S)
        except AgentainerError as error:
            raise CallBroken(error.message, is_sent=True) from error
        if code is None:
            raise CallBroken("the command closed its output and went on", is_sent=True)
        self._over.set()
        return code


class ExecLink(_CommandLink):
    """Any command: the input is in JOB_PROMPT and on its standard input, its standard output is the answer.

    `spawn` starts a greenlet: what does not read its input is not waited for.
    """

    def __init__(self, begin: Open, target: Target, task: Task, spawn: Callable[..., object]) -> None:
        super().__init__(begin, target, task)
        self._spawn = spawn

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """See Link."""
        run, thread_id = self._task.run, self._task.thread_id
        command = self._open()
        yield Sent(0, started(run.id, thread_id))
        narration = Narration(run.id)
        decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        self._spawn(f"input of run {run.id}", _feed, command, spoken_input(run).encode())
        for stream, data in self._pieces(command, wait_s):
            text = decoders[stream].decode(data)
            if stream == "stdout":
                yield from (Sent(0, payload) for payload in narration.text(text))
            elif text:
                yield Sent(0, encode(EventType.CUSTOM, name="log", value={"stream": stream, "text": text}))
        code = self._ended(command)
        yield from (Sent(0, payload) for payload in narration.pause())
        if code:
            message = f"the command ended with {code}{_MEANING.get(code, '')}"
            yield Sent(
                0, encode(EventType.RUN_ERROR, message=message, code=RunCode.ERROR, rawEvent={"exit_code": code})
            )
        else:
            yield Sent(0, finished(run.id, thread_id, {"exit_code": 0}))


class AcpLink(_CommandLink):
    """A command that speaks the Agent Client Protocol."""

    def __init__(self, begin: Open, target: Target, task: Task, folder: str) -> None:
        super().__init__(begin, target, task)
        self._folder = folder
        self._session = ""
        self._asked = 0
        self._rest = b""
        self._noise = ""

    def events(self, wait_s: WaitS) -> Iterator[Sent]:
        """See Link."""
        run, thread_id = self._task.run, self._task.thread_id
        command = self._open()
        yield Sent(0, started(run.id, thread_id))
        lines = self._lines(command, wait_s)
        agent = acp.AcpEvents(run.id)
        self._ask(command, acp.initialize(self._next(), VERSION))
        yield from self._answered(lines, command, agent)
        self._ask(command, acp.request(self._next(), "session/new", cwd=self._folder, mcpServers=[]))
        found = yield from self._answered(lines, command, agent)
        self._session = str(found.get("sessionId") or "")
        words = acp.prompt([*self._task.messages[:-1], self._question()])
        self._ask(command, acp.request(self._next(), "session/prompt", sessionId=self._session, prompt=words))
        done = yield from self._answered(lines, command, agent)
        yield from (Sent(0, payload) for payload in agent.end())
        reason = str(done.get("stopReason") or "")
        if reason == "cancelled":
            yield Sent(0, failed("it was cancelled", RunCode.CANCELLED))
        elif code := _STOP_REASONS.get(reason):
            yield Sent(0, failed(f"the agent stopped: {reason}", code))
        else:
            yield Sent(0, finished(run.id, thread_id, {"stop_reason": reason}))

    def abort(self) -> None:
        """See Link: it is asked first."""
        if self._command is not None and self._session and not self._over.is_set():
            with contextlib.suppress(AgentainerError):  # it may have ended
                self._command.send(acp.notification("session/cancel", sessionId=self._session))
            self._over.wait(TERM_S)
        super().abort()

    def _question(self) -> Message:
        return msgspec.structs.replace(self._task.messages[-1], content=spoken_input(self._task.run))

    def _next(self) -> int:
        self._asked += 1
        return self._asked

    def _ask(self, command: Attached, line: bytes) -> None:
        try:
            command.send(line)
        except AgentainerError as error:
            raise CallBroken(error.message, is_sent=True) from error

    def _lines(self, command: Attached, wait_s: WaitS) -> Iterator[dict[str, Any]]:
        for stream, data in self._pieces(command, wait_s):
            if stream != "stdout":
                self._noise = (self._noise + data.decode("utf-8", "replace"))[-1000:]
                continue
            *lines, self._rest = (self._rest + data).split(b"\n")
            if len(self._rest) > defaults.MAX_RUN_EVENT_BYTES:
                raise RunRefused(f"the agent wrote a line longer than {defaults.MAX_RUN_EVENT_BYTES} bytes")
            for line in lines:
                if message := _message(line):
                    yield message

    def _answered(
        self, lines: Iterator[dict[str, Any]], command: Attached, agent: acp.AcpEvents
    ) -> Generator[Sent, None, dict[str, Any]]:
        """Yield the events until the last request is answered; the value is its result."""
        for message in lines:
            if message.get("method") == "session/update":
                update = (message.get("params") or {}).get("update")
                if isinstance(update, dict):
                    yield from (Sent(0, payload) for payload in agent.take(update))
            elif "method" in message and "id" in message:
                self._ask(command, acp.reply(message))
            elif message.get("id") == self._asked:
                if error := message.get("error"):
                    raise RunRefused(f"the agent answered: {_told(error)}")
                result = message.get("result")
                return result if isinstance(result, dict) else {}
        code = self._ended(command)
        noise = f": {self._noise.strip()[-300:]}" if self._noise.strip() else ""
        raise RunRefused(f"the agent's command ended with {code}{_MEANING.get(code, '')}{noise}")


_MEANING = {126: " (it can't be run)", 127: " (it is not in the image)"}


def _feed(command: Attached, data: bytes) -> None:
    with contextlib.suppress(AgentainerError):  # it may not read its input
        command.send(data)
    command.end_input()


def _message(line: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None  # agents write words of their own there
    return found if isinstance(found, dict) else None


def _told(error: object) -> str:
    if isinstance(error, Mapping):
        return str(error.get("message") or error)[:500]
    return str(error)[:500]
