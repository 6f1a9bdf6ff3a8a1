"""Long work in short turns: its end, its errors, and that it is never in two threads."""

import threading
import time

import gevent
import pytest

from agentainerd.archives import slices
from agentainerd.archives.slices import Work


def test_the_result_comes_after_many_turns(monkeypatch):
    monkeypatch.setattr(slices, "SLICE_S", 0.0)

    def steps():
        for _ in range(5):
            yield
        return "done"

    work = Work(steps())

    assert [work.go_on() for _ in range(5)] == [False] * 5
    assert work.finish() == "done" and work.go_on() is True


def test_what_fails_fails_each_time():
    def steps():
        yield
        raise ValueError("on purpose")

    work = Work(steps())

    for _ in range(2):
        with pytest.raises(ValueError, match="on purpose"):
            work.finish()


def test_work_that_is_stopped_cleans_up_where_it_is_once_its_thread_is_out_of_it(eventually):
    done = []

    def steps():
        try:
            while True:
                end = time.monotonic() + 0.02
                while time.monotonic() < end:
                    pass
                done.append(threading.get_native_id())
                yield
        finally:
            done.append("cleaned up")

    work = Work(steps())
    reader = gevent.spawn(work.finish)  # noqa: TID251
    eventually(lambda: done)

    reader.kill()
    work.stop(lambda: done.append("and then"))

    assert done[-2:] == ["cleaned up", "and then"] and len(done) > 2
