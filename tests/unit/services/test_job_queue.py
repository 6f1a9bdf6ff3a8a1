"""Whose turn it is, with a clock that stands still."""

from agentainerd.model.jobs import Job, JobLimits
from agentainerd.services.job_queue import JobQueue


class Line:
    """A queue whose jobs note when they begin."""

    def __init__(self, limit: int = 1) -> None:
        self.limit, self.now, self.begun, self.count = limit, 1000.0, [], 0
        self.queue = JobQueue(lambda: self.limit, lambda: self.now)

    def add(self, name: str, submitter: str = "ann", priority: int = 0, not_before: float = 0.0) -> None:
        self.count += 1
        job = Job(
            id=name, image="x", submitter=submitter, limits=JobLimits(), retention_s=0, sequence=self.count,
            priority=priority, not_before=not_before,
        )  # fmt: skip
        self.queue.enlist(job, lambda: self.begun.append(name))

    def drain(self) -> list[str]:
        for place in range(100):
            if place >= len(self.begun):
                break
            self.queue.leave(self.begun[place])
        return self.begun


def test_no_more_run_at_once_than_may():
    line = Line(limit=2)
    for name in "abc":
        line.add(name)

    assert line.begun == ["a", "b"]
    line.queue.leave("a")
    assert line.begun == ["a", "b", "c"]
    assert line.queue.running == {"b", "c"}


def test_the_highest_priority_is_first_and_equal_ones_are_in_order():
    line = Line()
    for name, priority in (("now", 0), ("low", -1), ("first", 0), ("high", 5), ("second", 0)):
        line.add(name, priority=priority)

    assert line.queue.positions() == {"high": 1, "first": 2, "second": 3, "low": 4}
    assert [line.queue.position(name) for name in ("high", "low", "now", "nobody")] == [1, 4, 0, 0]
    assert line.drain() == ["now", "high", "first", "second", "low"]


def test_who_has_much_running_lets_others_go_first():
    line = Line(limit=3)
    for name in ("a1", "a2", "a3", "a4", "a5"):
        line.add(name)
    line.add("b1", submitter="bob")

    line.queue.leave("a1")

    assert line.begun == ["a1", "a2", "a3", "b1"]


def test_one_that_is_held_back_holds_nobody_up_and_begins_in_its_time():
    line = Line()
    line.add("later", priority=10, not_before=1060.0)
    line.add("now")
    line.queue.leave("now")
    assert line.begun == ["now"]

    line.now = 1060.0
    line.queue.offer()

    assert line.begun == ["now", "later"]


def test_one_that_leaves_while_it_waits_does_not_begin():
    line = Line()
    for name in "abc":
        line.add(name)

    line.queue.leave("b")

    assert line.drain() == ["a", "c"]
    assert len(line.queue) == 0


def test_what_runs_already_has_its_place_and_more_may_begin_when_more_may_run():
    line = Line()
    line.queue.occupy(Job(id="old", image="x", submitter="ann", limits=JobLimits(), retention_s=0, sequence=0))
    line.add("new")
    assert line.begun == []

    line.limit = 2
    line.queue.offer()

    assert line.begun == ["new"]
