"""What a container's /ping must be: quick, truthful about being busy, and changing only when something happens."""

import time
from collections.abc import Iterator, Sequence

from agentainerd.model.bridge_rules import RULES, Finding, Outcome
from agentainerd.model.bridges import Bridge
from agentainerd.services.bridge_trials import Heard, Ping, Trial

STATUSES = ("Healthy", "HealthyBusy")
FUTURE_S = 86400.0


def idle_pings(trial: Trial, bridge: Bridge) -> Iterator[Finding]:
    """Look at /ping while nothing goes on; takes `pause_s`."""
    first = trial.ping()
    yield _answered(first)
    if first.problem:
        for name in ("ping_status", "last_update", *(("identity",) if bridge is Bridge.NATIVE else ())):
            yield RULES[name].found(Outcome.SKIP, "/ping was not answered")
        return
    status = first.body.get("status")
    yield RULES["ping_status"].found(Outcome.PASS if status in STATUSES else Outcome.FAIL, f"{status!s:.60}")
    yield _kept(trial, first)
    if bridge is Bridge.NATIVE:
        named, version = first.body.get("bridge"), first.body.get("version")
        is_right = named == "native" and isinstance(version, str) and bool(version)
        yield RULES["identity"].found(
            Outcome.PASS if is_right else Outcome.FAIL, f"{named!s:.40}, version {version!s:.40}"
        )


def busy_pings(bridge: Bridge, pings: Sequence[Ping], run: Heard, before: float | None) -> Iterator[Finding]:
    """Judge the pings that were sent during a run. `before`: time_of_last_update when it began, None where unknown."""
    slow = [ping for ping in pings if ping.problem]
    took_ms = max((ping.took_s for ping in pings), default=0.0) * 1000
    if not pings:
        yield RULES["ping_busy"].found(Outcome.SKIP, "the run was over too soon")
    elif slow:
        yield RULES["ping_busy"].found(Outcome.FAIL, f"{len(slow)} of {len(pings)} pings: {slow[0].problem}")
    else:
        yield RULES["ping_busy"].found(Outcome.PASS, f"{took_ms:.0f} ms, the slowest of {len(pings)}")
    if bridge is Bridge.NATIVE:
        yield _busy(pings, run)
    yield _progress(bridge, pings, before)


def last_update(ping: Ping) -> float | None:
    """Return time_of_last_update, None where it is no number."""
    value = ping.body.get("time_of_last_update")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _answered(ping: Ping) -> Finding:
    seen = ping.problem or f"{ping.took_s * 1000:.0f} ms"
    return RULES["ping"].found(Outcome.FAIL if ping.problem else Outcome.PASS, seen)


def _kept(trial: Trial, first: Ping) -> Finding:
    rule = RULES["last_update"]
    told = last_update(first)
    if told is None:
        return rule.found(Outcome.FAIL, f"{first.body.get('time_of_last_update')!r:.60}")
    if not 0 < told < time.time() + FUTURE_S:
        return rule.found(Outcome.FAIL, f"{told:.0f} is not a time in seconds since 1970")
    time.sleep(trial.pause_s)
    second = trial.ping()
    if second.problem:
        return rule.found(Outcome.FAIL, f"a second ping: {second.problem}")
    if first.is_busy or second.is_busy:
        return rule.found(Outcome.SKIP, "the agent is busy with something else")
    again = last_update(second)
    if again != told:
        return rule.found(Outcome.FAIL, f"it was {told:.10g}, and {trial.pause_s:g} s and one ping later {again!r}")
    return rule.found(Outcome.PASS, f"{told:.10g}, twice")


def _busy(pings: Sequence[Ping], run: Heard) -> Finding:
    """Only pings between the run's first and last event say whether it is told that something goes on; and of these not the idle
    ones at the end, behind a busy one: the run may have been over before we had read so.
    """
    rule = RULES["busy"]
    within = [ping for ping in pings if run.at and run.at[0] < ping.at and ping.at + ping.took_s < run.at[-1]]
    if any(ping.is_busy for ping in within):
        while not within[-1].is_busy:
            within.pop()
    if not within:
        return rule.found(Outcome.SKIP, "the run was over too soon")
    idle = [ping for ping in within if ping.body.get("status") == "Healthy"]
    if idle:
        return rule.found(Outcome.FAIL, f"{idle[0].body.get('status')!r:.60} in {len(idle)} of {len(within)} pings")
    return rule.found(Outcome.PASS, f"in {len(within)} pings")


def _progress(bridge: Bridge, pings: Sequence[Ping], before: float | None) -> Finding:
    """Containers made for AgentCore tell of a change of status only: that is their contract, not ours."""
    rule = RULES["progress"]
    after = last_update(pings[-1]) if pings else None
    if before is None or after is None:
        return rule.found(Outcome.SKIP, "it was not told")
    seen = f"{before:.10g} before, {after:.10g} after"
    unmet = Outcome.FAIL if bridge is Bridge.NATIVE else Outcome.SKIP
    return rule.found(Outcome.PASS if after > before else unmet, seen)
