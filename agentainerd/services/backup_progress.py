"""How far long work on a backup is, and the way to end it."""

import time

from agentainerd import offload

_WORK_S = 0.001
_BREATH_S = 0.00005


class Cancelled(Exception):
    """Whoever wanted it has left."""


class Watch:
    """How far it is, and whether to go on: written by the thread that works, read and cancelled by others."""

    def __init__(self) -> None:
        self.step = ""
        self.entries = 0
        self.bytes = 0
        self.total = 0
        self.cancelled = False
        self._breath = 0.0

    def did(self, count: int) -> None:
        """Note so many bytes, and now and then let the event loop have the interpreter, which it would wait 5 ms for.

        Raises:
            Cancelled: it is not wanted any more.
        """
        self.bytes += count
        now = time.monotonic()
        if now - self._breath > _WORK_S:
            offload.pause(_BREATH_S)
            self._breath = time.monotonic()
        if self.cancelled:
            raise Cancelled
