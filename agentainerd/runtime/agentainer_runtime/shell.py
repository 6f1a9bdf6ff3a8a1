"""The part of the shell's language that a command policy can judge: parsed as a shell does it, and written out again.

What is written out is what was understood, every literal quoted, so that no shell reads it in another way. Anything else is
refused: reserved words and functions (they are names of commands here, which no list has), here-documents, arithmetic, brace
expansion, `~`, `$'...'`, parameters beyond `$NAME`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|\{[A-Za-z_][A-Za-z0-9_]*\}|\?")
NUMBER_BEFORE_REDIRECTION = re.compile(r"[0-9]*(?=[<>])")
OPERATORS = ("&&", "||", ";", "&", "|", "\n")
REDIRECTIONS = (">>", ">&", "<&", ">|", "<>", "<<", ">", "<")
BLANK = " \t"
ENDS_WORD = frozenset(" \t\n;&|<>()")
PLAIN = re.compile(r"[A-Za-z0-9_./@%+=:,^!-]*")
BRACES = re.compile(r"\{[^{}]*(,|\.\.)[^{}]*\}")
MAX_LENGTH = 50_000
MAX_DEPTH = 10


class Refused(Exception):
    """A command can't be judged; the text says what is in it, for the model."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a word. `kind`: literal, glob (`*`, `?`, `[`...`]`, unquoted), variable (its name) or command (see `inner`)."""

    kind: str
    text: str
    quoted: bool = False
    inner: "Script | None" = None


@dataclass(frozen=True, slots=True)
class Word:
    """One word: `text` is its value where `is_literal`."""

    parts: tuple[Part, ...]

    @property
    def is_literal(self) -> bool:
        """Whether it stands for itself: no glob, no variable, no command in it."""
        return all(part.kind == "literal" for part in self.parts)

    @property
    def is_known(self) -> bool:
        """Whether it is written out but for globs."""
        return all(part.kind in ("literal", "glob") for part in self.parts)

    @property
    def text(self) -> str:
        """Its value, with globs as they are written; variables and commands are left out."""
        return "".join(part.text for part in self.parts if part.kind in ("literal", "glob"))


@dataclass(frozen=True, slots=True)
class Redirection:
    """`operator` with its number in front, if there was one: `2>`, `>&`. The target of a duplication is a number or `-`."""

    operator: str
    target: Word


@dataclass(slots=True)
class Command:
    """A simple command, or a subshell in parentheses (`body`)."""

    assignments: list[tuple[str, Word]] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    redirections: list[Redirection] = field(default_factory=list)
    body: "Script | None" = None


@dataclass(slots=True)
class Script:
    """Commands, each with the operator after it ("" after the last)."""

    steps: list[tuple[Command, str]] = field(default_factory=list)

    def commands(self) -> Iterator[Command]:
        """Give every command in it, those of subshells and substitutions, too."""
        for command, _ in self.steps:
            yield command
            if command.body:
                yield from command.body.commands()
            targets = [redirection.target for redirection in command.redirections]
            for word in [*command.words, *(value for _, value in command.assignments), *targets]:
                for part in word.parts:
                    if part.inner:
                        yield from part.inner.commands()


def parse(text: str) -> Script:
    """Return what `text` says.

    Raises:
        Refused: it is not complete, or has something that is not judged.
    """
    if len(text) > MAX_LENGTH:
        raise Refused(f"the command has {len(text)} characters, more than {MAX_LENGTH}")
    if "\0" in text or "\r" in text:
        raise Refused("the command has a NUL or a carriage return in it")
    parser = _Parser(text)
    script = parser.script(closing="")
    if not script.steps:
        raise Refused("the command is empty")
    return script


def write(script: Script) -> str:
    """Return the script as text for any POSIX shell."""
    texts = []
    for command, operator in script.steps:
        texts.append(_write_command(command))
        texts.append(";" if operator == "\n" else operator)
    if texts and texts[-1] == ";":
        texts.pop()
    return " ".join(text for text in texts if text)


