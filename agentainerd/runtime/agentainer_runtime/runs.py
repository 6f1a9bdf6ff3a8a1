"""Runs: started once each, belonging to no client, with a log of their own that outlives the process.

A run is a task; readers follow its log. Its id is its identity: one that is known is never run again. One thread's runs go
one after the other, others side by side.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from agentainer_runtime import agui
from agentainer_runtime.agui import event
from agentainer_runtime.conversations import INTERRUPTED, file_name
from agentainer_runtime.event_log import EventLog, decode, has_ended

log = logging.getLogger(__name__)
SHUTDOWN_S = 8.0
"""Within this time runs end when the container is stopped; the rest of ten seconds is for the last answers."""
_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class JobOrder:
    """What makes a run a job: its id, which attempt this is (from 1), and the folder of its results ("": the default)."""

    id: str
    attempt: int = 1
    output_dir: str = ""


@dataclass(frozen=True)
class RunInput:
    """What a run is asked to do.

    `messages` are AG-UI's, and so is `resume`: answers to what a run before this one asked. Limits are None where the settings'
    count. `key` is a model's, given for this run alone. `is_fresh`: the conversation begins anew with these messages. `job`: it
    is carried out in the flow of jobs. `work_id`: what the daemon counts it as, whose one run may be several here.
    """

    run_id: str
    thread_id: str
    messages: list[dict[str, Any]]
    steps: int | None = None
    wall_s: float | None = None
    cost_usd: float | None = None
    model: str = ""
    key: str = field(default="", repr=False)
    is_fresh: bool = False
    job: JobOrder | None = None
    resume: tuple[dict[str, Any], ...] = ()
    work_id: str = ""


@dataclass
class Run:
    """One that is at work. `ending` has code and message once somebody wants it to end; `turn` is its thread's."""

    given: RunInput
    log: EventLog
    turn: asyncio.Lock
    ending: tuple[str, str] | None = None


Work = Callable[[Run], Coroutine[Any, Any, None]]
"""Does what the run is asked for, and writes its events from the first to the last, also where it is cancelled."""


class UnknownRun(Exception):
    """There is, and was, no run of this id."""


class Stopping(Exception):
    """The container is about to end: nothing new is begun."""


