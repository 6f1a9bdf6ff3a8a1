"""A model that sends 50 MB, in every form that an answer has: the run ends, in bounded memory, and its session can go on.

SOAK_ANSWERS=1 tries all forms; else those that are read differently.
"""

import json
import os
import re
from pathlib import Path

import pytest

from tests.fakes.models import Faults, ModelServer, ToolCall, Turn, When
from tests.fakes.runtime import answer_of, run_input
from tests.runtime.test_model import asking, end_of

MEGABYTES = 50
PEAK_BYTES = (
    100 * 2**20
)  # of the whole process, 30 of them before any run; an answer counts up to 16 MiB, and is text, bytes, JSON
EVENT_BYTES = 2**20
MILLION = "x" * 1_000_000
FORMS = {
    "many pieces": Turn(deltas=(MILLION,) * MEGABYTES),
    "one line": Turn(deltas=(MILLION * MEGABYTES,)),
    "one call": Turn(calls=(ToolCall("note", {"text": MILLION * MEGABYTES}),)),
    "thoughts": Turn(thinking=" ".join([MILLION] * MEGABYTES)),
    "no stream": Turn(text=MILLION * MEGABYTES, faults=Faults(is_unstreamed=True)),
}
FEW = ("many pieces", "no stream")


@pytest.fixture
def runtime_on(start_runtime, tmp_path):
    return asking(start_runtime, tmp_path)


def peak_bytes(runtime):
    """The most memory that the process ever had."""
    status = Path(f"/proc/{runtime.process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) * 1024


@pytest.mark.parametrize("form", FORMS if os.environ.get("SOAK_ANSWERS") else FEW)
def test_an_answer_of_50_megabytes_is_cut_off_and_the_session_goes_on(runtime_on, form):
    after = Turn(text="here again", when=When(user="still there"))
    with ModelServer([FORMS[form], after]) as models:
        runtime = runtime_on(models, AGENT_MODEL_TIMEOUT_S="20")
        events = runtime.run("tell me all", thread="t")
        again = runtime.run("still there?", thread="t")
        peak = peak_bytes(runtime)

    assert end_of(events) == ("RUN_ERROR", "model_error")
    assert "more than 16777216 bytes" in events[-1]["message"]
    assert (end_of(again), answer_of(again)) == (("RUN_FINISHED", None), "here again")
    print(f"{form}: at most {peak / 2**20:.0f} MiB")
    assert peak < PEAK_BYTES


def test_an_answer_that_is_just_long_is_told_in_events_that_fit(runtime_on):
    said = Turn(text="\x01" * 600_000 + "end", calls=(ToolCall("note", {"text": "é" * 700_000}),), times=2)
    with ModelServer([said, Turn(text="done", when=When(tool="noted"), times=2)]) as models:
        runtime = runtime_on(models, AGENT_MODEL_TIMEOUT_S="20", AGENT_CONTEXT_TOKENS="100000000")
        numbered = list(runtime.stream("POST", "/invocations", run_input("go")))
        frames = [line[6:] for line in runtime.lines("POST", "/agent/execute", {"task": "go"}) if "tool-call" in line]

    events = [event for _, event in numbered]
    arguments = "".join(event["delta"] for event in events if event["type"] == "TOOL_CALL_ARGS")
    assert max(len(json.dumps(event, ensure_ascii=False).encode()) for event in events) < EVENT_BYTES
    assert [json.loads(frame)["args"] for frame in frames] == [{"text": "é" * 700_000}]
    assert json.loads(arguments) == {"text": "é" * 700_000}
    assert answer_of(events).startswith("\x01" * 600_000 + "end")
