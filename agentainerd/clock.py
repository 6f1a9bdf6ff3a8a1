"""The clock of requests and restarts: Unix time that nobody sets.

A deadline is a length of time that was promised. So it is told by what has passed since the process started (suspended or
not, CLOCK_BOOTTIME), beside the wall clock of that moment: whoever sets the wall clock expires nothing and delays nothing.
"""

import time

_STARTED_AT = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def now() -> float:
    """Return seconds since 1970: the wall clock as it was at the start of this process, and what has passed since."""
    return _STARTED_AT + time.clock_gettime(time.CLOCK_BOOTTIME)
