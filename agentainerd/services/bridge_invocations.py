"""How a container answers `POST /invocations`: with AG-UI events (agui, native), or with anything (agentcore)."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentainerd.model import agui, event_sequences
from agentainerd.model.agui import EventType
from agentainerd.model.bridge_rules import RULES, Finding, Outcome
from agentainerd.model.bridges import Bridge
from agentainerd.services.bridge_pings import busy_pings, last_update
from agentainerd.services.bridge_trials import (
    JSON,
    SSE,
    UNKNOWN_HEADER,
    Heard,
    Ping,
    Trial,
    decoded,
    invocation,
    names,
    shown,
)

ASK_S = 10.0


@dataclass(slots=True)
class Invoked:
    """One run: its id, what was heard of it, the pings during it, and time_of_last_update before it."""

    run_id: str
    heard: Heard
    pings: Sequence[Ping] = ()
    before: float | None = None

    @property
    def events(self) -> list[object]:
        """What the data of each message says."""
        return [decoded(message.data) for message in self.heard.messages]

    @property
    def ending(self) -> agui.Event:
        """The last event, {} where there is none or it is none of AG-UI."""
        events = self.events
        return events[-1] if events and isinstance(events[-1], dict) else {}


def invoke(trial: Trial) -> Invoked:
    """Run the task, and ping meanwhile and once more after it."""
    run_id = str(uuid.uuid4())
    before = last_update(trial.ping())
    with trial.pinging() as pings:
        heard = trial.hear("POST", "/invocations", invocation(trial.task, run_id), headers=names(run_id))
    return Invoked(run_id, heard, [*pings, trial.ping()], before)


def agui_run(bridge: Bridge, run: Invoked) -> Iterator[Finding]:
    """Judge a run's events, and what /ping said meanwhile."""
    heard = run.heard
    yield (answer := answered(heard, SSE))
    is_right = answer.outcome is Outcome.PASS
    names_ = (
        "task",
        "first",
        "last",
        "run_id",
        "fields",
        "pairs",
        *(("numbering",) if bridge is Bridge.NATIVE else ()),
    )
    if not is_right:
        for name in (*names_, "usage"):
            yield RULES[name].found(Outcome.SKIP, "there was no stream of events")
    else:
        yield _task(run)
        yield from _sequence(run)
        if bridge is Bridge.NATIVE:
            yield _numbering(run.heard)
        yield _usage(run.ending)
    yield from busy_pings(bridge, run.pings, heard, run.before if is_right else None)


def plain_run(run: Invoked) -> Iterator[Finding]:
    """Judge the answer of an AgentCore-style container: JSON, or a stream of anything."""
    heard = run.heard
    yield (answer := answered(heard, SSE, JSON))
    is_right = answer.outcome is Outcome.PASS
    body = b"".join(message.data for message in heard.messages) or heard.body
    error = _error_of(decoded(body))
    if not is_right or error:
        yield RULES["task"].found(Outcome.FAIL, error or "there was no answer")
    else:
        yield RULES["task"].found(Outcome.PASS, "it was answered")
    text = body.decode("utf-8", "replace").strip()
    is_text = is_right and text not in ("", "{}", "null", '""', "[]")
    yield RULES["text"].found(Outcome.PASS if is_text else Outcome.FAIL, text[:80] or "nothing")
    yield from busy_pings(Bridge.AGENTCORE, run.pings, heard, run.before if is_right else None)


def robustness(trial: Trial, first: Heard) -> Iterator[Finding]:
    """Send what a later version may send, which must end as the first run did, and what nobody should."""
    run_id = str(uuid.uuid4())
    body = invocation(trial.task, run_id) | {"notYetKnown": {"a": [1]}}
    body["messages"][0]["notYetKnown"] = True
    body["forwardedProps"]["notYetKnown"] = 1
    heard = trial.hear("POST", "/invocations", body, headers={**names(run_id), **UNKNOWN_HEADER})
    yield alike("unknown_fields", heard, first)
    yield bad_request(trial, "/invocations", b'{"messages": [')


