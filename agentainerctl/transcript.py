"""What an agent does in a run, as text for people: AG-UI events in, pieces of text out.

Pure: it neither reads nor prints. All that an agent chose has passed `output.plain` or `output.plain_text` when it leaves
here: no control character survives. Events that are not known, or not shaped as they should be, are passed over.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from agentainerctl.output import display_width, plain, plain_text, shorten, strip_ansi

Event = Mapping[str, Any]

_HEAD_LINES = 3  # of a tool's result
_TAIL_LINES = 3
_DIFF_LINES = 40
_MAX_ARGUMENTS = 64 * 1024  # characters kept of a call's arguments, which are shown on one line
_MAX_OPEN_CALLS = 256  # of an agent that begins calls and does not end them
_MAX_LINE = 400  # characters of one line of arguments, results or edits, where there is no terminal that is narrower
_MAX_VALUE = 60
_MAX_ASKED = 40  # lines of a question
_SIGNS = {"created": ("+", "green"), "modified": ("~", "yellow"), "deleted": ("-", "red")}


class Piece(NamedTuple):
    """Some text. `is_answer`: it belongs to the agent's answer, the data; else it tells what the agent does.

    `is_fresh`: it begins on a line of its own. `colour`: one of output's, or "".
    """

    text: str
    is_answer: bool = False
    is_fresh: bool = True
    colour: str = ""


class _Call:
    """A tool call whose arguments are still coming."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.arguments = ""

    def add(self, delta: str) -> None:
        """Take more of the arguments, as far as they will be shown."""
        self.arguments += delta[: max(0, _MAX_ARGUMENTS - len(self.arguments))]


