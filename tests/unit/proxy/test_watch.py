"""Deadlines without timers."""

from agentainerd.proxy.watch import NEVER, Cause, Sweeper, Watched


class Waiting(Watched):
    def __init__(self):
        super().__init__()
        self.causes = []

    def expire(self, cause):
        self.causes.append(cause)


def test_what_is_overdue_is_told_once_and_why():
    sweeper, waiting = Sweeper(), Waiting()
    waiting.deadline, waiting.overdue = sweeper.now - 1, Cause.STALLED
    sweeper.add(waiting)

    sweeper.sweep()
    sweeper.sweep()

    assert waiting.causes == [Cause.STALLED]
    assert waiting.deadline == NEVER


def test_what_is_not_overdue_goes_on():
    sweeper, waiting = Sweeper(), Waiting()
    waiting.deadline = sweeper.now + 60
    sweeper.add(waiting)

    sweeper.sweep()

    assert waiting.causes == []
    assert len(sweeper) == 1
    sweeper.remove(waiting)
    assert sweeper.all() == []