def quote(text: str) -> str:
    """Return `text` as one literal word of a shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _write_command(command: Command) -> str:
    texts = [f"{name}={_write_word(value)}" for name, value in command.assignments]
    if command.body is not None:
        texts.append(f"( {write(command.body)} )")
    texts += [_write_word(word) for word in command.words]
    texts += [f"{item.operator}{_write_target(item)}" for item in command.redirections]
    return " ".join(texts)


def _write_target(item: Redirection) -> str:
    return item.target.text if item.operator.endswith("&") else " " + _write_word(item.target)


def _write_word(word: Word) -> str:
    has_glob = any(part.kind == "glob" for part in word.parts)
    return "".join(_write_part(part, bare=has_glob) for part in word.parts) or "''"


def _write_part(part: Part, bare: bool) -> str:
    """With `bare`, what was not quoted stays so: quotes would change what a bracket of a glob means."""
    if part.kind == "literal":
        return part.text if bare and not part.quoted and PLAIN.fullmatch(part.text) else quote(part.text)
    if part.kind == "glob":
        return part.text
    text = f"${{{part.text}}}" if part.inner is None else f"$( {write(part.inner)} )"
    return f'"{text}"' if part.quoted else text


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def script(self, closing: str) -> Script:
        """Read up to `closing` (")", or "" for the end), which is taken."""
        script = Script()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Refused("the command is nested too deeply")
        while True:
            self._skip_blank(lines=True)
            if self._take(closing) if closing else self._at == len(self._text):
                break
            command = self._command()
            script.steps.append((command, self._operator(closing)))
        self._depth -= 1
        if script.steps and script.steps[-1][1] in ("&&", "||", "|"):
            raise Refused(f"nothing follows the last {script.steps[-1][1]}")
        if closing and not script.steps:
            raise Refused("there is nothing in the parentheses")
        return script

    def _command(self) -> Command:
        command = Command()
        while True:
            self._skip_blank()
            following = self._peek()
            if following == "(":
                self._subshell(command)
            elif redirection := self._redirection():
                command.redirections.append(redirection)
            elif following == "" or following in ENDS_WORD:
                break
            elif command.body is not None:
                raise Refused("a word follows the closing parenthesis")
            elif not command.words and (name := self._assignment()):
                command.assignments.append((name, self._word()))
            else:
                command.words.append(self._word())
        if not (command.words or command.assignments or command.body or command.redirections):
            raise Refused(
                f"there is no command before {following!r}" if following else "a command is missing at the end"
            )
        return command

    def _subshell(self, command: Command) -> None:
        if command.words or command.assignments or command.redirections or command.body:
            raise Refused("( stands inside a command: functions, arrays and process substitution are not run")
        self._at += 1
        if self._peek() == "(":
            raise Refused("(( )) is not run")
        command.body = self.script(closing=")")

    def _operator(self, closing: str) -> str:
        if self._peek() == closing:  # also the end, where that is what closes
            return ""
        for operator in OPERATORS:
            if self._take(operator):
                if operator in "|;" and self._peek() in ("&", ";"):
                    raise Refused(f"{operator}{self._peek()} is not run")
                return operator
        raise Refused(f"{self._peek()!r} is not expected there" if self._peek() else "a ( is not closed")

    def _redirection(self) -> Redirection | None:
        if self._text.startswith("&>", self._at):
            raise Refused("&> is not run: write > file 2>&1")
        found = NUMBER_BEFORE_REDIRECTION.match(self._text, self._at)
        if found is None:
            return None
        self._at = found.end()
        operator = next(sign for sign in REDIRECTIONS if self._text.startswith(sign, self._at))
        self._at += len(operator)
        if len(found.group()) > 1 or operator in ("<<", "<>") or self._peek() == "(":
            raise Refused("here-documents, <> and process substitution are not run: write a file first")
        self._skip_blank()
        if self._peek() == "" or self._peek() in ENDS_WORD:
            raise Refused(f"{operator} has no target")
        target = self._word()
        if operator.endswith("&") and not re.fullmatch(r"[0-9]|-", target.text if target.is_literal else ""):
            raise Refused(f"{operator} takes the number of an open file")
        return Redirection(found.group() + operator, target)

    def _assignment(self) -> str:
        found = ASSIGNMENT.match(self._text, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found.group()[:-1]

    def _word(self) -> Word:
        parts: list[Part] = []
        start = self._at
        while (sign := self._peek()) and sign not in ENDS_WORD:
            if self._at == start and sign in "~#":
                raise Refused(f"{sign} begins a word: quote it, or leave it out; paths are relative to the workspace")
            parts += self._parts(sign)
        bare = "".join(part.text if part.kind == "literal" and not part.quoted else "x" for part in parts)
        if BRACES.search(bare):
            raise Refused("brace expansion is not run: write the words out")
        return Word(tuple(_merged(_without_lone_brackets(parts))))

    def _parts(self, sign: str) -> list[Part]:
        """Read the next piece of a word."""
        if sign == "'":
            end = self._text.find("'", self._at + 1)
            if end < 0:
                raise Refused("a ' is not closed")
            text = self._text[self._at + 1 : end]
            self._at = end + 1
            return [Part("literal", text, quoted=True)]
        if sign == '"':
            return self._double()
        if sign == "$":
            return [self._dollar(quoted=False)]
        if sign == "`":
            raise Refused("backticks are not run: write $( )")
        self._at += 1
        if sign == "\\":
            return self._escaped()
        return [Part("glob" if sign in "*?[]" else "literal", sign)]

    def _escaped(self) -> list[Part]:
        sign = self._peek()
        if not sign:
            raise Refused("a backslash stands at the end")
        self._at += 1
        return [] if sign == "\n" else [Part("literal", sign, quoted=True)]

    def _double(self) -> list[Part]:
        self._at += 1
        parts = [Part("literal", "", quoted=True)]
        while (sign := self._peek()) != '"':
            if not sign:
                raise Refused('a " is not closed')
            if sign == "`":
                raise Refused("backticks are not run: write $( )")
            if sign == "$":
                parts.append(self._dollar(quoted=True))
                continue
            self._at += 1
            if sign == "\\" and self._peek() in ("$", "`", '"', "\\", "\n"):
                parts += self._escaped()
            else:
                parts.append(Part("literal", sign, quoted=True))
        self._at += 1
        return parts

    def _dollar(self, quoted: bool) -> Part:
        self._at += 1
        if found := VARIABLE.match(self._text, self._at):
            self._at = found.end()
            return Part("variable", found.group().strip("{}"), quoted)
        if self._take("("):
            if self._peek() == "(":
                raise Refused("$(( )) is not run")
            return Part("command", "", quoted, self.script(closing=")"))
        if self._peek() and (
            self._peek() in "{@*#$!-'" or self._peek().isdigit() or (self._peek() == '"' and not quoted)
        ):
            raise Refused(f"${self._peek()} is not run: only $NAME, ${{NAME}}, $? and $( ) are")
        return Part("literal", "$", quoted=True)

    def _skip_blank(self, lines: bool = False) -> None:
        while (sign := self._peek()) and (
            sign in BLANK or (lines and sign == "\n") or self._text.startswith("\\\n", self._at)
        ):
            self._at += 2 if sign == "\\" else 1

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, sign: str) -> bool:
        if not self._text.startswith(sign, self._at):
            return False
        self._at += len(sign)
        return True


def _without_lone_brackets(parts: list[Part]) -> list[Part]:
    """Make brackets that enclose nothing literal, as a shell does: `[` is a command."""
    signs = "".join(part.text if part.kind == "glob" else "x" for part in parts)
    if re.search(r"\[.+\]", signs):
        return parts
    return [Part("literal", part.text) if part.kind == "glob" and part.text in "[]" else part for part in parts]


def _merged(parts: list[Part]) -> list[Part]:
    """Join neighbours that are literal in the same way."""
    merged: list[Part] = []
    for part in parts:
        if part.kind == "literal" and merged and merged[-1].kind == "literal" and merged[-1].quoted == part.quoted:
            merged[-1] = Part("literal", merged[-1].text + part.text, part.quoted)
        else:
            merged.append(part)
    return merged
