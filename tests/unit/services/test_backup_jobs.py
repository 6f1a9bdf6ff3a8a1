"""Jobs: a few at once, their progress, their end."""

import gevent
import pytest

from agentainerd.errors import AgentainerError, Conflict, TooManyRequests
from agentainerd.services.backup_jobs import MAX_JOBS, BackupJobs
from agentainerd.supervisor import Supervisor


@pytest.fixture
def jobs():
    supervisor = Supervisor()
    yield BackupJobs(supervisor.spawn)
    supervisor.stop(1.0)


def test_progress_and_then_the_result(jobs):
    def work(watch):
        watch.step, watch.bytes = "half", 7
        gevent.sleep(0.4)
        return {"done": True}

    first, *_, last = list(jobs.start("x", work))

    assert first == {"progress": {"step": "half", "entries": 0, "bytes": 7, "total": 0}}
    assert last == {"result": {"done": True}}


def test_an_error_is_raised_where_it_is_read(jobs):
    def work(watch):
        raise Conflict("no")

    with pytest.raises(Conflict):
        list(jobs.start("x", work))


def test_a_bug_is_an_error_too_and_frees_its_place(jobs):
    def work(watch):
        raise ValueError("bug")

    for _ in range(MAX_JOBS + 1):
        with pytest.raises(AgentainerError) as failure:
            list(jobs.start("x", work))
        assert "broke off" in failure.value.message


def test_one_more_than_the_most_is_refused_until_one_has_ended(jobs):
    go = gevent.event.Event()
    running = [jobs.start("x", lambda watch: go.wait() and {}) for _ in range(MAX_JOBS)]

    with pytest.raises(TooManyRequests):
        jobs.start("x", lambda watch: {})

    go.set()
    for job in running:
        list(job)
    assert list(jobs.start("x", lambda watch: {"a": 1}))[-1] == {"result": {"a": 1}}


def test_closing_cancels(jobs):
    def work(watch):
        while True:
            watch.did(1)
            gevent.sleep(0)

    job = jobs.start("x", work)
    gevent.sleep(0)
    job.close()

    with pytest.raises(AgentainerError) as failure:
        list(job)
    assert failure.value.code == "CANCELLED"
