"""Work of any length done in short turns in threads, so that it neither keeps a thread of the pool nor stops anything else."""

import time
from collections.abc import Callable, Generator
from typing import Generic, TypeVar

from gevent.monkey import get_original

from agentainerd import offload

T = TypeVar("T")
SLICE_S = 0.05
_WORK_S, _BREATH_S = 0.001, 0.00005  # now and then the event loop gets the interpreter, which it would wait 5 ms for


class Work(Generic[T]):
    """Steps that `go_on` takes in threads; what they return is the result.

    A greenlet that is killed leaves its thread at work. So a lock of threads, not of greenlets, parts what follows from that.
    """

    def __init__(self, steps: Generator[None, None, T]) -> None:
        self._steps = steps
        self._lock = get_original("_thread", "allocate_lock")()
        self._result: list[T] = []
        self._failure: BaseException | None = None

    def finish(self) -> T:
        """Take all steps and return the result. Blocks its greenlet only; raises what they raise."""
        while not self.go_on():
            pass
        return self._result[0]

    def go_on(self) -> bool:
        """Take steps for SLICE_S and return whether that was all. Blocks its greenlet only; raises what they raised."""
        return offload.run(self._slice)

    def stop(self, then: Callable[[], None]) -> None:
        """Let the steps clean up, where they are, and do `then` in the thread: no step is at work any more by then."""
        offload.run(self._stop, then)

    def _slice(self) -> bool:
        with self._lock:
            if not self._result and self._failure is None:
                self._step()
            if self._failure is not None:
                raise self._failure
            return bool(self._result)

    def _step(self) -> None:
        now = breath = time.monotonic()
        end = now + SLICE_S
        try:
            next(self._steps)
            while (now := time.monotonic()) < end:
                if now - breath > _WORK_S:
                    offload.pause(_BREATH_S)
                    breath = time.monotonic()
                next(self._steps)
        except StopIteration as done:
            self._result.append(done.value)
        except BaseException as exc:
            self._failure = exc

    def _stop(self, then: Callable[[], None]) -> None:
        with self._lock:
            self._steps.close()
            then()
