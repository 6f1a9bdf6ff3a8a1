"""How far long work on a backup is, and the way to end it."""


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

    def did(self, count: int) -> None:
        """Note so many bytes.

        Raises:
            Cancelled: it is not wanted any more.
        """
        self.bytes += count
        if self.cancelled:
            raise Cancelled
