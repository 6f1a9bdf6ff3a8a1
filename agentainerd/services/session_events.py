"""What happened in a session: the events of all its runs, in the order in which those began.

Of one session one run is under way at a time, so that this is one sequence. A place in it is a run and the number of an event.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from agentainerd.errors import InvalidParameter, NotFound
from agentainerd.model.runs import Run, RunEvent, is_run_id
from agentainerd.services.runs import RunService

MARK = ":"  # between both parts of a place, as text


@dataclass(frozen=True, slots=True)
class Place:
    """After event `seq` of a run; the beginning of the session where there is no run."""

    run_id: str = ""
    seq: int = 0

    @classmethod
    def parse(cls, text: str) -> "Place":
        """Return what `<run>:<seq>` says. Raises InvalidParameter."""
        run_id, mark, seq = text.partition(MARK)
        if not text:
            return cls()
        if not (mark and is_run_id(run_id) and seq.isascii() and seq.isdigit() and len(seq) < len(str(2**53))):
            raise InvalidParameter("after", f"{text[:64]!r} is not the id of an event of a session")
        return cls(run_id, int(seq))


def page(runs: RunService, session_id: str, after: Place, limit: int) -> list[tuple[Run, RunEvent]]:
    """Return up to `limit` events that come after a place.

    Raises:
        NotFound: no such session. Unavailable.
    """
    found: list[tuple[Run, RunEvent]] = []
    for run in _from(_begun(runs, session_id), after.run_id):
        if len(found) == limit:
            break
        seq = after.seq if run.id == after.run_id else 0
        found += [(run, event) for event in runs.events(run.id, seq, limit - len(found))]
    return found


def follow(runs: RunService, session_id: str, after: Place) -> Iterator[tuple[Run, RunEvent] | None]:
    """Return the events after a place, and those that come, until no run of the session is under way, or one waits for an
    answer; None is "still here".

    Raises:
        NotFound, Unavailable: as `page`, before the first event; Unavailable also later.
    """
    begun = _begun(runs, session_id)
    first = _from(begun, after.run_id)
    told = {run.id for run in begun[: len(begun) - len(first)]}
    return _follow(runs, session_id, first or runs.line(session_id)[:1], after, told)


def _follow(
    runs: RunService, session_id: str, waiting: list[Run], after: Place, told: set[str]
) -> Iterator[tuple[Run, RunEvent] | None]:
    while waiting:
        run = waiting[0]
        told.add(run.id)
        last: RunEvent | None = None
        seq = after.seq if run.id == after.run_id else 0
        for event in runs.follow(run.id, seq):
            if event is None:
                yield None
            elif event.seq > seq:
                yield run, event
            last = event or last
        if last is not None and last.is_pause:
            return
        try:
            waiting = [one for one in waiting[1:] or _begun(runs, session_id) if one.id not in told]
        except NotFound:
            return  # it was deleted meanwhile
        waiting = waiting or [one for one in runs.line(session_id) if one.id not in told][:1]


def _begun(runs: RunService, session_id: str) -> list[Run]:
    """Return the runs of a session that have begun, or ended before they did, in that order."""
    now = {run.id: run for run in runs.line(session_id)}
    kept = [now.get(run.id, run) for run in runs.sessions.runs(session_id)]
    begun = [run for run in kept if run.started_at or run.finished_at]
    begun.sort(key=lambda run: run.started_at or run.finished_at)
    return begun


def _from(found: list[Run], run_id: str) -> list[Run]:
    """Return the runs from one on; all of them where it is not there (any more)."""
    place = next((number for number, run in enumerate(found) if run.id == run_id), 0)
    return found[place:]
