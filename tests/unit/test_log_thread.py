"""Lines go to the disk in a thread; whoever logs never waits for it."""

import errno
import logging
import os
import time

import gevent
import pytest
from gevent import monkey

from agentainerd import log_thread
from agentainerd.log_thread import ThreadHandler


@pytest.fixture
def handler():
    made = ThreadHandler()
    yield made
    made.close(0.5)


def emit(handler, text):
    handler.handle(logging.makeLogRecord({"msg": text, "levelno": logging.INFO}))


def test_lines_are_written_in_order_and_told_in_the_event_loop(handler, eventually):
    written, told = [], []
    handler.on_written = lambda lines: told.extend((line, gevent.getcurrent() is gevent.get_hub()) for line in lines)
    handler.start(written.append)

    for number in range(1000):
        emit(handler, str(number))

    eventually(lambda: len(told) == 1000)
    assert b"".join(written) == b"".join(b"%d\n" % number for number in range(1000))
    assert told == [(b"%d\n" % number, True) for number in range(1000)]


def test_a_disk_that_does_not_take_a_line_blocks_nobody(handler, tmp_path, eventually):
    """A FIFO that nobody reads keeps a writer in write(2), as a disk that hangs does."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(path, os.O_WRONLY)
    handler.start(lambda lines: [os.write(writer, line + b"\n") for line in lines.splitlines()])
    lag = []

    def beat():
        while True:
            began = time.monotonic()
            gevent.sleep(0.001)
            lag.append(time.monotonic() - began)

    heart = gevent.spawn(beat)
    for number in range(2000):
        emit(handler, f"{number} " + "x" * 200)
        if not number % 100:
            gevent.sleep(0)
    eventually(lambda: len(lag) >= 10)
    heart.kill()

    assert handler.waiting > 0  # it is stuck in write(2)
    assert sorted(lag)[len(lag) // 2] < 0.05

    text = b""

    def all_there():
        nonlocal text
        try:
            text += os.read(reader, 1_000_000)
        except BlockingIOError:
            return False
        return text.count(b"\n") == 2000

    eventually(all_there)
    assert [int(line.split()[0]) for line in text.splitlines()] == list(range(2000))
    os.close(reader)
    os.close(writer)


def test_what_is_too_much_is_dropped_and_counted(handler, caplog, eventually, monkeypatch):
    monkeypatch.setattr(log_thread, "MAX_WAITING", 10)
    written = []
    for number in range(15):
        emit(handler, str(number))

    handler.start(written.append)

    eventually(lambda: "5 lines of this log were dropped" in caplog.text)
    assert b"".join(written).split() == [b"%d" % number for number in range(10)]


def test_a_full_disk_is_told_once_and_what_it_cost_when_it_is_over(handler, caplog, eventually):
    written = []
    is_full = True

    def write(lines):
        if is_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(lines)

    handler.start(write)
    for _ in range(3):
        emit(handler, "lost")
        eventually(lambda: handler.waiting == 0 and handler.trouble)
    is_full = False

    def came_through():
        emit(handler, "kept")
        return written

    eventually(came_through)
    eventually(lambda: "3 lines of this log were dropped" in caplog.text)
    assert caplog.text.count("No space left on device") == 1
    assert handler.trouble == ""
    assert b"".join(written).split()[0] == b"kept"


def test_the_last_lines_are_written_at_the_end():
    handler = ThreadHandler()
    written = []
    handler.start(written.append)

    emit(handler, "last")
    handler.close()

    assert written == [b"last\n"]


def test_an_end_does_not_wait_for_ever_for_a_disk(tmp_path):
    handler = ThreadHandler()
    read, write = os.pipe()
    handler.start(lambda lines: os.write(write, b"x" * 200_000))
    emit(handler, "stuck")
    began = time.monotonic()

    handler.close(0.2)

    assert time.monotonic() - began < 2
    os.set_blocking(read, False)
    while True:  # let the thread end
        try:
            os.read(read, 65536)
        except BlockingIOError:
            break
    os.close(read)
    os.close(write)


def test_with_grace_a_line_is_there_when_it_was_logged(tmp_path):
    handler = ThreadHandler(grace_s=2.0)
    path = tmp_path / "log"
    file = os.open(path, os.O_WRONLY | os.O_CREAT)
    handler.start(lambda lines: os.write(file, lines))

    for number in range(200):
        emit(handler, str(number))
        assert path.read_text().splitlines()[-1] == str(number)

    handler.close()
    os.close(file)


def test_a_slow_disk_is_waited_for_once(eventually):
    handler = ThreadHandler(grace_s=0.05)
    written = []

    def write(lines):
        written.append(lines)
        monkey.get_original("time", "sleep")(0.2)

    handler.start(write)
    took = []
    for number in range(10):
        began = time.monotonic()
        emit(handler, str(number))
        took.append(time.monotonic() - began)
        eventually(lambda: handler.waiting == 0)

    assert sum(one > 0.04 for one in took) <= 1
    handler.close()
    assert b"".join(written).split() == [b"%d" % number for number in range(10)]
