"""The container is killed between any two writes of a run: it ends once, no effect is had twice, and its conversation goes on.

CRASH_POINTS=all tries before every write; else those around the end of a tool.
"""

import http.client
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tests.fakes.models import ModelServer, ToolCall, Turn, When
from tests.fakes.runtime import answer_of, checked, run_input, runtimes
from tests.runtime.test_model import asking, end_of

KILLER = '''
"""Ends this process as SIGKILL does, before its Nth write of what it keeps, or before the first that has some text."""
import os, signal
_write, _count, _at = os.write, 0, os.environ.get("KILL_BEFORE", "")
def write(descriptor, data):
    global _count
    if _at and os.readlink(f"/proc/self/fd/{descriptor}").endswith(".jsonl"):
        _count += 1
        if str(_count) == _at or _at.encode() in bytes(data):
            os.kill(os.getpid(), signal.SIGKILL)
    return _write(descriptor, data)
os.write = write
'''
AROUND_A_TOOL = (
    '"TOOL_CALL_START"',
    '"role":"tool"',
    '"TOOL_CALL_RESULT"',
    '"content":"It is done."',
    '"RUN_FINISHED"',
)
MOST = 60
AGENTS = 5


def crash(place, at):
    """Have a runtime killed at a point of a run with one effect, and started again; return what came of it; None: there are fewer writes."""
    append = Turn(calls=(ToolCall("append", {"line": "once"}),), when=When(user="append"))
    done = Turn(text="It is done.", when=When(tool="appended"))
    later = Turn(text="I look first.", when=When(user="go on"))
    with ModelServer([later, append, done]) as models, runtimes(place) as start:
        runtime_on = asking(start, place)
        (place / "site/sitecustomize.py").write_text(KILLER)
        runtime = runtime_on(models, KILL_BEFORE=at)
        with suppress(OSError, ValueError, http.client.HTTPException):
            list(runtime.stream("POST", "/invocations", run_input("append a line", run="r", thread="t")))
        if runtime.process.poll() is None and at.isdigit():
            return None
        assert runtime.process.wait(5) == -9

        runtime = runtime_on(models, KILL_BEFORE="")
        log = runtime.workspace / "appended"
        before = log.read_text() if log.exists() else ""
        status, _ = runtime.ask("GET", "/runs/r/events?after=1000000")
        events = checked([event for _, event in runtime.stream("GET", "/runs/r/events")]) if status == 200 else []
        again = runtime.run("go on", thread="t")
        after = log.read_text() if log.exists() else ""

    assert before == after, "nothing is repeated by itself"
    assert before.count("once") <= 1
    assert answer_of(again) == "I look first.", "and the model takes what is kept"
    if events:
        assert end_of(events) in (("RUN_ERROR", "interrupted"), ("RUN_FINISHED", None))
        kinds = Counter(event["type"] for event in events)
        assert kinds["TOOL_CALL_RESULT"] == kinds["TOOL_CALL_START"]
    return before.count("once"), end_of(events) if events else None


def test_a_container_that_is_killed_in_mid_run_ends_it_once_and_has_no_effect_twice(tmp_path):
    points = AROUND_A_TOOL if os.environ.get("CRASH_POINTS") != "all" else [str(n) for n in range(1, MOST)]

    def at(point):
        place = tmp_path / f"at-{points.index(point)}"
        place.mkdir()
        return crash(place, point)

    with ThreadPoolExecutor(AGENTS) as pool:
        found = dict(zip(points, pool.map(at, points), strict=True))

    if points is AROUND_A_TOOL:
        assert [found[point][0] for point in points] == [0, 1, 1, 1, 1]
        assert {end for _, end in found.values()} == {("RUN_ERROR", "interrupted")}
    else:
        assert sum(each is not None for each in found.values()) > 15
