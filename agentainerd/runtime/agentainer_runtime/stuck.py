"""Is the model going round in circles? Seen from what it did and what came of it; from its words where it did nothing."""

from collections import deque
from enum import Enum

_SAME = 4
_SAME_ERROR = 3
_SAME_WORDS = 3
_CYCLES = (2, 3)
_ROUNDS = 3
_WINDOW = 10  # calls with their results: the last 20 events


class Verdict(Enum):
    """What to do: go on, say it to the model, end the run."""

    FINE = "fine"
    NUDGE = "nudge"
    STUCK = "stuck"


NUDGE = (
    "You are repeating the same calls or words, and the same comes of them. Do something else: look at what you got, "
    "try another way, or say what keeps you from going on."
)


class Repetitions:
    """What a model did last in one run. The first time that repeats itself is a NUDGE, going on like that is STUCK.

    That is: the same call with the same result 4 times in a row; the same call failing 3 times, however; two or three of them in
    turns, 3 times (fewer are a poll); or the same words 3 times with no call between them. A call that is made again because
    something else was done in between is work: a test after each edit.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[str, str, bool]] = deque(maxlen=_WINDOW)
        self._said: deque[str] = deque(maxlen=_SAME_WORDS)
        self._is_nudged = False

    def add(self, action: str, result: str, *, is_error: bool) -> Verdict:
        """Note a call (name and arguments) with its result."""
        self._said.clear()
        self._last.append((action, result, is_error))
        return self._verdict(is_repeating=self._is_circling())

    def say(self, text: str) -> Verdict:
        """Note an answer that has no calls, and is not the end of the work."""
        self._said.append(" ".join(text.split()))
        return self._verdict(is_repeating=len(self._said) == _SAME_WORDS and len(set(self._said)) == 1)

    def _verdict(self, *, is_repeating: bool) -> Verdict:
        if not is_repeating:
            return Verdict.FINE
        if self._is_nudged:
            return Verdict.STUCK
        self._is_nudged = True
        return Verdict.NUDGE

    def _is_circling(self) -> bool:
        calls = list(self._last)
        same, failed = calls[-_SAME:], calls[-_SAME_ERROR:]
        if len(same) == _SAME and len({call[:2] for call in same}) == 1:
            return True
        if len(failed) == _SAME_ERROR and all(call[2] for call in failed) and len({call[0] for call in failed}) == 1:
            return True
        return any(_is_cycle(calls[-_ROUNDS * length :], length) for length in _CYCLES)


def _is_cycle(calls: list[tuple[str, str, bool]], length: int) -> bool:
    """Whether these are the same `length` calls with the same results, again and again."""
    is_whole = len(calls) == _ROUNDS * length
    return is_whole and all(calls[n][:2] == calls[n + length][:2] for n in range(len(calls) - length))
