"""How an agent answers whose runs are commands (exec, acp): judged by what the daemon's own links make of them."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from gevent.event import Event as Signal

from agentainerd.model.agui import Event, EventType
from agentainerd.model.bridge_rules import RULES, Finding, Outcome
from agentainerd.model.bridges import Bridge
from agentainerd.services.agent_calls import CallBroken
from agentainerd.services.bridge_trials import MAX_MESSAGES, Trial, decoded
from agentainerd.services.command_links import TERM_S
from agentainerd.services.run_links import Link, RunRefused

PATIENCE_S = 1.0  # for a first word: then it is cancelled without one
SOON_S = 0.1
_NOT_RUN = ("(it can't be run)", "(it is not in the image)")

Begin = Callable[[], Link]


@dataclass(slots=True)
class _Played:
    """One command: its events, how it broke off ("": it did not), and when it was over."""

    events: list[Event] = field(default_factory=list)
    problem: str = ""
    ended_at: float = 0.0

    @property
    def ending(self) -> Event:
        return self.events[-1] if self.events else {}

    @property
    def is_finished(self) -> bool:
        return self.ending.get("type") == EventType.RUN_FINISHED

    @property
    def summary(self) -> str:
        """Why it did not finish."""
        return self.problem or str(self.ending.get("message") or "it ended without an answer")


def command_checks(trial: Trial, bridge: Bridge, begin: Begin) -> Iterator[Finding]:
    """Run the task once, and once more to be cancelled. `begin` gives a link to a new command."""
    played = _play(begin(), trial.wall_s)
    yield from _judged(bridge, played)
    if not played.is_finished:
        yield RULES["terminates"].found(Outcome.SKIP, "there is no command to try it on")
        return
    yield _cancelled(trial, begin())


def _judged(bridge: Bridge, played: _Played) -> Iterator[Finding]:
    can_run = bool(played.events) and not any(meaning in played.summary for meaning in _NOT_RUN)
    seen = f"{len(played.events)} events came of it" if can_run else played.summary
    yield RULES["command"].found(Outcome.PASS if can_run else Outcome.FAIL, f"{seen:.200}")
    told = "it was done" if played.is_finished else played.summary
    yield RULES["task"].found(Outcome.PASS if played.is_finished else Outcome.FAIL, f"{told:.200}")
    text = "".join(
        str(event.get("delta")) for event in played.events if event["type"] == EventType.TEXT_MESSAGE_CONTENT
    )
    yield RULES["text"].found(Outcome.PASS if text.strip() else Outcome.FAIL, text.strip()[:80] or "no text")
    if bridge is Bridge.ACP:
        reason = (played.ending.get("result") or {}).get("stop_reason") if played.is_finished else ""
        told = str(reason or played.summary)
        yield RULES["stop_reason"].found(Outcome.PASS if reason else Outcome.FAIL, f"{told:.200}")


def _cancelled(trial: Trial, link: Link) -> Finding:
    rule = RULES["terminates"]
    has_spoken, asked_at = Signal(), list[float]()

    def cancel() -> None:
        has_spoken.wait(PATIENCE_S)
        asked_at.append(time.monotonic())
        link.abort()

    asking = trial.spawn("bridge cancel", cancel)
    played = _play(link, trial.wall_s, on_word=has_spoken.set)
    has_spoken.set()
    asking.join()
    took_s = played.ended_at - asked_at[0]
    if took_s < 0 or (played.is_finished and took_s < SOON_S):
        return rule.found(Outcome.SKIP, "the command was over before it could be cancelled; give it a longer task")
    how = "it went on to its end" if played.is_finished else f"{played.summary:.100}"
    is_right = not played.is_finished and took_s < TERM_S
    return rule.found(Outcome.PASS if is_right else Outcome.FAIL, f"after {took_s:.1f} s: {how}")


def _play(link: Link, wall_s: float, on_word: Callable[[], Any] = lambda: None) -> _Played:
    played, end = _Played(), time.monotonic() + wall_s
    try:
        for sent in link.events(lambda: max(0.001, end - time.monotonic())):
            event = decoded(sent.payload)
            played.events.append(event)
            if event.get("type") != EventType.RUN_STARTED:
                on_word()
            if len(played.events) >= MAX_MESSAGES:
                played.problem = f"more than {MAX_MESSAGES} events came of it"
                break
    except (CallBroken, RunRefused) as error:
        played.problem = error.reason
    finally:
        played.ended_at = time.monotonic()
        link.close()
    return played
