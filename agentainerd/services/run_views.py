"""Runs and their events as the API tells them."""

from typing import Any

import msgspec

from agentainerd.model.runs import Run, RunEvent, RunStatus
from agentainerd.services.views import rfc3339

Json = dict[str, Any]
LISTED_CHARS = 1000  # of each text of a run in a list: an attachment may have megabytes


def run_json(run: Run) -> Json:
    """Return a run; fields without a value are not in it, but for `limits` and `usage`, which are whole. `interrupts`: what it
    waits for an answer to, and `answer_by`: until when.
    """
    optional = {
        "session_id": run.session_id,
        "media": run.media,
        "model": run.model,
        "bridge": run.bridge,
        "error": run.error and msgspec.structs.asdict(run.error),
        "starts_at": run.starts_at and rfc3339(run.starts_at),
        "started_at": run.started_at and rfc3339(run.started_at),
        "finished_at": run.finished_at and rfc3339(run.finished_at),
    }
    if run.status is RunStatus.INPUT_REQUIRED:
        optional |= {"interrupts": run.interrupts, "answer_by": rfc3339(run.answer_by)}
    return {
        "id": run.id,
        "agent_id": run.agent_id,
        "agent": run.agent,
        "kind": run.kind,
        "status": run.status.value,
        "input": run.input,
        "output": run.output,
        "attempt": run.attempt,
        "steps": run.steps,
        "limits": {name: getattr(run.limits, name) for name in ("steps", "wall_s", "cost_usd")},
        "usage": msgspec.structs.asdict(run.usage),
        "on_disconnect": run.on_disconnect.value,
        "last_seq": run.last_seq,
        "created_at": rfc3339(run.created_at),
        **{name: value for name, value in optional.items() if value},
    }


def listed_run_json(run: Run) -> Json:
    """Return a run as one of many: as `run_json`, but of a long input, output, attachment or question the beginning."""
    media = [{name: _beginning(value) for name, value in attached.items()} for attached in run.media]
    texts = {"input": _beginning(run.input), "output": _beginning(run.output)}
    shown = run_json(run) | texts | ({"media": media} if media else {})
    if "interrupts" in shown:
        shown["interrupts"] = [{name: _beginning(value) for name, value in one.items()} for one in run.interrupts]
    return shown


def run_event_json(run: Run, event: RunEvent) -> Json:
    """Return an event in its envelope; `event` is what the agent sent."""
    return {
        "seq": event.seq,
        "run_id": run.id,
        "session_id": run.session_id,
        "agent_id": run.agent_id,
        "ts": rfc3339(event.at),
        "synthetic": event.synthetic,
        "event": event.payload,
    }


def _beginning(value: object) -> object:
    return f"{value[:LISTED_CHARS]}..." if isinstance(value, str) and len(value) > LISTED_CHARS else value
