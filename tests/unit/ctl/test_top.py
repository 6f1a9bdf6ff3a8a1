"""`top` as a process."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import termios

import pytest
from gevent.socket import wait_read

from tests.unit.ctl.test_metrics import BUSY, ONE, REQUESTS, STOPPED, USE

DAEMON = {
    "started_at": "2026-01-01T00:00:00.000Z", "cpu_seconds": 10.0, "memory_bytes": 61_000_000, "open_files": 30,
    "max_open_files": 65536, "connections": 7, "loop_lag_ms": {"last": 0.1, "largest": 3.5},
    "journal": {"available": True, "batches": 5, "operations": 9, "operations_per_batch": 1.8, "latency_ms": {"p99": 0.8}},
    "redis": {"memory_bytes": 3_000_000, "max_memory_bytes": 0, "file_bytes": 100}, "metrics_round_ms": 1.0,
}  # fmt: skip
HUNGRY = {
    **ONE,
    "agent_id": "agent-b",
    "agent_name": "hungry",
    "memory": {**USE["memory"], "usage": 10**9},
    "requests": BUSY,
}
HUNGRY["cpu"] = {**USE["cpu"], "usage_percent": 1.0}
AGENTS = {"agent-a": {**ONE, "agent_id": "agent-a"}, "agent-b": HUNGRY, "agent-c": {**STOPPED, "agent_id": "agent-c"}}


@pytest.fixture
def told(api):
    api.on("GET", "/metrics/agents", AGENTS)
    api.on("GET", "/metrics/daemon", DAEMON)
    return api


def test_in_a_pipe_it_is_a_table_shown_once(told, run):
    head, *lines = run("top").out.splitlines()

    assert head.split()[:4] == ["NAME", "STATUS", "CPU", "MEMORY"]
    assert [line.split()[0] for line in lines] == ["web", "hungry", "idle"]
    assert lines[2].split() == ["idle", "stopped", *["-"] * 9, "0", "0", "0"]
    assert told.asked[0].query == {"max_age": ["2.0"]}


@pytest.mark.parametrize(
    ("sort", "first"), [("memory", "hungry"), ("queue", "hungry"), ("cpu", "web"), ("name", "hungry")]
)
def test_the_first_one_has_most_of_it(told, run, sort, first):
    assert run("top", "--sort", sort).out.splitlines()[1].split()[0] == first


def test_json_has_agents_in_order_and_the_daemon(told, run):
    said = json.loads(run("top", "--sort", "memory", "-o", "json").out)

    assert [each["agent_name"] for each in said["agents"]] == ["hungry", "web", "idle"]
    assert said["daemon"] == DAEMON


def test_no_agents(api, run):
    api.on("GET", "/metrics/agents", {})
    api.on("GET", "/metrics/daemon", DAEMON)

    assert run("top").out == "No agents found\n"


class Terminal:
    """The program on a terminal of its own: what it has drawn since it last cleared the screen, and keys."""

    def __init__(self, start, *arguments, lines=24, columns=160):
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        self.process = start(
            *arguments, env={"TERM": "xterm", "NO_COLOR": "1"},
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)), **streams,
        )  # fmt: skip
        os.close(theirs)
        self.seen = ""

    def read(self):
        wait_read(self.ours, timeout=10)
        try:
            data = os.read(self.ours, 65536)
        except OSError:
            return False
        self.seen += data.decode()
        return bool(data)

    def wait_for(self, pattern):
        """Read until the last whole screen looks so; return it."""
        while True:
            for screen in reversed(self.seen.split("\x1b[H\x1b[2J")[1:]):
                if re.search(pattern, screen, re.DOTALL):
                    return screen.replace("\r\n", "\n")
            assert self.read(), f"ended without {pattern!r}:\n{self.seen}"

    def type(self, keys):
        os.write(self.ours, keys)


def test_on_a_terminal_it_is_live_and_keys_sort(told, start, eventually):
    later = {
        **AGENTS,
        "agent-a": {**AGENTS["agent-a"], "requests": {**REQUESTS, "total": 500, "errors": 100, "latency_ms": {"count": 500, "mean": 20.0}}},
    }  # fmt: skip
    told.on("GET", "/metrics/agents", later)
    terminal = Terminal(start, "top", "--interval", "100ms")

    first = terminal.wait_for("by cpu; keys")
    assert first.startswith("agentainerd: up ")
    assert "7 connections" in first and "loop lag 0.1 ms (up to 3.5)" in first and "redis 3 MB" in first
    assert first.index("web ") < first.index("hungry ")
    live = terminal.wait_for(r"web +running[^\n]* [1-9][0-9]*\.[0-9] +[0-9.]+ +20 ms")
    assert "cpu 0.0 %" in live

    terminal.type(b"m")
    by_memory = terminal.wait_for("by memory; keys")
    assert by_memory.index("hungry ") < by_memory.index("web ")

    terminal.type(b"q")
    assert terminal.process.wait(timeout=10) == 0


def test_what_does_not_fit_is_counted(api, start):
    api.on("GET", "/metrics/agents", {str(n): {**ONE, "agent_id": str(n), "agent_name": f"a{n}"} for n in range(30)})
    api.on("GET", "/metrics/daemon", {**DAEMON, "redis": None})
    terminal = Terminal(start, "top", lines=12)

    screen = terminal.wait_for("23 more agents; by cpu")

    assert len(screen.splitlines()) <= 12
    assert "redis is away" in screen
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.process.wait(timeout=10) == 130


@pytest.mark.parametrize("columns", [40, 80, 100, 160])
def test_no_line_is_wider_than_the_terminal(told, start, columns):
    terminal = Terminal(start, "top", columns=columns)

    screen = terminal.wait_for("by cpu; keys")

    assert all(len(line) <= columns for line in screen.splitlines())
    assert "web" in screen and "12.3 %" in screen
    terminal.type(b"q")
    assert terminal.process.wait(timeout=10) == 0
