"""What only the native tier does: runs that go on without a reader, are joined again, are not run twice, and are cancelled."""

import time
import uuid
from collections.abc import Iterator

from agentainerd.model.agui import TERMINAL, Event, EventType
from agentainerd.model.bridge_rules import RULES, Finding, Outcome
from agentainerd.services.bridge_invocations import ASK_S, Invoked
from agentainerd.services.bridge_trials import Heard, Trial, decoded, invocation, names

CANCEL_S = 10.0
SOON_S = 0.1  # after that, a run that ended by itself has not heeded its cancellation


def agent_status(trial: Trial) -> Finding:
    """Ask GET /agent/status."""
    heard = trial.ask("GET", "/agent/status", timeout_s=ASK_S)
    is_right = heard.status == 200 and isinstance(decoded(heard.body), dict)
    return RULES["agent_status"].found(Outcome.PASS if is_right else Outcome.FAIL, heard.summary)


def rejoining(trial: Trial, first: Heard) -> Iterator[Finding]:
    """Leave a run after its first event, join it again, and ask for it once more. `first`: the run that nobody left."""
    run_id = str(uuid.uuid4())
    body = invocation(trial.task, run_id)
    left = trial.hear("POST", "/invocations", body, headers=names(run_id), on_message=lambda message: False)
    if not left.messages:
        for name in ("disconnect", "rejoin", "same_run"):
            yield RULES[name].found(Outcome.SKIP, f"the run did not begin: {left.summary}")
        return
    rest = trial.hear("GET", f"/runs/{run_id}/events?after=1")
    whole = trial.hear("GET", f"/runs/{run_id}/events?after=0")
    yield _went_on(Invoked(run_id, rest), first)
    yield _joined(left, rest, whole)
    yield _same(trial.hear("POST", "/invocations", body, headers=names(run_id)), whole)


def unknown_run(trial: Trial) -> Finding:
    """Ask for a run that never was."""
    run_id = str(uuid.uuid4())
    events = trial.ask("GET", f"/runs/{run_id}/events?after=0", timeout_s=ASK_S)
    cancel = trial.ask("POST", f"/runs/{run_id}/cancel", b"", timeout_s=ASK_S)
    is_right = (events.status, cancel.status) == (404, 404)
    seen = f"events: {events.summary}; cancel: {cancel.summary}"
    return RULES["unknown_run"].found(Outcome.PASS if is_right else Outcome.FAIL, seen)


def cancelling(trial: Trial, first: Heard) -> Finding:
    """Cancel a run after its first event. `first`: the run that nobody cancelled."""
    run_id = str(uuid.uuid4())
    answers: list[tuple[Heard, float]] = []

    def cancel(message: object) -> bool:
        if not answers:
            answer = trial.ask("POST", f"/runs/{run_id}/cancel", b"", timeout_s=ASK_S)
            answers.append((answer, time.monotonic()))
        return True

    heard = trial.hear("POST", "/invocations", invocation(trial.task, run_id), headers=names(run_id), on_message=cancel)
    if not answers:
        return RULES["cancel"].found(Outcome.SKIP, f"the run did not begin: {heard.summary}")
    answer, answered_at = answers[0]
    took_s = max(0.0, heard.at[-1] - answered_at)
    if heard.kind == first.kind and took_s < SOON_S:
        return RULES["cancel"].found(
            Outcome.SKIP, "the run was over before it could be cancelled; give it a longer task"
        )
    return _cancelled(answer, Invoked(run_id, heard).ending, took_s)


def _cancelled(answer: Heard, ending: Event, took_s: float) -> Finding:
    rule = RULES["cancel"]
    ended = f"{ending.get('type') or 'no end'} {ending.get('code') or ''}".strip()
    if answer.status != 202:
        return rule.found(Outcome.FAIL, f"it was answered {answer.summary}, and the run ended with {ended}")
    is_right = ending.get("type") == EventType.RUN_ERROR and ending.get("code") == "cancelled" and took_s < CANCEL_S
    return rule.found(Outcome.PASS if is_right else Outcome.FAIL, f"202, and {ended} after {took_s:.1f} s")


def _went_on(rest: Invoked, first: Heard) -> Finding:
    rule = RULES["disconnect"]
    if rest.heard.status != 200:
        return rule.found(Outcome.SKIP, f"it could not be joined again: {rest.heard.summary}")
    if rest.ending.get("type") not in TERMINAL:
        return rule.found(Outcome.SKIP, f"no end of it came {rest.heard.problem}".strip())
    is_alike = rest.heard.kind == first.kind
    seen = f"it ended with {rest.heard.kind}" + ("" if is_alike else f"; one that was not left with {first.kind}")
    return rule.found(Outcome.PASS if is_alike else Outcome.FAIL, seen)


def _joined(left: Heard, rest: Heard, whole: Heard) -> Finding:
    rule = RULES["rejoin"]
    if rest.status != 200 or whole.status != 200:
        return rule.found(Outcome.FAIL, f"after=1: {rest.summary}; after=0: {whole.summary}")
    is_right = _events(left) + _events(rest) == _events(whole)
    numbers = ", ".join(message.id for message in rest.messages[:3])
    seen = (
        f"{len(rest.messages)} of {len(whole.messages)} events after the first, with the ids {numbers or 'none'}, ..."
    )
    return rule.found(Outcome.PASS if is_right else Outcome.FAIL, seen)


def _same(again: Heard, whole: Heard) -> Finding:
    rule = RULES["same_run"]
    if whole.status != 200:
        return rule.found(Outcome.SKIP, f"its events can't be asked for: {whole.summary}")
    if again.status != 200:
        return rule.found(Outcome.FAIL, again.summary)
    is_same = _events(again) == _events(whole)
    seen = f"the same {len(again.messages)} events" if is_same else "other events than those of the run"
    return rule.found(Outcome.PASS if is_same else Outcome.FAIL, seen)


def _events(heard: Heard) -> list[tuple[str, object]]:
    return [(message.id, decoded(message.data)) for message in heard.messages]
