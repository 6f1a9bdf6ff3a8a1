"""What a container must do that speaks a tier, rule by rule, and what a look at it finds. docs/bridge.md lists them. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from agentainerd.model.bridges import Bridge


class Outcome(StrEnum):
    """How a rule was met. SKIP: it could not be seen, or what is only recommended is not there."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule, what was seen, and what the contract says: `check` is the rule's name."""

    check: str
    outcome: Outcome
    seen: str
    contract: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One sentence of the contract, and the tiers that it is for."""

    name: str
    contract: str
    tiers: frozenset[Bridge]

    def found(self, outcome: Outcome, seen: str) -> Finding:
        """Return the finding that tells of it."""
        return Finding(self.name, outcome, seen, self.contract)


_PINGED = frozenset({Bridge.NATIVE, Bridge.AGUI, Bridge.AGENTCORE})
_EVENTS = frozenset({Bridge.NATIVE, Bridge.AGUI})
_NATIVE = frozenset({Bridge.NATIVE})
_OPENAI = frozenset({Bridge.OPENAI})
_BRIDGE = frozenset({Bridge.BRIDGE})
_COMMANDS = frozenset({Bridge.EXEC, Bridge.ACP})
_HTTP = frozenset(Bridge) - _COMMANDS
_ALL = frozenset(Bridge)

_RULES = (
    Rule("ping", "GET /ping is answered with 200 and a JSON object within 1 s", _PINGED),
    Rule("ping_status", 'the status in /ping is "Healthy" or "HealthyBusy"', _PINGED),
    Rule("last_update", "time_of_last_update in /ping is a Unix time in seconds, and pings do not change it", _PINGED),
    Rule("identity", '/ping has "bridge": "native" and a version', _NATIVE),
    Rule("models", "GET /v1/models lists a model: by that an image without a label is recognised", _OPENAI),
    Rule("agent_status", "GET /agent/status is answered with 200 and a JSON object", _NATIVE),
    Rule("initialized", 'GET /agent/status has "initialized": true or false', _BRIDGE),
    Rule("answer", "a task is answered with 200 and the content type of the tier", _HTTP),
    Rule("command", "the command of a run is in the image, and can be run", _COMMANDS),
    Rule("task", "a small task is done, and does not end with an error", _ALL),
    Rule("first", "RUN_STARTED is the first event, and comes once", _EVENTS),
    Rule("last", "exactly one RUN_FINISHED or RUN_ERROR comes, as the last event, and the answer ends with it", _EVENTS),
    Rule("run_id", "RUN_STARTED and RUN_FINISHED have the runId that was sent", _EVENTS),
    Rule("fields", "each event has the fields that AG-UI asks of its type", _EVENTS),
    Rule(
        "pairs", "messages, steps and tool calls have their START, END and (tools) RESULT, in this order, before RUN_FINISHED",
        _EVENTS,
    ),
    Rule("numbering", "each event has an id: 1, 2, 3, ... within its run", _NATIVE),
    Rule("text", "the answer has text", frozenset({Bridge.AGENTCORE, Bridge.OPENAI, Bridge.BRIDGE}) | _COMMANDS),
    Rule("stop_reason", "session/prompt is answered with a stopReason", frozenset({Bridge.ACP})),
    Rule("terminates", "a command that is cancelled ends within 5 s: at session/cancel (acp), or SIGTERM", _COMMANDS),
    Rule("streamed", "with stream: true the answer is text/event-stream (recommended)", _OPENAI),
    Rule("end", "a stream ends with data: [DONE], or has a finish_reason before its end", _OPENAI),
    Rule("frames", "each frame is a JSON object with a type", _BRIDGE),
    Rule("done", "exactly one done or error frame comes, as the last one", _BRIDGE),
    Rule("usage", "tokens are told at the end of a run (recommended)", frozenset({*_EVENTS, Bridge.OPENAI})),
    Rule("ping_busy", "GET /ping is answered within 1 s also during a run", _PINGED),
    Rule("busy", 'the status in /ping is "HealthyBusy" during a run', _NATIVE),
    Rule("progress", "time_of_last_update is newer after a run than it was before (below native: recommended)", _PINGED),
    Rule("unknown_fields", "fields and headers that it does not know are tolerated", _HTTP),
    Rule("bad_request", "a body that it can't understand is answered with 400 to 499", _HTTP),
    Rule("history", "a conversation of several messages is taken", _OPENAI),
    Rule("disconnect", "a run goes on when its reader has gone", _NATIVE),
    Rule("rejoin", "GET /runs/{id}/events?after=N streams what comes after event N, until the run ends", _NATIVE),
    Rule("same_run", "a runId that is known is not run again: its events are streamed from the first", _NATIVE),
    Rule("unknown_run", "a run that is not known is 404, for its events and for its cancellation", _NATIVE),
    Rule(
        "cancel", "POST /runs/{id}/cancel is answered with 202, and the run ends within 10 s with RUN_ERROR, code cancelled",
        _NATIVE,
    ),
)  # fmt: skip
RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}


def rules_of(bridge: Bridge) -> list[str]:
    """Return the names of a tier's rules, in the order in which they are looked at."""
    return [rule.name for rule in _RULES if bridge in rule.tiers]
