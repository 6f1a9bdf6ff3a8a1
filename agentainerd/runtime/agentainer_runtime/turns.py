"""Programs side by side, or one alone: while git has a credential in its memory, nothing runs that could look into it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator


class Turns:
    """Who may run at the moment. Of one event loop."""

    def __init__(self) -> None:
        self._running = 0
        self._is_alone = False
        self._wanting = 0
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def is_idle(self) -> bool:
        """Whether nobody runs."""
        return self._running == 0

    @contextlib.asynccontextmanager
    async def turn(self, *, is_alone: bool, until: float) -> AsyncIterator[None]:
        """Wait for a turn; it ends with the block. Who wants to be alone waits for all, and nobody begins before.

        Raises:
            TimeoutError: there was none until `until` (`time.monotonic()`).
        """
        self._wanting += is_alone
        try:
            while self._is_alone or (self._running if is_alone else self._wanting):
                await self._change(until)
        finally:
            self._wanting -= is_alone
            self._tell()
        self._running += 1
        self._is_alone = is_alone
        try:
            yield
        finally:
            self._running -= 1
            self._is_alone = False
            self._tell()

    async def _change(self, until: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await asyncio.wait_for(waiter, max(0.0, until - time.monotonic()))
        except TimeoutError:
            raise TimeoutError("another program has to run alone at the moment: try again later") from None

    def _tell(self) -> None:
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
