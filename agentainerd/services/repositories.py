"""The repository that an agent of the runtime image clones when it starts: waited for, and why it is not there."""

import time

import msgspec

from agentainerd.errors import DeadlineExceeded, Failed
from agentainerd.model.agents import Agent
from agentainerd.proxy.target import Target
from agentainerd.services.agent_calls import AgentCall, CallBroken
from agentainerd.services.runtime import REPOSITORY_VARIABLE

PAUSE_S = 0.1
ANSWER_S = 5.0
MAX_STATUS_BYTES = 16 * 1024 * 1024


class _Repository(msgspec.Struct):
    state: str = "ready"
    url: str = ""
    error: str = ""


class _Status(msgspec.Struct):
    """What of GET /agent/status is read."""

    repository: _Repository | None = None


def wait_for_repository(agent: Agent, target: Target, end: float) -> None:
    """Block until a container that is ready has its repository, at most until `end` (monotonic); others are not asked.

    Raises:
        Failed: it could not be cloned, code REPOSITORY_FAILED; the message has the reason. DeadlineExceeded: not yet.
    """
    if not agent.spec.runtime or not agent.spec.env_vars.get(REPOSITORY_VARIABLE):
        return
    while True:
        found = _ask(target)
        if found.state == "ready":
            return
        if found.state == "failed":
            raise Failed(
                f"agent '{agent.name}' runs without its repository: {found.error}",
                code="REPOSITORY_FAILED",
                hint=f"the next run tries it again; full log: agentainerctl logs {agent.name}",
            )
        if time.monotonic() > end:
            raise DeadlineExceeded(
                f"'{agent.name}' is still cloning {found.url}",
                code="AGENT_NOT_READY",
                hint=f"agentainerctl logs {agent.name}",
            )
        time.sleep(PAUSE_S)


def _ask(target: Target) -> _Repository:
    """Return what a container says; one that says nothing of it has none to wait for."""
    call = AgentCall(target)
    try:
        call.send("GET", "/agent/status", None, {}, timeout_s=ANSWER_S)
        status = msgspec.json.decode(call.body(MAX_STATUS_BYTES, ANSWER_S), type=_Status)
    except (CallBroken, msgspec.DecodeError):
        return _Repository()
    finally:
        call.close()
    return status.repository or _Repository()
