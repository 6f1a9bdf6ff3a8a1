"""Is the model going round in circles? Seen from what it did and what came of it, never from what it says."""

from collections import deque
from enum import Enum

_SAME = 4
_SAME_ERROR = 3
_ALTERNATIONS = 3


class Verdict(Enum):
    """What to do: go on, say it to the model, end the run."""

    FINE = "fine"
    NUDGE = "nudge"
    STUCK = "stuck"


NUDGE = (
    "You are repeating the same calls, and the same comes of them. Do something else: look at what you got, try another way, "
    "or say what keeps you from going on."
)


class Repetitions:
    """The last calls of one run. The first time they repeat themselves is a NUDGE, going on like that is STUCK.

    That is: the same call with the same result 4 times in a row, the same call failing 3 times, or two of them in turns 3 times.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[str, str, bool]] = deque(maxlen=2 * _ALTERNATIONS)
        self._is_nudged = False

    def add(self, action: str, result: str, *, is_error: bool) -> Verdict:
        """Note a call (name and arguments) with its result."""
        self._last.append((action, result, is_error))
        if not self._is_repeating():
            return Verdict.FINE
        if self._is_nudged:
            return Verdict.STUCK
        self._is_nudged = True
        return Verdict.NUDGE

    def _is_repeating(self) -> bool:
        calls = list(self._last)
        same = calls[-_SAME:]
        if len(same) == _SAME and len({call[:2] for call in same}) == 1:
            return True
        failed = calls[-_SAME_ERROR:]
        if len(failed) == _SAME_ERROR and all(call[2] for call in failed) and len({call[0] for call in failed}) == 1:
            return True
        pairs = {(calls[n][:2], calls[n + 1][:2]) for n in range(0, len(calls) - 1, 2)}
        return len(calls) == 2 * _ALTERNATIONS and len(pairs) == 1
