"""Agents as the autonomous-agent document drives them: one conversation each, one task at a time, and a container that stays.

That conversation is a session of its own, made when it is needed. A task is a run in it.
"""

import uuid
from contextlib import suppress

from agentainerd import defaults
from agentainerd.errors import Conflict, NotFound
from agentainerd.model.agents import Agent, AgentState
from agentainerd.model.runs import OnBusy, Run, RunRequest, RunStatus
from agentainerd.model.sessions import Message
from agentainerd.services.agents import AgentService
from agentainerd.services.audit import Actor
from agentainerd.services.runs import RunService
from agentainerd.services.sessions import SessionService

TASK_VARIABLE = "AGENT_TASK"
SESSION_NAME = "autonomous"
_NAMESPACE = uuid.UUID("6d0d2f0a-8f0c-4a55-9d47-6c0f3e5d7a10")


class AutonomousService:
    """Every method blocks its greenlet only. All raise NotFound where there is no such agent, and what `AgentService.resume`
    and `RunService.create` raise.
    """

    def __init__(self, agents: AgentService, sessions: SessionService, runs: RunService) -> None:
        self._agents = agents
        self._sessions = sessions
        self._runs = runs

    def start(self, ref: str, task: str, actor: Actor) -> Run | None:
        """Bring an agent up and give it its task: this one, else that of its variable AGENT_TASK; None: it has none.

        Raises:
            Conflict: a task is under way, or there is none and it runs already.
        """
        agent = self._agents.get(ref)
        self._require_idle(agent, "already")
        task = task.strip() or agent.spec.env_vars.get(TASK_VARIABLE, "").strip()
        if not task and agent.state is AgentState.RUNNING:
            raise Conflict("Agent is already running")
        self._bring_up(agent, actor)
        return self._give(agent, task, actor) if task else None

    def check_idle(self, ref: str) -> None:
        """Raise Conflict where a task is under way."""
        self._require_idle(self._agents.get(ref), "currently")

    def resume(self, ref: str, task: str, actor: Actor) -> Run:
        """Bring an agent up where it is down, and give it another task in the same conversation. Raises Conflict: it has one."""
        agent = self._agents.get(ref)
        self._require_idle(agent, "currently")
        self._bring_up(agent, actor)
        return self._give(agent, task, actor)

    def chat(self, ref: str, message: str, actor: Actor) -> tuple[Run, int]:
        """Say something to an agent: the answer where it waits for one, else as `resume`. Return the run, and the number of the
        event after which what comes of it begins.

        Raises:
            Conflict: it has a task. InvalidParameter: it is not what is asked for.
        """
        agent = self._agents.get(ref)
        waiting = next((run for run in self._of(agent) if run.status is RunStatus.INPUT_REQUIRED), None)
        if waiting is None:
            return self.resume(ref, message, actor), 0
        answered = self._runs.answer(waiting.id, message, actor)
        return answered, answered.asked_seq

    def remove(self, ref: str, actor: Actor) -> None:
        """Remove an agent with its container, and its conversation."""
        agent = self._agents.remove(ref, actor)
        with suppress(NotFound):
            self._sessions.delete(session_of(agent), actor)

    def history(self, ref: str) -> list[Message]:
        """Return what was said to an agent and by it, as far as it is kept."""
        try:
            return self._sessions.last_messages(session_of(self._agents.get(ref)), defaults.MAX_SESSION_MESSAGES)
        except NotFound as error:
            if error.noun != "session":
                raise
            return []

    def _give(self, agent: Agent, task: str, actor: Actor) -> Run:
        wanted = RunRequest(
            agent_id=agent.id, input=task, session_id=self._session(agent, actor), on_busy=OnBusy.REJECT
        )
        return self._runs.create(wanted, actor)

    def _session(self, agent: Agent, actor: Actor) -> str:
        session_id = session_of(agent)
        try:
            return self._sessions.get(session_id).id
        except NotFound:
            return self._sessions.create(actor, session_id=session_id, agent_id=agent.id, name=SESSION_NAME).id

    def _require_idle(self, agent: Agent, how: str) -> None:
        if self._of(agent):
            raise Conflict(f"Agent is {how} running")

    def _of(self, agent: Agent) -> list[Run]:
        """Return the runs of an agent's conversation that are not over."""
        session_id = session_of(agent)
        return [run for run in self._runs.active(agent.id) if run.session_id == session_id]

    def _bring_up(self, agent: Agent, actor: Actor) -> None:
        if agent.state is not AgentState.RUNNING:
            self._agents.resume(agent.id, actor)


def session_of(agent: Agent) -> str:
    """Return the id of an agent's conversation, which is always the same."""
    return str(uuid.uuid5(_NAMESPACE, agent.id))
