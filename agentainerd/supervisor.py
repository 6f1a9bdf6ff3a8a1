"""The only place that starts greenlets in the background: the named loops, and single tasks.

A loop runs one function at an interval, sooner when it is woken, and survives every error of it. Nothing here knows
what a loop does.
"""

import logging
import time
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import TypeVarTuple

import gevent
from gevent import Greenlet
from gevent.event import Event

from agentainerd import clock
from agentainerd.errors import AgentainerError

log = logging.getLogger(__name__)

Ts = TypeVarTuple("Ts")
FAILURE_PAUSE_S = 0.5  # after a failure a wake-up is not heard for this long: a loop that is woken often must not spin
MAX_BACKOFF_S = 30.0  # or the loop's own interval, where that is longer


@dataclass(frozen=True, slots=True)
class LoopStatus:
    """How a loop is doing. Times are epoch seconds, 0.0 before the first one; `failures` are those in a row."""

    name: str
    interval_s: float
    last_success_at: float
    last_error: str
    failures: int
    runs: int


class Supervisor:
    """Owns background greenlets: starts, names, reports and ends them.

    Every method may be called from any greenlet. `stop` is final: what is spawned later does not run.
    """

    def __init__(self) -> None:
        self._loops: dict[str, _Loop] = {}
        self._greenlets: set[Greenlet] = set()
        self._stopped = False

    def loop(self, name: str, run: Callable[[float], int], interval_s: float) -> None:
        """Call `run(now)` at once and then every `interval_s` seconds, until `stop`.

        `now` is epoch seconds; `run` returns how many things it did. When it raises, the pause doubles from
        `interval_s` (at least 1 s) to MAX_BACKOFF_S; the first failure is logged, then a count at 10, 100, 1000...

        Raises:
            ValueError: there is a loop of this name.
        """
        if name in self._loops:
            raise ValueError(f"there is a loop {name!r} already")
        loop = _Loop(name, run, interval_s)
        self._loops[name] = loop
        self.spawn(name, loop.run_forever)

    def wake(self, name: str) -> None:
        """Let a loop run now, or once more if it is running. Never blocks; no loop of this name: nothing happens."""
        if loop := self._loops.get(name):
            loop.wake()

    def spawn(self, name: str, function: Callable[[*Ts], object], *args: *Ts) -> Greenlet:
        """Run `function(*args)` in a greenlet of its own; what it raises is logged with its traceback.

        `name` is for people. The greenlet's value is what the function returned, or None after an error.
        """
        greenlet = Greenlet(_guarded, name, function, args)
        greenlet.gr_context = copy_context()  # what it logs belongs to the request that wants it
        if self._stopped:
            greenlet.kill(block=False)
            return greenlet
        self._greenlets.add(greenlet)
        greenlet.rawlink(self._greenlets.discard)
        greenlet.start()
        return greenlet

    def status(self) -> list[LoopStatus]:
        """Return how each loop is doing, in the order in which they were started."""
        return [loop.status() for loop in self._loops.values()]

    def stop(self, timeout_s: float) -> int:
        """End all greenlets; return how many did not end within `timeout_s` seconds."""
        self._stopped = True
        gevent.killall([greenlet for greenlet in self._greenlets if greenlet is not gevent.getcurrent()], block=False)
        mine = {gevent.getcurrent()}
        gevent.joinall(list(self._greenlets - mine), timeout=timeout_s)
        return len(self._greenlets - mine)


class _Loop:
    """One loop: its function, its alarm clock and its record. Used by its own greenlet, but for `wake` and `status`."""

    def __init__(self, name: str, run: Callable[[float], int], interval_s: float) -> None:
        self.name = name
        self.interval_s = interval_s
        self._run = run
        self._wanted = Event()
        self._last_success_at = 0.0
        self._last_error = ""
        self._failures = 0
        self._runs = 0

    def wake(self) -> None:
        self._wanted.set()

    def status(self) -> LoopStatus:
        return LoopStatus(
            self.name, self.interval_s, self._last_success_at, self._last_error, self._failures, self._runs
        )

    def run_forever(self) -> None:
        while True:
            self._wanted.clear()
            self.run_once()
            if self._failures:
                gevent.sleep(FAILURE_PAUSE_S)
                self._wanted.wait(self._backoff_s() - FAILURE_PAUSE_S)
            else:
                self._wanted.wait(self.interval_s)

    def run_once(self) -> None:
        self._runs += 1
        try:
            self._run(clock.now())
        except Exception as exc:
            self._failed(exc)
        else:
            self._succeeded()

    def _succeeded(self) -> None:
        if self._failures:
            log.info("loop %s works again after %d failures", self.name, self._failures)
        self._failures = 0
        self._last_error = ""
        self._last_success_at = time.time()

    def _failed(self, exc: Exception) -> None:
        expected = isinstance(exc, AgentainerError)
        error = _told(exc) if isinstance(exc, AgentainerError) else f"{type(exc).__name__}: {exc}"
        self._failures += 1
        if self._failures == 1 or (error != self._last_error and not expected):
            if expected:
                log.warning("loop %s failed, and will be tried again: %s", self.name, error)
            else:
                log.error("loop %s failed, and will be tried again", self.name, exc_info=exc)
        elif str(self._failures).strip("0") == "1":
            log.warning("loop %s has failed %d times: %s", self.name, self._failures, error)
        self._last_error = error

    def _backoff_s(self) -> float:
        longest = max(self.interval_s, MAX_BACKOFF_S)
        return float(min(max(self.interval_s, 1.0) * 2 ** min(self._failures - 1, 16), longest))


def _told(error: AgentainerError) -> str:
    return f"{error.message} (hint: {error.hint})" if error.hint else error.message


def _guarded(name: str, function: Callable[..., object], args: tuple[object, ...]) -> object:
    try:
        return function(*args)
    except Exception:
        log.exception("%s failed", name)
        return None
