"""What a container whose own program is the job says, as the engine tells it."""

from types import SimpleNamespace

import msgspec
import pytest

from agentainerd.model.containers import Container, ContainerState, LogPiece
from agentainerd.services.job_links import EntrypointLink

LINES = [
    LogPiece("stdout", b"2026-11-21T15:14:23.100000000Z first\n"),
    LogPiece("stderr", b"2026-11-21T15:14:23.100000000Z aside\n"),
    LogPiece("stdout", b"2026-11-21T15:14:23.100000001Z second\n"),
    LogPiece("stdout", b"2026-11-21T15:14:24.000000000Z the last"),
]


class Lines(list):
    def __init__(self, lines):
        super().__init__(lines)
        self._left = iter(self)

    def __next__(self):
        return next(self._left)

    def close(self):
        pass


class Engine:
    """One whose container has ended; who reads along is told the first `told` lines."""

    def __init__(self, told):
        self.told = told

    def logs(self, container_id, *, follow=False, since=0.0, timestamps=True):
        return Lines(LINES[: self.told] if follow else LINES)


def link(engine, after=0):
    box = Container("c1", "agent-1", "job", ContainerState.EXITED, "sha256:0", "", started_at=1.0)
    run = SimpleNamespace(id="run-1", attempt=1)
    return EntrypointLink(
        engine, lambda: box, run, lambda: None, after=after, is_speaking=False, spawn=lambda *_: None
    )  # fmt: skip


def said(sent):
    events = [msgspec.json.decode(each.payload) for each in sent]
    text = "".join(event.get("delta", "") for event in events)
    return text, [event["value"]["text"] for event in events if event["type"] == "CUSTOM"], events[-1]["type"]


@pytest.mark.parametrize("told", range(5))
def test_lines_that_the_engine_did_not_tell_before_the_end_are_read_then_and_none_twice(told):
    sent = list(link(Engine(told)).events(lambda: 60.0))

    assert said(sent) == ("first\nsecond\nthe last", ["aside\n"], "RUN_FINISHED")


def test_a_run_that_is_joined_again_has_what_came_after_what_is_known():
    first = [each.number for each in link(Engine(4)).events(lambda: 60.0) if each.number]

    sent = list(link(Engine(0), after=first[2]).events(lambda: 60.0))

    assert said(sent)[0] == "the last"
