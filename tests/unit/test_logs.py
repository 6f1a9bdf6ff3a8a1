import json
import logging
import os
import re

import pytest

from agentainerd import logs


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.fixture
def started(pipe):
    """Like the daemon's logging, but on a pipe and beside pytest's own handlers."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.getLogger("agentainerd").level
    handlers = []

    def start(level: str, style: str) -> logs.LineHandler:
        handlers.append(logs.start(level, style, pipe[1]))
        return handlers[0]

    yield start
    logging.captureWarnings(False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    logging.getLogger("agentainerd").setLevel(before[2])
    for handler in handlers:
        handler.close()


log = logging.getLogger("agentainerd.test")


def read(pipe) -> str:
    try:
        return os.read(pipe[0], 1_000_000).decode()
    except BlockingIOError:
        return ""


def test_a_line_for_people_has_time_level_message_and_fields(started, pipe):
    started("info", "text")

    log.info("agent started in %d ms", 12, extra={"agent_id": "agent-1", "request_id": "r-1"})

    line = read(pipe)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO    agent started in 12 ms agent_id=.*\n", line)
    assert line.endswith("agent_id=agent-1 request_id=r-1\n")


def test_a_line_for_programs_is_one_object(started, pipe):
    started("info", "json")

    log.warning("agent %s crashed", "web", extra={"agent_id": "agent-1", "exit_code": 137})

    record = json.loads(read(pipe))
    assert record.pop("time").endswith("Z")
    assert record == {
        "level": "warning", "logger": "agentainerd.test", "message": "agent web crashed",
        "agent_id": "agent-1", "exit_code": 137,
    }  # fmt: skip


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_traceback_is_kept(started, pipe, style):
    started("info", style)

    try:
        raise ValueError("on purpose")
    except ValueError:
        log.exception("it failed")

    written = read(pipe)
    assert "it failed" in written
    assert "ValueError: on purpose" in written


def test_control_characters_cannot_forge_a_line(started, pipe):
    started("info", "text")

    log.info("path %s", "/a\n2026-11-20 INFO all is well\x1b[2J", extra={"client": "x\ny"})

    assert read(pipe).count("\n") == 1


def test_the_level_is_that_of_the_daemon_and_libraries_are_heard_from_warning_on(started, pipe):
    handler = started("warning", "text")
    log.info("quiet")
    logging.getLogger("docker").info("quiet")
    assert read(pipe) == ""

    logs.configure(handler, "debug", "text")
    log.debug("loud")
    logging.getLogger("docker").info("quiet")
    logging.getLogger("docker").warning("heard")

    assert [line.split()[-1] for line in read(pipe).splitlines()] == ["loud", "heard"]


def test_a_full_pipe_blocks_nobody_and_the_lines_come_later(started, pipe, eventually):
    handler = started("info", "text")

    for number in range(1500):
        log.info("line %d %s", number, "x" * 200)
    assert handler.backlog > 0

    written = ""

    def all_there() -> bool:
        nonlocal written
        written += read(pipe)
        return "line 1499 " in written

    eventually(all_there)
    assert [int(line.split()[4]) for line in written.splitlines()] == list(range(1500))


def test_the_backlog_is_bounded_and_what_was_dropped_is_counted(started, pipe, eventually):
    started("info", "text")

    for number in range(logs.MAX_BACKLOG_LINES * 2):
        log.info("line %d %s", number, "x" * 200)

    written = ""

    def said() -> bool:
        nonlocal written
        written += read(pipe)
        return "were dropped" in written

    eventually(said)
    dropped = int(re.search(r"\((\d+) lines of this log were dropped", written).group(1))
    assert dropped > 0
    assert written.count("line ") == logs.MAX_BACKLOG_LINES * 2 - dropped


def test_a_line_longer_than_the_pipe_is_whole(started, pipe, eventually):
    started("info", "text")

    log.info("begin %s end", "y" * 300_000)

    written = ""

    def all_there() -> bool:
        nonlocal written
        written += read(pipe)
        return written.endswith(" end\n")

    eventually(all_there)
    assert written.count("y") == 300_000


def test_a_reader_that_is_gone_breaks_nothing(started):
    read_end, write_end = os.pipe()
    handler = logs.LineHandler(write_end)
    os.close(read_end)

    handler.handle(logging.makeLogRecord({"msg": "nobody"}))

    assert handler.backlog == 0
    handler.close()
    os.close(write_end)


def test_under_journald_the_priority_replaces_the_time(started, pipe, monkeypatch):
    there = os.fstat(pipe[1])
    monkeypatch.setenv("JOURNAL_STREAM", f"{there.st_dev}:{there.st_ino}")
    started("info", "text")

    log.error("broken")

    assert read(pipe) == "<3>broken\n"
