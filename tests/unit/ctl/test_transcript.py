"""AG-UI events as text for people."""

import json
import random
import time

import pytest

from agentainerctl.output import shorten
from agentainerctl.transcript import Transcript, arguments


def told(*events, **settings):
    """What a terminal would show, where answer and activity share it: a fresh piece begins on a new line."""
    transcript = Transcript(**settings)
    shown = ""
    was_answer = False
    for event in events:
        for piece in transcript.feed(event):
            is_other = piece.is_answer != was_answer
            if (piece.is_fresh or is_other) and shown and not shown.endswith("\n"):
                shown += "\n"
            shown += piece.text
            was_answer = piece.is_answer if piece.text else was_answer
    return shown


def answer(*events, **settings):
    """Only what belongs to the agent's answer."""
    transcript = Transcript(**settings)
    shown = ""
    for event in events:
        for piece in transcript.feed(event):
            if piece.is_answer:
                shown += "\n" if piece.is_fresh and shown and not shown.endswith("\n") else ""
                shown += piece.text
    return shown


def text(*deltas, message="m1"):
    return [
        {"type": "TEXT_MESSAGE_START", "messageId": message, "role": "assistant"},
        *({"type": "TEXT_MESSAGE_CONTENT", "messageId": message, "delta": delta} for delta in deltas),
        {"type": "TEXT_MESSAGE_END", "messageId": message},
    ]


def call(name, *pieces, identity="c1"):
    return [
        {"type": "TOOL_CALL_START", "toolCallId": identity, "toolCallName": name},
        *({"type": "TOOL_CALL_ARGS", "toolCallId": identity, "delta": piece} for piece in pieces),
        {"type": "TOOL_CALL_END", "toolCallId": identity},
    ]


def result(content, identity="c1"):
    return {"type": "TOOL_CALL_RESULT", "toolCallId": identity, "messageId": "r", "role": "tool", "content": content}


def edit(path, operation, diff=""):
    return {
        "type": "CUSTOM",
        "name": "file.changed",
        "value": {"path": path, "operation": operation, "diff": diff},
    }


THINKING = [
    {"type": "THINKING_START"},
    {"type": "THINKING_TEXT_MESSAGE_START"},
    {"type": "THINKING_TEXT_MESSAGE_CONTENT", "delta": "The sign "},
    {"type": "THINKING_TEXT_MESSAGE_CONTENT", "delta": "is wrong."},
    {"type": "THINKING_TEXT_MESSAGE_END"},
    {"type": "THINKING_END"},
]
DIFF = "--- a/add.py\n+++ b/add.py\n@@ -1,2 +1,2 @@\n def add(a, b):\n-    return a - b\n+    return a + b\n"
RUN = [
    {"type": "RUN_STARTED", "threadId": "t", "runId": "r"},
    {"type": "STEP_STARTED", "stepName": "step 1"},
    *THINKING,
    *text("Let me ", "look."),
    *call("read_file", '{"path"', ': "add.py"}'),
    result("def add(a, b):\n    return a - b\n"),
    {"type": "STEP_FINISHED", "stepName": "step 1"},
    {"type": "STEP_STARTED", "stepName": "step 2"},
    *call("edit_file", '{"path": "add.py", "old": "a - b", "new": "a + b"}', identity="c2"),
    edit("add.py", "modified", DIFF),
    result("edited", "c2"),
    {"type": "STEP_FINISHED", "stepName": "step 2"},
    *text("Fixed: it subtracted.", message="m2"),
    {"type": "RUN_FINISHED", "threadId": "t", "runId": "r", "result": {"usage": {}}},
]


def test_a_run_is_told_in_order():
    assert told(*RUN).splitlines() == [
        "thinking ...",
        "Let me look.",
        "> read_file add.py",
        "  | def add(a, b):",
        "  |     return a - b",
        '> edit_file path=add.py old="a - b" new="a + b"',
        "~ modified add.py (+1 -1)",
        "    @@ -1,2 +1,2 @@",
        "     def add(a, b):",
        "    -    return a - b",
        "    +    return a + b",
        "  | edited",
        "Fixed: it subtracted.",
    ]


def test_in_full_thinking_and_steps_are_told_too():
    shown = told(*RUN, is_full=True).splitlines()

    assert shown[:4] == ["--- step 1 ---", "thinking ...", "The sign is wrong.", "Let me look."]
    assert "--- step 2 ---" in shown


def test_the_answer_is_its_text_and_each_message_is_a_line():
    assert answer(*RUN) == "Let me look.\nFixed: it subtracted.\n"


def test_text_that_something_comes_between_is_one_text_where_it_has_a_place_of_its_own():
    events = [*text("half ")[:-1], edit("a", "created"), *text("and half")[1:]]

    assert answer(*events) == "half and half\n"
    assert told(*events) == "half \n+ created a\nand half\n"


def test_text_comes_as_it_is_streamed():
    transcript = Transcript()

    pieces = [piece for event in text("one\ntwo", "\n\n", "\tthree") for piece in transcript.feed(event)]

    assert [piece.text for piece in pieces if piece.text] == ["one\ntwo", "\n\n", "\tthree"]


