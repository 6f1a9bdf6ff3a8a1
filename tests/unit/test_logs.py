import json
import logging
import os
import re

import pytest

from agentainerd import log_context, logs
from agentainerd.log_thread import ThreadHandler
from agentainerd.supervisor import Supervisor


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

    def start(level: str, style: str, descriptor: int | None = None) -> logs.Logs:
        handlers.append(logs.Logs(level, style, pipe[1] if descriptor is None else descriptor))
        return handlers[-1]

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
        "level": "warning", "component": "test", "message": "agent web crashed",
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
    started_logs = started("warning", "text")
    log.info("quiet")
    logging.getLogger("docker").info("quiet")
    assert read(pipe) == ""

    started_logs.configure("debug", "text")
    log.debug("loud")
    logging.getLogger("docker").info("quiet")
    logging.getLogger("docker").warning("heard")

    assert [line.split()[-1] for line in read(pipe).splitlines()] == ["loud", "heard"]


def test_a_full_pipe_blocks_nobody_and_the_lines_come_later(started, pipe, eventually):
    handler = started("info", "text").console

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


def test_whoever_logs_for_a_request_says_so(started, pipe):
    started("info", "json")

    def work():
        log_context.begin(request_id="r-1")
        log_context.add(actor="token")
        supervisor.spawn("child", log.info, "started").join()
        log.info("own", extra={"request_id": "r-2"})

    supervisor = Supervisor()
    supervisor.spawn("parent", work).join()
    log.info("nobody's")

    assert [
        (line["message"], line.get("request_id"), line.get("actor"))
        for line in map(json.loads, read(pipe).splitlines())
    ] == [("started", "r-1", "token"), ("own", "r-2", "token"), ("nobody's", None, None)]


@pytest.mark.parametrize("style", ["text", "json"])
@pytest.mark.parametrize(
    "text",
    [
        "GET / HTTP/1.1 Authorization: Bearer s3cr3t-s3cr3t",
        "cannot reach redis://user:s3cr3t@10.0.0.1:6379/0",
        "cannot reach redis://:s3cr3t@10.0.0.1",
        "no answer to /agents?x=1&token=s3cr3t&y=2",
        "/requests/1?t=s3cr3t",
    ],
)
def test_what_looks_like_a_credential_is_masked(started, pipe, style, text):
    started("info", style)

    log.info("%s", text, extra={"field": text})
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("it failed")

    written = read(pipe)
    assert "s3cr3t" not in written
    assert written.count("***") >= 3


def test_no_line_of_the_file_is_endless(started, pipe):
    started("info", "json")

    log.info("x" * 1_000_000, extra={"field": "y" * 1_000_000})

    assert len(json.loads(read(pipe))["message"]) == logs.MAX_TEXT_CHARS + 3


def test_standard_error_on_a_disk_is_written_by_a_thread(started, tmp_path, eventually):
    path = tmp_path / "log"
    with path.open("wb") as file:
        handler = started("info", "text", file.fileno()).console
        for number in range(100):
            log.info("line %d", number)

        assert isinstance(handler, ThreadHandler)
        eventually(lambda: len(path.read_text().splitlines()) == 100)
        handler.close()


def test_what_was_logged_before_there_is_a_file_is_in_it(started, tmp_path, eventually):
    made = started("info", "text")
    log.info("early")
    path = tmp_path / "log"

    made.file.start(lambda lines: path.write_bytes(lines))

    eventually(lambda: path.exists() and json.loads(path.read_bytes())["message"] == "early")