class Transcript:
    """One run as it is told to people.

    `is_full`: also thinking, steps, events of other kinds, and results and edits whole. `has_steps`: steps in any case. `width`:
    cells that a line of what an agent does may take; 0 where lines are not cut to a terminal's.
    """

    def __init__(self, *, is_full: bool = False, has_steps: bool = False, width: int = 0) -> None:
        self._is_full = is_full
        self._has_steps = is_full or has_steps
        self._width = width
        self._calls: dict[str, _Call] = {}
        self._names: dict[str, str] = {}  # of calls whose results are awaited
        self._told = ""  # the call that was told of last
        self._owner: object = None  # what the line about to be gone on with belongs to: a call, thinking, or nothing
        self._message = ""  # the message that the last text belonged to
        self._held = ""  # a carriage return whose newline may be in the next piece of text
        self._handlers: dict[str, Callable[[Event], Iterator[Piece]]] = {
            "TEXT_MESSAGE_START": self._begin_text,
            "TEXT_MESSAGE_CONTENT": self._text,
            "TEXT_MESSAGE_CHUNK": self._text,
            "TEXT_MESSAGE_END": self._end_text,
            "THINKING_START": self._begin_thinking,
            "THINKING_TEXT_MESSAGE_START": self._begin_thinking,
            "THINKING_TEXT_MESSAGE_CONTENT": self._thinking,
            "THINKING_TEXT_MESSAGE_END": self._end_thinking,
            "REASONING_MESSAGE_START": self._begin_thinking,
            "REASONING_MESSAGE_CONTENT": self._thinking,
            "REASONING_MESSAGE_CHUNK": self._thinking,
            "REASONING_MESSAGE_END": self._end_thinking,
            "TOOL_CALL_START": self._begin_call,
            "TOOL_CALL_ARGS": self._arguments,
            "TOOL_CALL_CHUNK": self._call_chunk,
            "TOOL_CALL_END": self._end_call,
            "TOOL_CALL_RESULT": self._result,
            "STEP_STARTED": self._step,
            "CUSTOM": self._custom,
            "RUN_FINISHED": self._end,
            "RUN_ERROR": self._end,
        }

    def feed(self, event: object) -> list[Piece]:
        """Return what `event`, the next of the run, adds."""
        if not isinstance(event, Mapping):
            return []
        handler = self._handlers.get(str(event.get("type")))
        return list(handler(event)) if handler else []

    def _begin_text(self, event: Event) -> Iterator[Piece]:
        yield from self._end_text(event)

    def _text(self, event: Event) -> Iterator[Piece]:
        delta = _string(event, "delta")
        if not delta:
            return
        message = _string(event, "messageId")
        is_fresh = message != self._message
        self._message, self._owner = message, None
        text = self._held + delta
        self._held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix("\r").replace("\r\n", "\n")
        yield Piece(plain_text(text), is_answer=True, is_fresh=is_fresh)

    def _end_text(self, _event: Event) -> Iterator[Piece]:
        yield from self._release()
        yield Piece("", is_answer=True)

    def _release(self) -> Iterator[Piece]:
        if self._held:
            yield Piece(plain(self._held), is_answer=True, is_fresh=False)
            self._held = ""

    def _begin_thinking(self, _event: Event) -> Iterator[Piece]:
        if self._owner != "thinking":
            self._owner = "thinking"
            yield Piece("thinking ...\n", colour="dim")

    def _thinking(self, event: Event) -> Iterator[Piece]:
        yield from self._begin_thinking(event)
        if self._is_full and (delta := _string(event, "delta")):
            yield Piece(plain_text(delta), is_fresh=False, colour="dim")

    def _end_thinking(self, _event: Event) -> Iterator[Piece]:
        self._owner = None
        yield Piece("")

    def _begin_call(self, event: Event) -> Iterator[Piece]:
        for kept in (self._calls, self._names):
            if len(kept) >= _MAX_OPEN_CALLS:
                del kept[next(iter(kept))]
        call = _Call(self._cut(plain(_string(event, "toolCallName") or "a tool")))
        self._told = _string(event, "toolCallId")
        self._calls[self._told] = self._owner = call
        self._names[self._told] = call.name
        yield Piece(f"> {call.name}", colour="bold")

    def _arguments(self, event: Event) -> Iterator[Piece]:
        if call := self._calls.get(_string(event, "toolCallId")):
            call.add(_string(event, "delta"))
        yield from ()

    def _call_chunk(self, event: Event) -> Iterator[Piece]:
        """A chunk begins a call where it is the first with its id; it has no end but the result."""
        identity = _string(event, "toolCallId")
        if identity and identity not in self._calls:
            yield from self._begin_call(event)
        yield from self._arguments(event)

    def _end_call(self, event: Event) -> Iterator[Piece]:
        call = self._calls.pop(_string(event, "toolCallId"), None)
        if not call:
            return
        room = (self._width or _MAX_LINE) - display_width(call.name) - 3
        shown = shorten(arguments(call.arguments), max(room, 20))
        if self._owner is not call:
            yield Piece(f"> {call.name}", colour="bold")
        self._owner, self._told = None, _string(event, "toolCallId")
        yield Piece(f" {shown}\n" if shown else "\n", is_fresh=False)

    def _result(self, event: Event) -> Iterator[Piece]:
        identity = _string(event, "toolCallId")
        if identity in self._calls:  # a call of chunks
            yield from self._end_call(event)
        self._owner = None
        name = self._names.pop(identity, "")
        if name and identity != self._told:  # several were called at a time
            yield Piece(f"  {name}:\n", colour="dim")
            self._told = identity
        for line in self._ends_of(result_lines(_string(event, "content"))):
            yield Piece(f"  | {self._raw(line)}".rstrip() + "\n", colour="dim")

    def _ends_of(self, lines: list[str]) -> Iterator[str]:
        """Give the first and the last lines: how a command began, and what came of it."""
        left_out = len(lines) - _HEAD_LINES - _TAIL_LINES
        if self._is_full or left_out <= 1:
            yield from lines
            return
        yield from lines[:_HEAD_LINES]
        yield f"... {left_out} more lines ..."
        yield from lines[-_TAIL_LINES:]

    def _step(self, event: Event) -> Iterator[Piece]:
        if self._has_steps:
            self._owner = None
            yield Piece(f"--- {self._cut(plain(_string(event, 'stepName') or 'a step'), 8)} ---\n", colour="dim")

    def _custom(self, event: Event) -> Iterator[Piece]:
        value = event.get("value")
        if event.get("name") == "file.changed" and isinstance(value, Mapping):
            yield from self._edit(value)
        elif event.get("name") == "model.retry" and isinstance(value, Mapping):
            self._owner = None
            reason = self._cut(plain(_string(value, "reason") or "the answer broke off"), 40)
            yield Piece(f"! the model is asked again: {reason}\n", colour="yellow")
        elif event.get("name") == "job.attempt" and isinstance(value, Mapping):
            self._owner = None
            reason = self._cut(plain(_string(value, "reason") or "its container was lost"), 40)
            yield Piece(f"! the job is run again: {reason}\n", colour="yellow")
        elif event.get("name") == "log" and isinstance(value, Mapping):
            is_fresh, self._owner = self._owner != "log", "log"
            yield Piece(plain_text(_string(value, "text")), is_fresh=is_fresh)
        elif self._is_full:
            text = f"* {plain(_string(event, 'name'))} {plain(json.dumps(value, ensure_ascii=False))}"
            self._owner = None
            yield Piece(f"{self._cut(text)}\n", colour="dim")

    def _edit(self, value: Event) -> Iterator[Piece]:
        self._owner = None
        operation = _string(value, "operation")
        sign, colour = _SIGNS.get(operation, ("~", "yellow"))
        lines = _hunks(_string(value, "diff"))
        added, removed = (sum(line.startswith(mark) for line in lines) for mark in "+-")
        counts = f" (+{added} -{removed})" if lines else ""
        path = self._cut(plain(_string(value, "path")), 30)
        yield Piece(f"{sign} {plain(operation or 'changed')} {path}{counts}\n", colour=colour)
        kept = lines if self._is_full or len(lines) <= _DIFF_LINES + 1 else lines[:_DIFF_LINES]
        for line in kept:
            tint = {"+": "green", "-": "red", "@": "dim"}.get(line[:1], "")
            yield Piece(f"    {self._raw(line)}".rstrip() + "\n", colour=tint)
        if len(kept) < len(lines):
            yield Piece(f"    ... {len(lines) - len(kept)} more lines ...\n", colour="dim")

    def _end(self, event: Event) -> Iterator[Piece]:
        yield from self._end_text(event)
        yield Piece("")
        outcome = event.get("outcome")
        if isinstance(outcome, Mapping) and outcome.get("type") == "interrupt":
            yield from self._questions(outcome.get("interrupts"))

    def _questions(self, interrupts: object) -> Iterator[Piece]:
        self._owner = None
        for each in interrupts if isinstance(interrupts, list) else ():
            if isinstance(each, Mapping):
                asked = _string(each, "message") or _string(each, "reason") or "it asks for an answer"
                for sign, line in zip(("?", *" " * _MAX_ASKED), asked.splitlines()[:_MAX_ASKED], strict=False):
                    yield Piece(f"{sign} {self._cut(plain(line), 2)}".rstrip() + "\n", colour="yellow")

    def _raw(self, line: str) -> str:
        """Return a line of what a tool wrote as it may be shown: with 4 cells before it."""
        return self._cut(strip_ansi(line if self._is_full else line[: 8 * _MAX_LINE]), 4)

    def _cut(self, text: str, taken: int = 0) -> str:
        """Return one line without more than fits beside `taken` cells."""
        if self._is_full and not self._width:
            return text
        return shorten(text, max((self._width or _MAX_LINE) - taken, 20))