def test_chunks_are_text_and_calls_too():
    chunks = [
        {"type": "TEXT_MESSAGE_CHUNK", "messageId": "m", "delta": "Look"},
        {"type": "TEXT_MESSAGE_CHUNK", "delta": "ing.", "messageId": "m"},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "toolCallName": "list_directory", "delta": '{"path"'},
        {"type": "TOOL_CALL_CHUNK", "toolCallId": "c", "delta": ': "."}'},
        result("a\nb", "c"),
    ]

    assert told(*chunks).splitlines() == ["Looking.", "> list_directory .", "  | a", "  | b"]


def test_reasoning_is_thinking_under_its_newer_name():
    events = [
        {"type": "REASONING_MESSAGE_START", "messageId": "x"},
        {"type": "REASONING_MESSAGE_CONTENT", "messageId": "x", "delta": "hm"},
        {"type": "REASONING_MESSAGE_END", "messageId": "x"},
    ]

    assert told(*events, is_full=True) == "thinking ...\nhm\n"
    assert told(*events) == "thinking ...\n"


def test_calls_at_one_time_are_told_apart():
    first, second = (
        call("read_file", '{"path": "a"}', identity="1"),
        call("read_file", '{"path": "b"}', identity="2"),
    )
    events = [first[0], second[0], first[1], second[1], second[2], first[2], result("B", "2"), result("A", "1")]

    assert told(*events).splitlines() == [
        "> read_file",
        "> read_file b",
        "> read_file a",
        "  read_file:",
        "  | B",
        "  read_file:",
        "  | A",
    ]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("", ""),
        ("{}", ""),
        ('{"command": "pytest -q"}', "pytest -q"),
        ('{"path": "a", "start": 3, "all": true}', "path=a start=3 all=true"),
        ('{"old": "a b", "new": ""}', 'old="a b" new=""'),
        ('{"content": "one\\ntwo\\u001b[2J"}', "one\\ntwo\\x1b[2J"),
        ('{"a": {"b": [1]}, "c": null}', 'a={"b": [1]} c=null'),
        ('{"path": "a', '{"path": "a'),
        ("[1, 2]", "[1, 2]"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_arguments_are_one_line(given, shown):
    assert arguments(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("plain\ntext\n", ["plain", "text"]),
        ('{"success": true, "path": "a b", "count": 2}', ['success=true path="a b" count=2']),
        ('{"exitCode": 1, "stdout": "", "stderr": "one\\ntwo\\n"}', ["exitCode=1", "one", "two"]),
        ('{"stdout": "a\\nb", "stderr": "c\\nd"}', ["stdout:", "a", "b", "stderr:", "c", "d"]),
        ('{"content": "one line\\n"}', ['content="one line"']),
        ("{}", []),
        ("{not json", ["{not json"]),
        ('["a"]', ['["a"]']),
        ("", []),
    ],
)
def test_a_result_that_is_an_object_is_told_as_what_is_in_it(given, shown):
    assert told(result(given)).splitlines() == [f"  | {line}" for line in shown]


def test_results_of_several_calls_at_a_time_are_told_apart():
    events = [*call("edit_file", identity="1"), *call("read_file", identity="2"), edit("a", "modified")]

    assert told(*events, result("A", "1"), result("B", "2")).splitlines() == [
        "> edit_file",
        "> read_file",
        "~ modified a",
        "  edit_file:",
        "  | A",
        "  read_file:",
        "  | B",
    ]


def test_long_values_and_lines_are_cut():
    shown = told(*call("write_file", json.dumps({"path": "a.py", "content": "x" * 500})), width=60)

    assert shown.rstrip("\n") == "> write_file path=a.py content=" + "x" * 26 + "..."
    assert all(len(line) <= 40 for line in told(result("y" * 500), edit("z" * 500, "created"), width=40).splitlines())
    assert shorten("日本語日本語", 7) == "日本..."


def test_a_line_of_megabytes_takes_no_time():
    began = time.process_time()

    assert shorten("日本" * 1_000_000, 10) == "日本日..."
    assert len(told(result("日本" * 1_000_000))) < 500
    assert time.process_time() - began < 0.5


def test_of_long_results_the_beginning_and_the_end_are_told():
    lines = [f"line {number}" for number in range(40)]

    shown = told(result("\n".join(lines)), is_full=False).splitlines()

    assert shown == [
        *(f"  | {line}" for line in lines[:3]),
        "  | ... 34 more lines ...",
        *(f"  | {line}" for line in lines[-3:]),
    ]
    assert len(told(result("\n".join(lines)), is_full=True).splitlines()) == 40


def test_of_long_edits_the_beginning_is_told():
    diff = "@@ -0,0 +1,100 @@\n" + "".join(f"+line {number}\n" for number in range(100))

    shown = told(edit("new.py", "created", diff)).splitlines()

    assert shown[0] == "+ created new.py (+100 -0)"
    assert shown[-1] == "    ... 61 more lines ..."
    assert len(shown) == 42
    assert told(edit("old.py", "deleted")) == "- deleted old.py\n"


