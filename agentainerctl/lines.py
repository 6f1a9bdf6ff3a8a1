"""Reading what a person types, over one line or several, with what was typed before at hand.

On a terminal the line can be edited (readline), Alt-Enter and pasted text bring newlines, and what was typed is kept in a file of
the person's own. Elsewhere each line is one input. Everywhere a backslash at the end of a line goes on with the next, and
a line of three quotes begins and ends a text of several.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from agentainerd.errors import InvalidParameter

_QUOTES = '"""'
_MAX_KEPT = 1000  # inputs
_KEYS = (r'"\e\C-m": "\C-v\C-j"', r'"\e\C-j": "\C-v\C-j"')


class Lines:
    """What a person types. `prompt` and `more` stand before the first and further lines, on a terminal."""

    def __init__(self, prompt: str, more: str, environment: Mapping[str, str]) -> None:
        self.is_terminal = sys.stdin is not None and sys.stdin.isatty() and sys.stdout.isatty()
        self._prompt, self._more = prompt, more
        self._history = History(environment) if self.is_terminal else None

    def read(self) -> str:
        """Return the next input, which may have newlines in it.

        Raises:
            EOFError: there is no more.
            KeyboardInterrupt: Ctrl-C; what was typed is gone.
            InvalidParameter: it is not UTF-8.
        """
        try:
            text = self._text()
            text.encode()  # bytes that are none were kept as lone surrogates
        except UnicodeError as error:
            raise InvalidParameter("PROMPT", "is not UTF-8") from error
        if self._history:
            self._history.add(text)
        return text

    @contextmanager
    def unseen(self) -> Iterator[None]:
        """Show nothing of what is typed while the body prints; it is there for the next input."""
        if not self.is_terminal:
            yield
            return
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
        silent = [*before]
        silent[3] &= ~termios.ECHO
        termios.tcsetattr(descriptor, termios.TCSANOW, silent)
        try:
            yield
        finally:
            termios.tcsetattr(descriptor, termios.TCSANOW, before)

    def _text(self) -> str:
        text = self._line(self._prompt)
        if text.strip() == _QUOTES:
            return self._block()
        while text.endswith("\\"):
            text = f"{text[:-1]}\n{self._line(self._more)}"
        return text

    def _block(self) -> str:
        lines: list[str] = []
        while (line := self._line(self._more)).strip() != _QUOTES:
            lines.append(line)
        return "\n".join(lines)

    def _line(self, prompt: str) -> str:
        if self.is_terminal:
            return input(prompt)
        line = sys.stdin.buffer.readline() if sys.stdin else b""
        if not line:
            raise EOFError
        return line.decode().removesuffix("\n")


class History:
    """What was typed before, in `chat_history` of the person's state folder: a JSON text a line, mode 0600.

    An input that begins with a space is not kept. Where the file can't be written, nothing is.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        import readline

        self._readline = readline
        for binding in _KEYS:
            readline.parse_and_bind(binding)
        readline.set_auto_history(False)
        home = environment.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        self.path = os.path.join(home, "agentainer", "chat_history")
        kept = self._load()
        for text in kept[-_MAX_KEPT:]:
            readline.add_history(text)
        if len(kept) > 2 * _MAX_KEPT:
            self._write(kept[-_MAX_KEPT:], os.O_TRUNC)

    def add(self, text: str) -> None:
        """Keep an input, unless it is empty, begins with a space, or is the last one again."""
        length = self._readline.get_current_history_length()
        if not text.strip() or text.startswith(" ") or (length and self._readline.get_history_item(length) == text):
            return
        self._readline.add_history(text)
        self._write([text], os.O_APPEND)

    def _load(self) -> list[str]:
        found: list[str] = []
        try:
            with open(self.path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    try:
                        text = json.loads(line)
                    except ValueError:
                        continue  # torn, as the disk was full
                    if isinstance(text, str):
                        found.append(text)
        except OSError:
            pass
        return found

    def _write(self, texts: list[str], mode: int) -> None:
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | mode, 0o600)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.writelines(json.dumps(text) + "\n" for text in texts)
        except OSError:
            pass
