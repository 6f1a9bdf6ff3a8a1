"""A request's body on its way through: read once from the client, passed on piece by piece, and kept for a second sending.

What is kept is bounded: MAX_MEMORY_BODY_BYTES in memory, above that a spool file, above MAX_REPLAY_BODY_BYTES nothing. A body
over MAX_INLINE_BODY_BYTES gets a file at the latest when it must be durable.
"""

from collections.abc import Callable, Iterator

from agentainerd import defaults
from agentainerd.errors import AgentainerError
from agentainerd.proxy.journal import SpoolWriter
from agentainerd.proxy.request import Request


class Body:
    """The body of one request.

    Attributes:
        size: bytes read so far.
        kept: what was read can be read again (`again`), and is whole once `request.done`.
        lost: why it is not kept, or None: too large, or the error of the spool.
    """

    __slots__ = ("_kept", "_read_more", "_request", "_request_id", "_spool", "_writer", "kept", "lost", "size")

    def __init__(
        self,
        request: Request,
        read_more: Callable[[], None],
        spool: Callable[[str], SpoolWriter] | None,
        request_id: str = "",
    ) -> None:
        self._request = request
        self._read_more = read_more
        self._spool = spool
        self._request_id = request_id
        self._writer: SpoolWriter | None = None
        self._kept: list[bytes] = []
        self.size = 0
        self.kept = True
        self.lost: AgentainerError | None = None

    @property
    def done(self) -> bool:
        """All of it was read."""
        return self._request.done and not self._request.pieces

    @property
    def inline(self) -> bytes:
        """The whole body, where it is small enough for the journal; b"" where it is, or will be, in a file."""
        return b"" if self._writer or self.size > defaults.MAX_INLINE_BODY_BYTES else b"".join(self._kept)

    def take(self) -> bytes:
        """Return what has arrived and was not taken yet, and keep it."""
        pieces = self._request.pieces
        if not pieces:
            return b""
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size += len(data)
        if self.kept:
            self._keep(data)
        return data

    def pieces(self) -> Iterator[bytes]:
        """Read on from where reading stopped, to the end.

        Raises:
            OSError, Fault: the client went away, or what it sends is not a body.
        """
        while True:
            data = self.take()
            if data:
                yield data
            elif self._request.done:
                return
            else:
                self._read_more()

    def collect(self) -> bool:
        """Read all of it; return whether it is kept. Stops reading where it is too large to be kept."""
        for _ in self.pieces():
            if not self.kept:
                return False
        return self.kept

    def again(self) -> Iterator[bytes]:
        """Return what was kept, from its beginning."""
        if self._writer:
            yield from self._writer.pieces()
        elif self._kept:
            yield b"".join(self._kept)

    def seal(self) -> str:
        """Make the spool file durable and return its name; "" where the body is `inline`.

        Raises:
            Unavailable: no space.
        """
        if self._writer is None and self.size > defaults.MAX_INLINE_BODY_BYTES:
            self._spill()
        return self._writer.seal() if self._writer else ""

    def discard(self) -> None:
        """Drop what is kept."""
        self.kept = False
        self._kept.clear()
        if self._writer:
            self._writer.discard()
            self._writer = None

    def _keep(self, data: bytes) -> None:
        limit = defaults.MAX_REPLAY_BODY_BYTES if self._spool else defaults.MAX_MEMORY_BODY_BYTES
        if self.size > limit:
            self.discard()
            return
        if self._writer is None and self.size <= defaults.MAX_MEMORY_BODY_BYTES:
            self._kept.append(data)
            return
        try:
            if self._writer is None:
                self._spill()
            self._writer.write(data)  # type: ignore[union-attr]
        except AgentainerError as error:
            self.lost = error
            self.discard()

    def _spill(self) -> None:
        """Move what is kept from memory to a file."""
        assert self._spool is not None
        self._writer = self._spool(self._request_id)
        for piece in self._kept:
            self._writer.write(piece)
        self._kept.clear()