def test_an_answer_that_does_not_count_is_told_to_be_none():
    retry = {"type": "CUSTOM", "name": "model.retry", "value": {"reason": "the answer broke off", "attempt": 2}}

    assert (
        told(*text("half an ans"), retry, *text("answer"))
        == "half an ans\n! the model is asked again: the answer broke off\nanswer\n"
    )


def test_a_job_that_is_run_again_is_told():
    again = {"type": "CUSTOM", "name": "job.attempt", "value": {"reason": "the container is gone", "attempt": 2}}

    assert told(*text("half"), again, *text("whole")) == "half\n! the job is run again: the container is gone\nwhole\n"


def log(*pieces):
    return [{"type": "CUSTOM", "name": "log", "value": {"stream": "stderr", "text": piece}} for piece in pieces]


def test_what_a_program_writes_beside_its_answer_is_told_as_it_comes():
    events = (*text("one "), *log("war", "ning\n\x1b[2J"), *text("two"))

    assert told(*events) == "one \nwarning\n\\x1b[2J\ntwo\n"
    assert answer(*events) == "one \ntwo\n"


HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\b\x00\u202etxt\u200b\u2066\U000e0041\ud800"


@pytest.mark.parametrize(
    "events",
    [
        text(HOSTILE),
        text(*HOSTILE),
        call(HOSTILE, json.dumps({HOSTILE: HOSTILE, "b": [HOSTILE]})),
        call("t", HOSTILE),
        [result(HOSTILE)],
        log(HOSTILE),
        [result(json.dumps({HOSTILE: HOSTILE, "b": f"{HOSTILE}\n{HOSTILE}", f"{HOSTILE}2": f"{HOSTILE}\n{HOSTILE}"}))],
        [edit(HOSTILE, HOSTILE, f"@@\n+{HOSTILE}")],
        [{"type": "STEP_STARTED", "stepName": HOSTILE}],
        [{"type": "CUSTOM", "name": HOSTILE, "value": {HOSTILE: HOSTILE}}],
        [{"type": "THINKING_TEXT_MESSAGE_CONTENT", "delta": HOSTILE}],
    ],
)
def test_no_control_character_of_an_agent_survives(events):
    shown = told(*events, is_full=True) + told(*events)

    assert shown
    assert not [char for char in shown if not char.isprintable() and char not in "\n\t"]


def test_what_people_write_stays_as_they_wrote_it():
    usual = "naïve\u00a0café — 👩\u200d🔬 1\u202f000 日本語\n\ttab"

    assert answer(*text(usual)) == usual + "\n"


@pytest.mark.parametrize("cut", range(1, 12))
def test_ends_of_lines_may_be_cut_anywhere(cut):
    whole = "one\r\ntwo\r\nx"

    assert answer(*text(whole[:cut], whole[cut:])) == "one\ntwo\nx\n"


def test_a_lone_carriage_return_is_told_at_the_end():
    assert answer(*text("50%\r", "100%\r")) == "50%\\r100%\\r\n"


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        "RUN_STARTED",
        {},
        {"type": None},
        {"type": ["TEXT_MESSAGE_CONTENT"]},
        {"type": "TEXT_MESSAGE_CONTENT"},
        {"type": "TEXT_MESSAGE_CONTENT", "delta": {"a": 1}},
        {"type": "TOOL_CALL_ARGS", "toolCallId": "unknown", "delta": "x"},
        {"type": "TOOL_CALL_END", "toolCallId": ["unknown"]},
        {"type": "TOOL_CALL_RESULT", "content": None},
        {"type": "CUSTOM", "name": "file.changed", "value": "no object"},
        {"type": "CUSTOM"},
        {"type": "STATE_SNAPSHOT", "snapshot": {}},
        {"type": "WHAT_COMES_LATER"},
        {"type": "RUN_ERROR", "message": "said elsewhere"},
    ],
)
def test_what_is_no_such_event_is_passed_over(event):
    assert told(event) == ""


def test_calls_that_never_end_are_forgotten():
    transcript = Transcript()
    for number in range(10_000):
        transcript.feed(call("t", identity=str(number))[0])
        transcript.feed({"type": "TOOL_CALL_ARGS", "toolCallId": str(number), "delta": "x" * 100})
    for _ in range(10_000):
        transcript.feed({"type": "TOOL_CALL_ARGS", "toolCallId": "9999", "delta": "x" * 1000})

    assert len(transcript._calls) <= 256
    assert sum(len(each.arguments) for each in transcript._calls.values()) < 128 * 1024


def test_however_text_is_cut_it_is_the_same():
    whole = "Héllo\r\nwörld \x1b[31m 👩\u200d🔬\r\n\r\nend"
    expected = answer(*text(whole))
    for seed in range(50):
        chance = random.Random(seed)
        marks = sorted(chance.sample(range(1, len(whole)), 6))
        parts = [whole[start:end] for start, end in zip([0, *marks], [*marks, len(whole)], strict=True)]

        assert answer(*text(*parts)) == expected
