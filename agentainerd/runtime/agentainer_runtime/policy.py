"""Which commands run_command runs: `off` (all of them), `list`, or `confirm` (a person is asked about what is not on the list).

The list keeps a model on its task and catches what goes wrong by accident or by a text it has read; it is no boundary, for
python, node and make run any program from a file. Every simple command of a line is judged: its name, its options, where its
words and redirections lead. One simple command is run without a shell, everything else as `shell.write` puts it.
"""

import fnmatch
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agentainer_runtime import escapes, shell
from agentainer_runtime.tool import STATE_FOLDER

MODE = "AGENT_COMMANDS"
ALSO_ALLOWED = "AGENT_COMMANDS_ALLOWED"
ALLOWED = escapes.names(
    """[ bun cargo cat cd cp diff echo false find git go grep head jest ls make mkdir mv node npm pip pnpm printf pwd pytest
    python python3 rg rm rustc sed sleep sort tail test touch true uniq vitest wc yarn"""
)
PRINTERS = frozenset(("echo", "printf", "true", "false", "test", "["))  # what they are given goes nowhere
EXPRESSION_FIRST = frozenset(("awk", "grep", "rg", "sed"))
GIVES_EXPRESSION = re.compile(r"-[^-]*[ef]|--(reg|exp|fi)")  # then all the others are paths
WRITERS = escapes.names("cp ln mkdir mv rm sed touch tee")
SYSTEM = escapes.names("bin boot dev etc home lib lib32 lib64 media mnt opt proc root run sbin srv sys usr var")
DEVICES = frozenset(("/dev/null", "/dev/stdout", "/dev/stderr"))
OUTPUTS = f"{STATE_FOLDER}/outputs"
SETTING_PREFIXES = tuple(
    escapes.names(
        "GIT_ LD_ DYLD_ BASH PYTHON NODE_ NPM_ npm_ YARN_ PNPM_ BUN_ PERL RUBY CARGO RUST GO MAKE SSH_ JAVA_ XDG_ LESS _"
    )
)
BUILT_IN = escapes.names("[ cd echo false printf pwd test true")  # of the shell
SETTINGS = escapes.names(
    """PATH IFS ENV HOME SHELL SHELLOPTS CDPATH PS1 PS2 PS4 EDITOR VISUAL PAGER CC CXX MFLAGS TMPDIR PROMPT_COMMAND GLOBIGNORE
    RIPGREP_CONFIG_PATH TAR_OPTIONS GREP_OPTIONS LOCPATH"""
)
HARMLESS_SETTINGS = escapes.names(
    "NODE_ENV PYTHONPATH PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED PYTHONHASHSEED RUST_BACKTRACE RUST_LOG GOOS GOARCH"
)


class Mode(StrEnum):
    """What is done with a command that the list does not have: nothing is held against it, it is refused, a person decides."""

    OFF = "off"
    LIST = "list"
    CONFIRM = "confirm"


@dataclass(frozen=True, slots=True)
class Decision:
    """`argv` is what to run; `reason` says why it is not on the list, "" if it is."""

    argv: tuple[str, ...]
    reason: str = ""


class NotListed(Exception):
    """A command is refused; the text says why."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A mode and the names of the programs that may be started."""

    mode: Mode
    allowed: frozenset[str] = ALLOWED

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Policy":
        """Read AGENT_COMMANDS (`list` where it is not set) and AGENT_COMMANDS_ALLOWED: names between blanks or commas, which
        are put on the list, or with `-` in front taken from it.

        Raises:
            ValueError: the mode is none of the three.
        """
        mode = environment.get(MODE, "").strip().lower() or Mode.LIST
        if mode not in list(Mode):
            raise ValueError(f"{MODE} is {mode!r}: it must be off, list or confirm")
        names = set(environment.get(ALSO_ALLOWED, "").replace(",", " ").split())
        return cls(
            Mode(mode),
            frozenset(name for name in ALLOWED | names if f"-{name}" not in names and not name.startswith("-")),
        )

    def judge(self, command: str, workspace: Path, directory: str = ".") -> Decision:
        """Return how to run `command`, which begins in `directory` of the workspace, and whether the list has it."""
        if self.mode is Mode.OFF:
            return Decision(_by_shell(command))
        try:
            script = shell.parse(command)
            _Judge(self.allowed, workspace).script(script, {posixpath.normpath(directory)})
        except (shell.Refused, NotListed) as exc:
            return Decision(
                _by_shell(command), f"Command not allowed: {exc}. Allowed: {' '.join(sorted(self.allowed))}"
            )
        return Decision(_without_shell(script) or ("/bin/sh", "-c", shell.write(script)))


