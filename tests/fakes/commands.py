"""Commands in the containers of a FakeEngine: a function that reads and writes, in a greenlet of its own."""

from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.queue import Queue

from agentainerd.errors import DeadlineExceeded, Unavailable
from agentainerd.model.containers import LogPiece

Command = Callable[["FakeCommand"], int]
END = object()


class FakeCommand:
    """Both ends of a command: `Attached` for who began it, and `input`, `say`, `words`, `environment` for the command itself."""

    def __init__(self, function: Command, words: list[str], environment: dict[str, str]) -> None:
        self.words = words
        self.environment = environment
        self.signals: list[str] = []
        self.ignores_term = False
        self._input: Queue = Queue()
        self._output: Queue = Queue()
        self._code: int | None = None
        self._aborted = Event()
        self._greenlet = gevent.spawn(self._run, function)  # noqa: TID251

    # For the command

    def input(self) -> bytes:
        """Return what was written to it since, b"" at the end."""
        return self._input.get()

    def say(self, data: bytes, stream: str = "stdout") -> None:
        """Write."""
        self._output.put(LogPiece(stream, data))

    # For who began it

    def read(self, timeout_s: float) -> list[LogPiece]:
        try:
            piece = self._output.get(timeout=timeout_s)
        except gevent.queue.Empty:
            raise DeadlineExceeded(f"the command wrote nothing for {timeout_s:g} s") from None
        if piece is END:
            self._output.put(END)
            return []
        return [piece]

    def send(self, data: bytes) -> None:
        if self._code is not None:
            raise Unavailable("the command takes no more input")
        self._input.put(data)

    def end_input(self) -> None:
        self._input.put(b"")

    def exit_code(self) -> int | None:
        return self._code

    def signal(self, name: str) -> None:
        self.signals.append(name)
        if self._code is None and not (name == "TERM" and self.ignores_term):
            self._greenlet.kill(block=False)
            self._end(143 if name == "TERM" else 137)

    def abort(self) -> None:
        self._output.put(END)

    def close(self) -> None:
        self.abort()

    def _run(self, function: Command) -> None:
        self._end(function(self))

    def _end(self, code: int) -> None:
        if self._code is None:
            self._code = code
            self._output.put(END)


def shell(command: FakeCommand) -> int:
    """`cat`, and of a shell's scripts `echo`, `echo ... >&2`, `sleep` and `exit`; 127 for every other program."""
    if command.words[0] == "/bin/cat":
        while data := command.input():
            command.say(data)
        return 0
    if command.words[:2] != ["/bin/sh", "-c"]:
        return 127
    for part in command.words[2].split("; "):
        verb, _, rest = part.partition(" ")
        if verb == "echo":
            text, _, to = rest.partition(" >&")
            command.say(expanded(text, command.environment).encode() + b"\n", "stderr" if to else "stdout")
        elif verb == "sleep":
            gevent.sleep(float(rest))
        elif verb == "exit":
            return int(rest)
    return 0


def expanded(text: str, environment: dict[str, str]) -> str:
    for name, value in environment.items():
        text = text.replace(f'"${name}"', value)
    return text
