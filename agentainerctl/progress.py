"""What is going on, on stderr: on a terminal one region that is rewritten and folds away, elsewhere plain lines.

Nothing here is data. With `-q` or machine output nothing is shown at all.
"""

import signal
import sys
import time
from collections.abc import Callable, Sequence

from agentainerctl.output import display_width, is_terminal, terminal_width

_FRAMES = "|/-\\"
_QUIET_S = 0.5  # a wait shorter than this is not shown
_REDRAW_INTERVAL_S = 0.08
TICK_INTERVAL_S = 0.2


class Region:
    """The lines at the bottom of the terminal that say what is going on.

    `is_live` False (not a terminal): `show` does nothing and `say` prints plain lines. `is_silent`: nothing prints.
    """

    def __init__(self, *, is_silent: bool = False) -> None:
        self._stream = sys.stderr
        self.is_silent = is_silent
        self.is_live = not is_silent and is_terminal(self._stream)
        self._height = 0
        self._drawn_at = 0.0

    def show(self, lines: Sequence[str], *, at_once: bool = False) -> None:
        """Put `lines` in place of what the region showed; more often than a person can see, it waits."""
        if not self.is_live:
            return
        now = time.monotonic()
        if not at_once and now - self._drawn_at < _REDRAW_INTERVAL_S:
            return
        self._drawn_at = now
        width = terminal_width(self._stream)
        self._stream.write(self._erasing() + "".join(f"{_cut(line, width - 1)}\n" for line in lines))
        self._stream.flush()
        self._height = len(lines)

    def say(self, line: str) -> None:
        """Print a line that stays, above the region."""
        if self.is_silent:
            return
        self._stream.write(f"{self._erasing()}{line}\n")
        self._stream.flush()
        self._height = 0

    def clear(self) -> None:
        """Take the region away."""
        if self._height:
            self._stream.write(self._erasing())
            self._stream.flush()
            self._height = 0

    def _erasing(self) -> str:
        return f"\x1b[{self._height}A\r\x1b[J" if self._height else ""


class Ticking:
    """Calls `tick` with the seconds so far, again and again while the body of a `with` waits for something.

    By an alarm, so whatever is waited for is not disturbed; only on the main thread, and where nothing in the body prints.
    """

    def __init__(self, tick: Callable[[float], None]) -> None:
        self._tick = tick
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.monotonic()
        signal.signal(signal.SIGALRM, self._ring)
        signal.setitimer(signal.ITIMER_REAL, _QUIET_S, TICK_INTERVAL_S)

    def __exit__(self, *exception: object) -> None:
        self.stop()

    @staticmethod
    def stop() -> None:
        """Let no alarm come any more, also where Ctrl-C kept the body's end from doing so."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_IGN)

    def _ring(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what is drawn is drawn whole
        try:
            self._tick(time.monotonic() - self._began)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


class Waiting:
    """A line with the seconds that pass, for a call that takes its time. Use it as a context and as the call's `tick`."""

    def __init__(self, text: str, *, is_silent: bool = False) -> None:
        self._region = Region(is_silent=is_silent)
        self._text = text
        self._began = time.monotonic()

    def __enter__(self) -> "Waiting":
        return self

    def __call__(self) -> None:
        """Show the seconds so far."""
        seconds = time.monotonic() - self._began
        if seconds >= _QUIET_S:
            self._region.show([waiting_line(self._text, seconds)])

    def __exit__(self, *exception: object) -> None:
        self._region.clear()


def waiting_line(text: str, seconds: float) -> str:
    """Return a line that says for how long `text` has been going on, and moves."""
    return f"{_FRAMES[int(seconds * 5) % len(_FRAMES)]} {text} ... {seconds:.0f} s"


def bar(current: int, total: int, width: int = 20) -> str:
    """Return a bar of `width` characters, "" where the total is unknown."""
    if total <= 0:
        return ""
    filled = min(width, width * current // total)
    return f"[{'=' * filled}{' ' * (width - filled)}]"


def _cut(line: str, width: int) -> str:
    while display_width(line) > width:
        line = line[: max(0, min(len(line) - 1, width))]
    return line
