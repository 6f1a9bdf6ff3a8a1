"""Programs that do not end, fork, flee, print for ever, wait for input: each call ends in time and leaves nothing behind."""

import os
import signal
from pathlib import Path

import pytest
from agentainer_runtime import processes

FLEE = """
import os, sys, time
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
open("fled", "w").write(str(os.getpid()))
time.sleep(1000)
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_command_tells_what_it_printed_and_how_it_ended(tools):
    assert tools("run_command", command="echo out; echo err >&2; exit 3") == {
        "success": False,
        "exitCode": 3,
        "stdout": "out\n",
        "stderr": "err\n",
    }
    assert tools("run_command", command="kill -TERM $$")["exitCode"] == -15


def test_a_program_that_never_ends_is_ended_with_all_it_started(tools, workspace):
    full = tools.full("run_command", {"command": "echo begun; sleep 1000 & echo $! > pid; sleep 1000", "timeout_s": 1})

    assert full["result"]["timedOut"] is True
    assert full["result"]["success"] is False
    assert full["result"]["stdout"] == "begun\n"
    assert full["result"]["notice"].startswith("Ended after 1 s")
    assert 1 <= full["took_s"] < 4
    assert not is_running(int((workspace / "pid").read_text()))
    assert full["children"] == 0


def test_a_program_that_ignores_the_signal_to_end_is_killed(tools):
    full = tools.full("run_command", {"command": "trap '' TERM; echo begun; while :; do sleep 1; done", "timeout_s": 1})

    assert full["result"]["timedOut"] is True
    assert full["took_s"] < 6
    assert full["children"] == 0


def test_a_grandchild_that_keeps_the_pipes_open_is_not_waited_for(tools, workspace):
    full = tools.full("run_command", {"command": "sleep 1000 & echo $! > pid; echo done"})

    assert full["result"]["stdout"] == "done\n"
    assert full["result"]["success"] is True
    assert "still running and were ended" in full["result"]["notice"]
    assert full["took_s"] < 3
    assert not is_running(int((workspace / "pid").read_text()))


@pytest.mark.parametrize(
    "start", ["python3 flee.py", "env -i python3 flee.py"], ids=["with its mark", "with an empty environment"]
)
def test_a_process_that_leaves_its_group_and_its_parent_is_found(tools, workspace, start):
    (workspace / "flee.py").write_text(FLEE)

    full = tools.full(
        "run_command", {"command": f"PATH={os.environ['PATH']}; {start}; while [ ! -s fled ]; do sleep 0.01; done"}
    )

    assert full["result"]["success"] is True
    assert not is_running(int((workspace / "fled").read_text()))
    assert full["children"] == 0


def test_stdin_is_at_its_end(tools):
    assert tools("run_command", command="cat; read x || echo nothing")["stdout"] == "nothing\n"
    assert tools("run_python", code="import sys; print(repr(sys.stdin.read()))")["stdout"] == "''\n"


def test_long_output_shows_its_beginning_and_end_and_all_of_it_can_be_read(tools, workspace):
    result = tools("run_command", command="seq 1 100000")

    assert list(result)[0] == "notice"
    assert "stdout has 588895 bytes" in result["notice"]
    assert result["stdout"].startswith("1\n2\n")
    assert result["stdout"].endswith("99999\n100000\n")
    assert len(result["stdout"]) < 11_000
    path = result["notice"].partition("all of it is in ")[2].partition(":")[0]
    assert (workspace / path).read_text().split("\n")[50_000] == "50001"
    assert tools("read_file", path=path, offset=50_001, limit=1)["content"] == "50001\n"


def test_a_program_that_prints_for_ever_is_ended_and_does_not_fill_the_disk(tools, workspace):
    full = tools.full("run_command", {"command": "yes", "timeout_s": 60})

    assert "printed more than" in full["result"]["notice"]
    assert full["result"]["success"] is False
    assert full["took_s"] < 30
    assert sum(path.stat().st_size for path in (workspace / ".agentainer" / "outputs").iterdir()) <= 10 * 1024 * 1024
    assert full["children"] == 0


def test_of_many_long_outputs_the_oldest_go(tools, workspace):
    outputs = workspace / ".agentainer" / "outputs"
    outputs.mkdir(parents=True)
    for number in range(120):
        (outputs / f"old-{number}.txt").write_text("x")
        os.utime(outputs / f"old-{number}.txt", (number, number))

    tools("run_command", command="seq 1 100000")

    assert len(list(outputs.iterdir())) == 100
    assert not (outputs / "old-0.txt").exists()
    assert (outputs / "old-119.txt").exists()


def test_bytes_that_are_no_text_come_as_text(tools):
    assert tools("run_command", command="printf 'a\\377b\\0c'")["stdout"] == "a\ufffdb\0c"


def test_a_call_that_is_cancelled_leaves_no_process(tools, workspace):
    command = "sleep 1000 & echo $! > pid.new; mv pid.new pid; setsid sleep 1000 & sleep 1000"

    full = tools.full("run_command", {"command": command}, cancel_when=workspace / "pid")

    assert full["result"] == {"cancelled": True}
    assert not is_running(int((workspace / "pid").read_text()))
    assert full["children"] == 0


def test_calls_that_are_cancelled_at_any_moment_of_their_start_end_and_leave_nothing(tools):
    """In the middle of a start, asyncio's own way to cancel waits for ever."""
    full = tools.full("run_command", {"command": "sleep 1000 & setsid sleep 1000 & sleep 1000"}, cancel_after=40)

    assert full["result"] == {"cancelled": True}
    assert full["children"] == 0
    assert full["took_s"] < 20