class Runs:
    """All runs of this container.

    Attributes:
        changed_at: when a run began, ended, or something came of it; seconds since the epoch.
    """

    def __init__(
        self, folder: Path, work: Work, *, keep: int = 500, on_forgotten: Callable[[str], None] = lambda name: None
    ) -> None:
        """`on_forgotten` gets the file name of each run whose log was removed, because there are more than `keep`."""
        self._folder = folder
        self._work = work
        self._keep = keep
        self._on_forgotten = on_forgotten
        self._active: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._is_stopping = False
        self._began_at = time.time()

    @property
    def active(self) -> list[str]:
        """The ids of the runs that are at work; one that has told its end is not, though its log may still be written."""
        return [run_id for run_id, run in self._active.items() if not run.log.is_ended]

    @property
    def changed_at(self) -> float:
        """When a run began, ended, or something came of one; seconds since the epoch."""
        return max([self._began_at, *(run.log.changed_at for run in self._active.values())])

    def recover(self) -> int:
        """End the runs that another process left at work; return how many. To be called before the first is started."""
        ended = 0
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if has_ended(path):
                continue
            left = EventLog(path)
            with left.reading():
                left.retire()
                name = path.name.removesuffix(_SUFFIX)
                for call in _unanswered(left):
                    content = json.dumps({"error": INTERRUPTED})
                    result = event(
                        agui.TOOL_CALL_RESULT, messageId=f"res_{call}", toolCallId=call, content=content, role="tool"
                    )
                    left.append(result)
                ended += _end(
                    left, RunInput(name, name, []), "interrupted", "the container was restarted during this run"
                )
        return ended

    def knows(self, run_id: str) -> bool:
        """Whether there is, or was, a run of this id."""
        return run_id in self._active or self._path(run_id).exists()

    def is_active(self, thread_id: str) -> bool:
        """Whether a run of this thread is at work."""
        return any(run.given.thread_id == thread_id and not run.log.is_ended for run in self._active.values())

    def start(self, given: RunInput) -> bool:
        """Begin a run; False where it is known already, and left as it is.

        Raises:
            Stopping: the container is about to end.
            OSError: its log can't be made.
        """
        if self.knows(given.run_id):
            return False
        if self._is_stopping:
            raise Stopping("this container is being stopped")
        self._forget_old()
        turn = self._turns.setdefault(given.thread_id, asyncio.Lock())
        run = Run(given, EventLog(self._path(given.run_id)), turn)
        self._active[given.run_id] = run
        self._tasks[given.run_id] = asyncio.create_task(self._run(run), name=f"run {given.run_id}")
        return True

    def cancel(self, run_id: str) -> None:
        """Have a run end with code `cancelled`; one that has ended stays as it is.

        Raises:
            UnknownRun: there is none of this id.
        """
        if not self.knows(run_id):
            raise UnknownRun(run_id)
        self._stop(run_id, "cancelled", "the run was cancelled")

    def forget(self, thread_id: str) -> None:
        """Remove the logs of a thread's runs that have ended."""
        at_work = {self._path(run_id) for run_id in self._active}
        for path in set(self._folder.glob(f"*{_SUFFIX}")) - at_work:
            with open(path, "rb") as file:
                first = decode(file.readline())
            if first is not None and first.get("threadId") == thread_id:
                path.unlink(missing_ok=True)

    async def events(
        self, run_id: str, after: int = 0, *, heartbeat_s: float = 15.0
    ) -> AsyncIterator[tuple[int, bytes] | None]:
        """Follow a run's log, of one at work or ended; see EventLog.follow.

        Raises:
            UnknownRun: there is none of this id.
        """
        run = self._active.get(run_id)
        if run is None and not self._path(run_id).exists():
            raise UnknownRun(run_id)
        events = run.log if run else EventLog(self._path(run_id))
        with events.reading():
            if run is None:
                events.retire()
            async for each in events.follow(after, heartbeat_s=heartbeat_s):
                yield each

    async def shutdown(self) -> None:
        """End all with code `interrupted`, and wait until they have, at most SHUTDOWN_S seconds."""
        self._is_stopping = True
        for run_id in self.active:
            self._stop(run_id, "interrupted", "the container was stopped during this run")
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=SHUTDOWN_S)
        for run in list(self._active.values()):
            _end(run.log, run.given, *(run.ending or ("interrupted", "the container was stopped during this run")))

    async def _run(self, run: Run) -> None:
        run_id = run.given.run_id
        try:
            await self._work(run)
        except asyncio.CancelledError:
            log.info("run ended: %s", run.ending, extra={"run_id": run_id})
        except Exception as error:  # the boundary: a run always ends
            log.exception("run failed by a bug of the runtime: %s", run_id)
            run.ending = ("error", f"internal error: {type(error).__name__}: {error}")
        finally:
            _end(run.log, run.given, *(run.ending or ("error", "the run ended without saying so")))
            try:
                await run.log.sync()
            finally:  # somebody may cancel what has just ended
                self._began_at = time.time()
                del self._active[run_id], self._tasks[run_id]
                run.log.retire()

    def _stop(self, run_id: str, code: str, message: str) -> None:
        """Do so once: a second cancellation would break off what the first one cleans up, or what an end writes."""
        run = self._active.get(run_id)
        if run is not None and run.ending is None and not run.log.is_ended:
            run.ending = (code, message)
            self._tasks[run_id].cancel()

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{file_name(run_id)}{_SUFFIX}"

    def _forget_old(self) -> None:
        """Remove the logs that are over what is kept, those that ended first."""
        active = {self._path(run_id) for run_id in self._active}
        known = list(self._folder.glob(f"*{_SUFFIX}"))
        ended = [path for path in known if path not in active]
        surplus = len(known) + 1 - self._keep
        if surplus > 0:
            for path in sorted(ended, key=lambda each: each.stat().st_mtime_ns)[:surplus]:
                with suppress(FileNotFoundError):
                    path.unlink()
                self._on_forgotten(path.name.removesuffix(_SUFFIX))


def _unanswered(events: EventLog) -> list[str]:
    """Return the calls of tools of a run that has not ended which have no result; ids, in order."""
    calls: dict[str, None] = {}
    for each in events.read() if not events.is_ended else ():
        if each["type"] == agui.TOOL_CALL_END:
            calls[each["toolCallId"]] = None
        elif each["type"] == agui.TOOL_CALL_RESULT:
            calls.pop(each["toolCallId"], None)
    return list(calls)


def _end(events: EventLog, given: RunInput, code: str, message: str) -> bool:
    """Give a run that has no last event one; whether it needed it."""
    if events.is_ended:
        return False
    if not events.count:
        events.append(event(agui.RUN_STARTED, threadId=given.thread_id, runId=given.run_id))
    events.append(event(agui.RUN_ERROR, message=message, code=code))
    return True