def _by_shell(command: str) -> tuple[str, ...]:
    return ("/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh", "-c", command)


def _without_shell(script: shell.Script) -> tuple[str, ...]:
    """Return the words of the one simple command that a script is; () if it is more than that, or the shell's own."""
    (command, operator), *more = script.steps
    words = command.words
    if more or operator not in ("", "\n", ";") or command.assignments or command.redirections or command.body:
        return ()
    if not all(word.is_literal for word in words) or words[0].text in BUILT_IN:
        return ()
    return tuple(word.text for word in words)


class _Judge:
    """Goes through one command line. Places are folders relative to the workspace in which a command may be run."""

    def __init__(self, allowed: frozenset[str], workspace: Path) -> None:
        self._allowed = allowed
        self._workspace = str(workspace)

    def script(self, script: shell.Script, places: set[str]) -> None:
        """Judge all of it.

        After `cd X &&` the place is X; after any other operator it is also where it was, for a `cd` may have failed, or have
        been that of another process.
        """
        seen = set(places)
        for command, operator in script.steps:
            if command.body is not None:
                self.script(command.body, set(places))
            after = self._command(command, places)
            seen |= after
            places = after if operator == "&&" else set(seen)

    def _command(self, command: shell.Command, places: set[str]) -> set[str]:
        for variable, value in command.assignments:
            self._assignment(variable, value, places)
        for item in command.redirections:
            self._redirection(item, places)
        for word in [*command.words, *(value for _, value in command.assignments)]:
            for part in word.parts:
                if part.inner is not None:
                    self.script(part.inner, set(places))
        if not command.words:
            return places
        name = command.words[0]
        if not name.is_literal or name.text not in self._allowed:
            raise NotListed(name.text or "a name that is not written out")
        if name.text == "cd":
            return self._cd(command.words[1:], places)
        self._arguments(name.text, command.words[1:], places)
        if name.text == "sed":
            command.words.insert(1, shell.Word((shell.Part("literal", "--sandbox"),)))
        return places

    def _assignment(self, name: str, value: shell.Word, places: set[str]) -> None:
        if name not in HARMLESS_SETTINGS and (name in SETTINGS or name.startswith(SETTING_PREFIXES)):
            raise NotListed(f"{name}= changes which programs are run")
        if name in HARMLESS_SETTINGS:
            if not value.is_literal:
                raise NotListed(f"{name}= takes a value that is written out")
            for path in value.text.split(":"):
                self._path(path, places, writes=False)

    def _redirection(self, item: shell.Redirection, places: set[str]) -> None:
        if item.operator.endswith("&"):
            return
        if not item.target.is_literal:
            raise NotListed(f"{item.operator} takes a file that is written out")
        self._path(item.target.text, places, writes=">" in item.operator)

    def _cd(self, words: Sequence[shell.Word], places: set[str]) -> set[str]:
        if len(words) != 1 or not words[0].is_literal or words[0].text.startswith("-"):
            raise NotListed("cd takes one folder of the workspace, written out")
        self._path(words[0].text, places, writes=False)
        return {self._joined(place, words[0].text) for place in places}

    def _arguments(self, name: str, words: Sequence[shell.Word], places: set[str]) -> None:
        if name in PRINTERS:
            return
        pattern = _pattern(name, [word.text for word in words])
        for at, word in enumerate(words):
            if not word.is_known:
                raise NotListed(f"{name} with a variable or $( ) in its arguments: write them out")
            if escapes.is_guarded(name) and not word.is_literal and word.parts[0].kind == "glob":
                raise NotListed(f"{name} {word.text} may expand to an option: write ./{word.text}")
            for candidate in _candidates(word.text) if at != pattern else ():
                self._path(candidate, places, writes=name in WRITERS)
        if name == "rm" and any(self._joined(place, word.text) == "." for word in words for place in places):
            raise NotListed("rm of the whole workspace, which has the runtime's own folder in it")
        if why := escapes.reason(name, [word.text for word in words]):
            raise NotListed(why)

    def _path(self, text: str, places: set[str], *, writes: bool) -> None:
        """Refuse what leads out of the workspace and /tmp, into the runtime's folder, or writes into git's."""
        for place in places:
            joined = self._joined(place, text)
            if self._is_outside(joined, text, place, writes):
                raise NotListed(f"{text} is outside {self._workspace}")
            parts = joined.split("/")
            if any(_may_be(part, STATE_FOLDER) for part in parts) and (
                writes or not (joined + "/").startswith(OUTPUTS + "/")
            ):
                raise NotListed(f"{text} is the runtime's own")
            if writes and any(_may_be(part, ".git") for part in parts):
                raise NotListed(f"{text} is git's own: use git's commands")

    def _joined(self, place: str, text: str) -> str:
        """Return where `text` leads, relative to the workspace where it is below it, else absolute, or with `..` in front."""
        path = posixpath.normpath(posixpath.join(self._workspace, place, text))
        path = "/" + path.lstrip("/")
        if path == self._workspace:
            return "."
        return path.removeprefix(self._workspace + "/")

    def _is_outside(self, joined: str, text: str, place: str, writes: bool) -> bool:
        if any(_may_be(part, "..") for part in text.split("/") if part != ".."):
            return True
        if joined.startswith("/") and not text.startswith("/") and not place.startswith("/"):
            return True  # `..` goes nowhere but up
        if joined in DEVICES or joined == "/tmp" or joined.startswith("/tmp/"):
            return False
        if not joined.startswith("/"):
            return self._leads_out(posixpath.join(place, text))
        first = joined.split("/")[1]
        if text.startswith("/"):  # what does not exist is as well a pattern, a route, an expression
            return writes or not first or first in SYSTEM or any(sign in first for sign in "*?[")
        return True

    def _leads_out(self, path: str) -> bool:
        """Whether a symbolic link on the way leads out, as things are now; of a glob, on the way to it."""
        parts = path.split("/")
        known = next((at for at, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
        workspace = os.path.realpath(self._workspace)
        real = os.path.realpath(os.path.join(workspace, "/".join(parts[:known])))
        return not (real + "/").startswith((workspace + "/", "/tmp/")) and real not in DEVICES


def _may_be(part: str, name: str) -> bool:
    """Whether a component is `name`, or has globs and may expand to it; a dot is never what a glob stands for."""
    has_glob = part.startswith(".") and any(sign in part for sign in "*?[")
    return part == name or (has_glob and fnmatch.fnmatchcase(name, part))


def _pattern(name: str, arguments: list[str]) -> int:
    """Return which argument is an expression and no path, as in `grep -n /lib/ a.ts`; -1 where none is."""
    if name not in EXPRESSION_FIRST or any(GIVES_EXPRESSION.match(argument) for argument in arguments):
        return -1
    return next((at for at, argument in enumerate(arguments) if not argument.startswith("-")), -1)


def _candidates(text: str) -> set[str]:
    """Return what in an argument may be a path: all of it, the value of an option, what follows `:`."""
    found = {text}
    if text.startswith("-") and not text.startswith("--"):
        found.add(text[2:])
    for sign in "=:":
        found |= set(text.split(sign)[1:])
    return {candidate for candidate in found if candidate}