def test_the_deadline_of_the_call_comes_before_the_timeout_that_was_asked_for(tools):
    full = tools.full("run_command", {"command": "sleep 1000", "timeout_s": 600}, room_s=6.5)

    assert full["result"]["timedOut"] is True
    assert full["took_s"] < 6.5


def test_two_calls_at_the_same_time_do_not_kill_each_other(tools, workspace):
    first = tools.call("run_command", {"command": "echo a; while [ ! -e go ]; do sleep 0.01; done; echo b"})
    second = tools.call("run_command", {"command": "sleep 1000 & touch go; echo c"})

    answers = tools.ask([first, second])

    assert [answer["result"]["stdout"] for answer in answers] == ["a\nb\n", "c\n"]
    assert all(answer["result"]["success"] for answer in answers)


def test_a_fork_bomb_of_processes_is_ended(tools):
    code = "import os, time\nfor _ in range(40):\n    if not os.fork():\n        time.sleep(1000)\nprint('forked')"

    full = tools.full("run_python", {"code": code})

    assert full["result"]["stdout"] == "forked\n"
    assert "40 of its processes" in full["result"]["notice"]
    assert full["children"] == 0


def test_what_is_not_there_is_said(tools):
    assert "not installed" in tools.full("run_command", {"command": "vitest run"}, mode="list")["result"]["error"]
    assert "does not exist" in tools("run_command", command="ls", directory="nowhere")["error"]
    assert "outside" in tools("run_command", command="ls", directory="..")["error"]
    assert "empty" in tools("run_command", command="  ")["error"]
    assert tools("run_command", command="ls", directory="/")["error"].startswith("/ is outside")


def test_a_program_of_python_sees_the_workspace_and_leaves_no_file(tools, workspace):
    (workspace / "sums.py").write_text("def add(a, b): return a + b\n")

    result = tools("run_python", code="import os, sums\nprint(sums.add(1, 2), os.getcwd())")

    assert result["stdout"] == f"3 {workspace}\n"
    assert list((workspace / ".agentainer" / "outputs").iterdir()) == []
    assert "ZeroDivisionError" in tools("run_python", code="1/0")["stderr"]


def test_a_program_that_is_cancelled_at_any_moment_leaves_no_file_of_it(tools, workspace):
    tools.full("run_python", {"code": "print(1)"}, cancel_after=25)

    assert not list((workspace / ".agentainer/outputs").glob("python-*.py"))


def test_those_that_fork_while_they_are_looked_for_are_stopped_one_by_one_and_all_of_them(monkeypatch):
    """A machine so busy that each look takes seconds: one more was forked by each that was not stopped yet."""
    now, running, sent = [0.0], {101, 102}, []

    def look(mark):
        for pid in sorted(running):
            now[0] += 1.0
            if pid < 109 and ("stop", pid) not in sent:
                running.add(pid + 2)
            yield pid

    def send(pid, number):
        sent.append(("stop" if number == signal.SIGSTOP else "kill", pid))

    monkeypatch.setattr(processes, "marked", look)
    monkeypatch.setattr(processes, "_send", send)
    monkeypatch.setattr(processes.time, "monotonic", lambda: now[0])

    assert processes.kill_all(2**22, "mark") == running

    assert {pid for what, pid in sent[:10] if what == "stop"} == running
    assert {pid for what, pid in sent[10:] if what == "kill"} == running
