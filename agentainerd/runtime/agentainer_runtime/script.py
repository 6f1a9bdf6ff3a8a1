"""The provider `script/FILE`: no model, but turns of a file, played to whom they fit. What it is called says so everywhere.

The file is a list of turns, as JSON or YAML:

    - when: {user: "fix .* test", tool: "1 failed"}    regular expressions; what is not there fits anything
      thinking: "The sum is off by one."
      text: "I look at it: {{input}}"                  {{input}}: what the user said last; {{tool}}: the output of tools
      calls: [{name: run_command, arguments: {command: "pytest -q"}}]
      times: 1                                         how often in one conversation; 0: again and again
      first_token_s: 0                                 time before the answer
      pause_s: 0                                       time between its words
      error: "overloaded"                              the call fails with this text

A turn is played once in a conversation, the first that fits. Which ones were played is seen from the conversation itself, so
that it goes on where it was after a restart.
"""

import asyncio
import json
import re
import uuid
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from agentainer_runtime.conversations import Message
from agentainer_runtime.endpoints import SCRIPT_PREFIX
from agentainer_runtime.provider import Call, End, ModelFailed, Piece, Reasoning, Request, Text, Usage

_MAX_BYTES = 4 * 1024 * 1024
_WHEN = {"system", "user", "tool"}


class InvalidScript(ModelFailed):
    """A file of turns is not there, or is none."""


@dataclass(frozen=True)
class Turn:
    """One answer; see the module."""

    text: str = ""
    thinking: str = ""
    calls: tuple[dict[str, Any], ...] = ()
    when: dict[str, str] | None = None
    times: int = 1
    first_token_s: float = 0.0
    pause_s: float = 0.0
    error: str = ""

    def fits(self, messages: Sequence[Message]) -> bool:
        """Whether all its expressions are found in what was really said."""
        return all(re.search(pattern, said(messages, of), re.DOTALL) for of, pattern in (self.when or {}).items())


class ScriptProvider:
    """Plays the turns of one file. Holds nothing between two answers."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns

    async def answer(self, request: Request) -> AsyncGenerator[Piece, None]:
        """See Provider.answer."""
        turn = choose(self._turns, request.messages)
        await asyncio.sleep(turn.first_token_s)
        if turn.error:
            raise ModelFailed(turn.error)
        thinking, text = (_filled(each, request.messages) for each in (turn.thinking, turn.text))
        for word in re.findall(r"\s*\S+|\s+", thinking):
            yield Reasoning(word)
            await asyncio.sleep(turn.pause_s)
        for word in re.findall(r"\s*\S+|\s+", text):
            yield Text(word)
            await asyncio.sleep(turn.pause_s)
        for call in turn.calls:
            arguments = call.get("arguments", {})
            filled = (
                arguments if isinstance(arguments, str) else json.dumps(_filled_values(arguments, request.messages))
            )
            yield Call(call.get("id") or f"call_{uuid.uuid4().hex[:24]}", call["name"], filled)
        read = sum(len(str(message.get("content") or "")) for message in request.messages)
        usage = Usage(input_tokens=read // 4 + 1, output_tokens=(len(thinking) + len(text)) // 4 + 1)
        yield End("tool_calls" if turn.calls else "stop", usage)

    async def close(self) -> None:
        """See Provider.close."""


def load(model: str, folders: Sequence[Path]) -> ScriptProvider:
    """Return what plays `script/FILE`, from the first of the folders that has it. No FILE leads out of them.

    Raises:
        InvalidScript: none has it, or it is no list of turns.
    """
    name = model.removeprefix(SCRIPT_PREFIX)
    path = next((path for folder in folders if (path := _within(folder, name)).is_file()), None)
    if path is None:
        places = ", ".join(str(folder) for folder in folders)
        raise InvalidScript(f"there is no file {name} for the model {model}: looked in {places}")
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has more than {_MAX_BYTES} bytes")
        entries = _parse(path)
        if not isinstance(entries, list) or not entries:
            raise ValueError("it is not a list of turns")
        return ScriptProvider([_turn(entry, number) for number, entry in enumerate(entries, 1)])
    except (OSError, ValueError) as error:
        raise InvalidScript(f"{path}: {error}") from error


def _within(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    return path if path.is_relative_to(folder.resolve()) else folder


def choose(turns: Sequence[Turn], messages: Sequence[Message]) -> Turn:
    """Return the turn to play now: what was played before is found by playing the conversation again.

    Raises:
        ModelFailed: no turn fits.
    """
    left = [turn.times or -1 for turn in turns]
    for place, message in enumerate(messages):
        if message["role"] == "assistant":
            number = _fitting(turns, left, messages[:place])
            if number is not None:
                left[number] -= 1
    number = _fitting(turns, left, messages)
    if number is None:
        raise ModelFailed("the script has no turn for what was said: " + said(messages, "user")[:200])
    return turns[number]


def said(messages: Sequence[Message], of: str) -> str:
    """Return the system's words, the user's last, or (of "tool") the outputs since the assistant's last words."""
    if of == "system":
        return "\n".join(_text(each) for each in messages if each["role"] == "system")
    if of == "user":
        return next((_text(each) for each in reversed(messages) if each["role"] == "user"), "")
    outputs: list[str] = []
    for message in reversed(messages):
        if message["role"] != "tool":
            break
        outputs.insert(0, _text(message))
    return "\n".join(outputs)


def _fitting(turns: Sequence[Turn], left: list[int], messages: Sequence[Message]) -> int | None:
    return next((n for n, turn in enumerate(turns) if left[n] and turn.fits(messages)), None)


def _filled(text: str, messages: Sequence[Message]) -> str:
    return text.replace("{{input}}", said(messages, "user")).replace("{{tool}}", said(messages, "tool"))


def _filled_values(value: Any, messages: Sequence[Message]) -> Any:
    if isinstance(value, str):
        return _filled(value, messages)
    if isinstance(value, dict):
        return {name: _filled_values(each, messages) for name, each in value.items()}
    return [_filled_values(each, messages) for each in value] if isinstance(value, list) else value


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content)
    return str(content or "")


def _parse(path: Path) -> object:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    import yaml  # takes 20 ms, which only scripts need

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error


def _turn(entry: object, number: int) -> Turn:
    known = {each.name for each in fields(Turn)}
    if not isinstance(entry, dict) or not set(entry) <= known:
        raise ValueError(f"turn {number} is not an object with some of {', '.join(sorted(known))}")
    when = entry.get("when") or {}
    if not isinstance(when, dict) or not set(when) <= _WHEN or not all(isinstance(text, str) for text in when.values()):
        raise ValueError(f"turn {number}: when takes {', '.join(sorted(_WHEN))}, each a regular expression")
    try:
        for pattern in when.values():
            re.compile(pattern)
    except re.error as error:
        raise ValueError(f"turn {number}: {error}") from error
    calls = entry.get("calls") or ()
    if not isinstance(calls, list | tuple) or not all(
        isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls
    ):
        raise ValueError(f"turn {number}: calls is a list of objects with name and arguments")
    return Turn(**{**entry, "when": when, "calls": tuple(calls)})