def arguments(text: str) -> str:
    """Return a call's arguments, a JSON object as text, on one harmless line: `path=src/app.py line=3`.

    Of an object with one member only its value is shown. What is no object is shown as it is.
    """
    try:
        found = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return plain(text)
    if not isinstance(found, dict):
        return plain(text)
    if len(found) == 1:
        return shorten(plain(_as_text(next(iter(found.values())))), _MAX_LINE)
    return words(found, _MAX_VALUE)


def result_lines(text: str) -> list[str]:
    """Return the lines of what a tool gave; of a JSON object its short values on one line, then the lines of each long one.

    What is in them may have control characters.
    """
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        return text.rstrip().splitlines()
    long = {name: value for name, value in found.items() if isinstance(value, str) and "\n" in value.rstrip()}
    short = {name: _short(value) for name, value in found.items() if name not in long and value not in ("", None)}
    lines = [words(short, _MAX_LINE)] if short else []
    for name, value in long.items():
        lines += [*([f"{name}:"] if len(long) > 1 else []), *value.rstrip().splitlines()]
    return lines


def words(values: Mapping[str, object], width: int) -> str:
    """Return values with their names on one harmless line: `path=a.py old="a b" line=3`; each in at most `width` cells."""
    return " ".join(f"{plain(name)}={_word(value, width)}" for name, value in values.items())


def _word(value: object, width: int) -> str:
    """Return a value as one word; a text that would be several is put in quotes."""
    text = shorten(plain(_as_text(value)), width)
    return f'"{text}"' if isinstance(value, str) and (" " in text or not text) else text


def _short(value: object) -> object:
    return value.rstrip() if isinstance(value, str) else value


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _hunks(diff: str) -> list[str]:
    """Return the lines of a unified diff from its first hunk on; all of what is none."""
    lines = diff.splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("@@")), 0)
    return lines[first:]


def _string(event: Event, name: str) -> str:
    value = event.get(name)
    return value if isinstance(value, str) else ""
