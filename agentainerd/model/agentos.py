"""The bodies of the AgentOS document: sessions, messages, runs and summaries as its clients read them. No I/O.

Times of sessions and runs are whole Unix seconds, those of summaries RFC 3339. What is empty is left out, as it is there;
lists that a document promises are there though they are empty.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from agentainerd.model.runs import Run, RunStatus
from agentainerd.model.sessions import Message, Session, Summary

Json = dict[str, object]
STATUSES = {RunStatus.COMPLETED: "completed", RunStatus.CANCELLED: "cancelled", RunStatus.FAILED: "error"}
"""A run that has not ended is `running`."""


def session_json(session: Session, runs: Sequence[Run]) -> Json:
    """Return a session. `runs`: those that are kept of it, oldest first."""
    links = {name: getattr(session, name) for name in ("agent_id", "user_id", "team_id", "workflow_id", "name")}
    return {
        "session_id": session.id,
        **_filled(links | {"metadata": session.metadata, "state": session.state}),
        "run_count": session.run_count,
        "created_at": int(session.created_at),
        "updated_at": int(session.updated_at),
        **_filled(
            {
                "summary": session.summary and summary_json(session.summary),
                "runs": [run_meta_json(run) for run in runs],
            }
        ),
    }


def history_json(session: Session, messages: Sequence[Message], runs: Sequence[Run], *, stream_events: bool) -> Json:
    """Return what was said in a session; `stream_events` is what the client asked for, and only repeated."""
    return {
        "session_id": session.id,
        "messages": [message_json(message) for message in messages],
        "stream_events": stream_events,
        "runs": [run_meta_json(run) for run in runs],
        **_filled({"summary": session.summary and summary_json(session.summary)}),
    }


def run_meta_json(run: Run) -> Json:
    """Return a run as it is listed in a session."""
    reason = run.error.message if run.error and run.status is RunStatus.CANCELLED else ""
    times = {"started_at": int(run.started_at), "completed_at": int(run.finished_at)}
    return {"run_id": run.id, "status": run_status(run), **_filled(times | {"cancellation_reason": reason})}


def run_json(run: Run) -> Json:
    """Return the answer to a run that has completed."""
    usage = run.usage
    metadata = {
        "agent_id": run.agent_id,
        "loops": run.steps,
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
        },
        "cache_hit": False,
        **_filled({"media": run.media}),
    }
    session = _filled({"session_id": run.session_id})
    return {"run_id": run.id, "status": run_status(run), "content": run.output, **session, "metadata": metadata}


def message_json(message: Message) -> Json:
    """Return a message, whose tool calls are in OpenAI's form."""
    return {
        "id": message.id,
        "role": message.role,
        "content": message.content,
        **_filled(
            {
                "name": message.name,
                "tool_call_id": message.tool_call_id,
                "tool_calls": [msgspec.to_builtins(call) for call in message.tool_calls],
                "reasoning_content": message.reasoning,
            }
        ),
    }


def origin_json(message: Message) -> Json:
    """Return what that document does not have of a message: the run that it came with, and when."""
    made_at = datetime.fromtimestamp(message.at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return _filled({"run_id": message.run_id, "created_at": made_at if message.at else ""})


def summary_json(summary: Summary) -> Json:
    """Return a summary."""
    made_at = datetime.fromtimestamp(int(summary.created_at), UTC).isoformat().replace("+00:00", "Z")
    return {
        "content": summary.content,
        "run_count": summary.run_count,
        "total_tokens": summary.total_tokens,
        "created_at": made_at,
    }


def run_status(run: Run) -> str:
    """Return the word of that document for how a run is."""
    return STATUSES.get(run.status, "running")


def _filled(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value}
