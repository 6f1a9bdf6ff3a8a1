"""The analysis of a task: what a model answers, read as a list of actions that can be carried out. Pure."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

SHELL = "shell_command"
PYTHON = "python_code"
MAX_ACTIONS = 50
MAX_BYTES = 256 * 1024
"""Of the whole answer: each action has to fit an event."""
_FIELDS = {SHELL: ("command", "working_dir"), PYTHON: ("code", "output_file")}
_MAX_LABEL_CHARS = 80
_MAX_PLACES = 20
_FENCED = re.compile(r"```[\w+-]*[ \t]*\n(.*?)```", re.DOTALL)


class Unusable(Exception):
    """An answer is no analysis; the text says what is wrong with it, for the model."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do.

    Attributes:
        kind: SHELL or PYTHON. body: the command line, or the program. place: where the command begins, or the file that gets what
            the program prints; "" where nothing was said.
    """

    kind: str
    description: str
    body: str
    place: str = ""

    def public(self) -> dict[str, Any]:
        """Return it as the document has it."""
        body, place = _FIELDS[self.kind]
        told = {"type": self.kind, "description": self.description, body: self.body}
        return {**told, place: self.place} if self.place else told

    def arguments(self) -> dict[str, str]:
        """Return it as the arguments of a call: what is run comes first."""
        body, place = _FIELDS[self.kind]
        told = {body: self.body, place: self.place, "description": self.description}
        return {name: value for name, value in told.items() if value}

    @property
    def label(self) -> str:
        """A line that says what it is."""
        said = "".join(sign if sign.isprintable() else " " for sign in self.description or self.body)
        line = " ".join(said.split())
        return line if len(line) <= _MAX_LABEL_CHARS else f"{line[: _MAX_LABEL_CHARS - 3]}..."


@dataclass(frozen=True, slots=True)
class Analysis:
    """What is to be done, in this order, how long it may take and what it needs, in the model's words."""

    actions: tuple[Action, ...]
    estimated_time: str = ""
    requirements: tuple[str, ...] = ()

    def public(self) -> dict[str, Any]:
        """Return it as the document has it."""
        return {
            "actions": [action.public() for action in self.actions],
            "estimated_time": self.estimated_time,
            "requirements": list(self.requirements),
        }


def parse(text: str, *, may_be_empty: bool = False) -> Analysis:
    """Read an answer: the JSON object alone, in a fence, or with words around it.

    Raises:
        Unusable: there is none, or an action of it can't be carried out. `may_be_empty`: no action is one, too.
    """
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_BYTES:
        raise Unusable(f"it has {size} bytes, more than {MAX_BYTES}")
    found = [each for each in _objects(text) if isinstance(each, dict)]
    told = next((each for each in found if "actions" in each), None)
    if told is None:
        raise Unusable("it has no JSON object with `actions`")
    entries = told["actions"]
    if not isinstance(entries, list) or (not entries and not may_be_empty):
        raise Unusable("`actions` is not a list of at least one action")
    if len(entries) > MAX_ACTIONS:
        raise Unusable(f"it has {len(entries)} actions, more than {MAX_ACTIONS}: put what belongs together into one")
    actions = tuple(_action(entry, number) for number, entry in enumerate(entries, 1))
    needs = told.get("requirements")
    needs = needs if isinstance(needs, list) else [needs] if needs else []
    return Analysis(actions, str(told.get("estimated_time") or ""), tuple(str(each) for each in needs))


def _objects(text: str) -> Iterator[object]:
    """Give what in the text may be the object, the likeliest first; what is no JSON is left out."""
    decoder = json.JSONDecoder()
    places = [match.start() for match in re.finditer(r"\{", text)][:_MAX_PLACES]
    for whole, begins in ((text.strip(), (0,)), *((each, (0,)) for each in _FENCED.findall(text)), (text, places)):
        for begin in begins:
            with suppress(ValueError, RecursionError):
                yield decoder.raw_decode(whole, begin)[0]


def _action(entry: object, number: int) -> Action:
    if not isinstance(entry, dict) or entry.get("type") not in _FIELDS:
        raise Unusable(f"action {number} has no `type` that is {' or '.join(_FIELDS)}")
    kind = entry["type"]
    values = {}
    for name in ("description", *_FIELDS[kind]):
        value = entry.get(name)
        values[name] = "" if value is None else value
        if not isinstance(values[name], str) or not _is_sound(values[name]):
            raise Unusable(f"`{name}` of action {number} is not a text, or has a NUL in it")
    body, place = _FIELDS[kind]
    if not values[body].strip():
        raise Unusable(f"`{body}` of action {number} is empty")
    return Action(kind, values["description"], values[body], values[place].strip())


def _is_sound(text: str) -> bool:
    """Whether a program can be given it."""
    return "\0" not in text and text == text.encode("utf-8", "replace").decode()
