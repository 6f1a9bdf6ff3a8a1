"""Runs, their events and sessions, as the daemon's API tells of them."""

from typing import Any

ID = "5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f"
SESSION_ID = "0b8f2a5e-5c9d-4a0e-9d55-6a3f6f0f3c11"
AGENT_ID = "agent-00000000000000a1"


def run(status: str = "completed", **changes: Any) -> dict[str, Any]:
    """Return a run of two minutes ago that took 4.5 s."""
    return {
        "id": ID,
        "agent_id": AGENT_ID,
        "agent": "web",
        "kind": "run",
        "status": status,
        "input": "Fix the\ntests",
        "attempt": 1,
        "limits": {},
        "usage": {
            "input_tokens": 512, "output_tokens": 80, "cached_tokens": 0, "reasoning_tokens": 0, "cost_usd": 0.0123,
            "cost_source": "table",
        },
        "steps": 3,
        "output": "Fixed.",
        "created_at": "2026-01-01T10:00:00.000Z",
        "started_at": "2026-01-01T10:00:00.000Z",
        "finished_at": "2026-01-01T10:00:04.500Z",
        "on_disconnect": "continue",
        "bridge": "native",
        "last_seq": 9,
        **changes,
    }  # fmt: skip


def events(*payloads: dict[str, Any], first: int = 1) -> list[dict[str, Any]]:
    """Return the events of a run, numbered from `first`, with these AG-UI events in them."""
    return [
        {
            "seq": number,
            "run_id": ID,
            "agent_id": AGENT_ID,
            "ts": "2026-01-01T10:00:00.000Z",
            "synthetic": False,
            "event": payload,
        }
        for number, payload in enumerate(payloads, first)
    ]


STORY = events(
    {"type": "RUN_STARTED", "threadId": ID, "runId": ID},
    {"type": "TOOL_CALL_START", "toolCallId": "c", "toolCallName": "read_file"},
    {"type": "TOOL_CALL_ARGS", "toolCallId": "c", "delta": '{"path": "add.py"}'},
    {"type": "TOOL_CALL_END", "toolCallId": "c"},
    {"type": "TOOL_CALL_RESULT", "toolCallId": "c", "messageId": "r", "content": "a - b"},
    {"type": "TEXT_MESSAGE_START", "messageId": "m", "role": "assistant"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "Fix"},
    {"type": "TEXT_MESSAGE_CONTENT", "messageId": "m", "delta": "ed."},
    {"type": "TEXT_MESSAGE_END", "messageId": "m"},
    {"type": "RUN_FINISHED", "threadId": ID, "runId": ID},
)
"""A whole run: a tool is called, then two pieces of text are one answer."""


def job(status: str = "completed", **changes: Any) -> dict[str, Any]:
    """Return a job whose run is `run(status)`."""
    of_run = run(status)
    shared = ("id", "status", "attempt", "created_at", "started_at", "finished_at", "usage", "steps", "output")
    return {
        **{name: of_run[name] for name in shared},
        "prompt": of_run["input"],
        "image": "my-agent:1.0",
        "template": "",
        "priority": 0,
        "submitter": "root",
        "position": 0,
        "after": None,
        "exit_code": None,
        "error": None,
        "limits": {"memory": 2**31, "cpus": 1.0, "pids": 512, "disk": 2**32, "wall_s": 1800.0},
        "retention_s": 86400.0,
        "expires_at": None,
        "agent": "",
        "webhook": None,
        **changes,
    }


def session(**changes: Any) -> dict[str, Any]:
    return {
        "session_id": SESSION_ID,
        "agent_id": AGENT_ID,
        "name": "Which tests fail?",
        "run_count": 2,
        "created_at": 1767261600,
        "updated_at": 1767261660,
        **changes,
    }


MESSAGES = [
    {"id": "msg-1", "role": "user", "content": "Which tests fail?"},
    {
        "id": "msg-2",
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "c",
                "type": "function",
                "function": {"name": "run_command", "arguments": '{"command": "pytest -q"}'},
            }
        ],
    },
    {"id": "msg-3", "role": "tool", "tool_call_id": "c", "content": "F.\n1 failed"},
    {"id": "msg-4", "role": "assistant", "content": "One:\ntest_add."},
]