def answered(heard: Heard, *kinds: str) -> Finding:
    """Judge the status and the content type of the answer to a task, which must be one of `kinds`."""
    is_right = heard.status == 200 and heard.content_type in kinds and (heard.is_stream or not heard.problem)
    seen = f"{heard.summary}; {heard.problem}" if heard.status and heard.problem else heard.summary
    seen = seen if is_right else f"{seen} (it must be {' or '.join(kinds)})"
    return RULES["answer"].found(Outcome.PASS if is_right else Outcome.FAIL, seen)


def alike(rule: str, heard: Heard, first: Heard) -> Finding:
    """Judge an answer that must end as the first one did."""
    is_alike = (heard.status, heard.kind) == (first.status, first.kind) and not heard.problem
    told = f"{heard.status} {heard.kind}" if heard.status == first.status else heard.summary
    seen = f"{told}, as the first time" if is_alike else f"{told}; the first time {first.status} {first.kind}"
    return RULES[rule].found(Outcome.PASS if is_alike else Outcome.FAIL, f"{seen}; {heard.problem}".removesuffix("; "))


def bad_request(trial: Trial, path: str, body: bytes) -> Finding:
    """Send a body that is wrong."""
    heard = trial.ask("POST", path, body, timeout_s=ASK_S)
    is_refused = 400 <= heard.status < 500
    return RULES["bad_request"].found(Outcome.PASS if is_refused else Outcome.FAIL, heard.summary)


def _numbering(heard: Heard) -> Finding:
    ids = [message.id for message in heard.messages]
    for place, found in enumerate(ids, 1):
        if found != str(place):
            return RULES["numbering"].found(Outcome.FAIL, f"event {place} has the id {found!r:.40}")
    return RULES["numbering"].found(Outcome.PASS, f"1 to {len(ids)}")


def _task(run: Invoked) -> Finding:
    rule = RULES["task"]
    ending = run.ending
    if ending.get("type") == EventType.RUN_FINISHED:
        return rule.found(Outcome.PASS, f"RUN_FINISHED after {len(run.heard.messages)} events")
    if ending.get("type") == EventType.RUN_ERROR:
        return rule.found(
            Outcome.FAIL, f"RUN_ERROR {ending.get('code') or 'without a code'}: {ending.get('message')!s:.200}"
        )
    return rule.found(Outcome.FAIL, run.heard.problem or "the stream ended without an end of the run")


def _sequence(run: Invoked) -> Iterator[Finding]:
    checker = event_sequences.SequenceChecker(run.run_id)
    problems = [problem for event in run.events for problem in checker.feed(event)] + checker.end()
    if run.heard.is_left_open:
        problems.append(
            event_sequences.Problem(
                event_sequences.Rule.LAST, f"the answer does not end after {run.ending.get('type')}"
            )
        )
    right = {
        event_sequences.Rule.FIRST: "RUN_STARTED",
        event_sequences.Rule.LAST: str(run.ending.get("type")),
        event_sequences.Rule.RUN_ID: run.run_id,
        event_sequences.Rule.FIELDS: f"{len(run.heard.messages)} events",
        event_sequences.Rule.PAIRS: f"{len(run.heard.messages)} events",
    }
    for rule, seen in right.items():
        wrong = [problem.message for problem in problems if problem.rule is rule]
        more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
        outcome = Outcome.FAIL if wrong else Outcome.PASS
        yield RULES[rule.value].found(outcome, f"{wrong[0]}{more}" if wrong else seen)


def _usage(ending: agui.Event) -> Finding:
    result = ending.get("result") if isinstance(ending.get("result"), dict) else ending.get("rawEvent")
    told = ending.get("usage") or (result.get("usage") if isinstance(result, dict) else None)
    seen = shown(told) if told else "none: the run's tokens will not be known"
    return RULES["usage"].found(Outcome.PASS if told else Outcome.SKIP, seen)


def _error_of(body: object) -> str:
    """Return what a JSON answer says went wrong, "" for nothing."""
    error = body.get("error") if isinstance(body, dict) else None
    return f"{error!s:.200}" if error else ""
