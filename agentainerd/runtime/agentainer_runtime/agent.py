"""The agent of this container: what a run is made of, put together from the settings, and how it ends."""

import asyncio
import logging
from typing import TYPE_CHECKING

from agentainer_runtime import script
from agentainer_runtime.activity import Activity
from agentainer_runtime.agui import Event
from agentainer_runtime.approvals import Decision, InvalidAnswer, Pending, decide
from agentainer_runtime.conversations import Conversation, Conversations
from agentainer_runtime.endpoints import SCRIPT_PREFIX, NoEndpoint
from agentainer_runtime.jobs import JobFailed, job, stand_in
from agentainer_runtime.loop import LimitReached, Loop, Paused, Terms
from agentainer_runtime.prompts import system_prompt
from agentainer_runtime.provider import ModelFailed, Provider
from agentainer_runtime.repository import Repository, RepositoryFailed
from agentainer_runtime.runs import JobOrder, Run, RunInput, Runs
from agentainer_runtime.settings import Settings
from agentainer_runtime.tool import STATE_FOLDER
from agentainer_runtime.toolbox import Toolbox, find_tools
from agentainer_runtime.transcript import Transcript

if TYPE_CHECKING:
    import httpx2

log = logging.getLogger(__name__)


class Agent:
    """Everything that outlives a run.

    Attributes:
        settings, runs, conversations, toolbox, activity: its parts. repository: what it works on, None for none.
    """

    def __init__(self, settings: Settings) -> None:
        """Make the folders of its state, and find its tools.

        Raises:
            OSError: the workspace can't be written.
        """
        state = settings.workspace / STATE_FOLDER
        folders = [state / name for name in ("runs", "conversations", "outputs", "jobs")]
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.settings = settings
        self.activity = Activity()
        self._client: httpx2.AsyncClient | None = None
        self.conversations = Conversations(folders[1])
        self.runs = Runs(folders[0], self.work, keep=settings.keep_runs, on_forgotten=self.conversations.forget)
        self.repository = Repository.of(settings)
        self.toolbox = Toolbox(
            find_tools(),
            workspace=settings.workspace,
            outputs=folders[2],
            environment=settings.tool_environment(),
            timeout_s=settings.tool_timeout_s,
        )

    def recover(self) -> int:
        """End what another process left at work; return how many runs. To be called before the first is started."""
        job.recover(self.settings.workspace)
        return self.runs.recover()

    async def close(self) -> None:
        """End the runs, then give back what is held."""
        await self.runs.shutdown()
        if self._client is not None:
            await self._client.aclose()

    async def work(self, run: Run) -> None:
        """Do one run, and write its events from the first to the last."""
        given = run.given
        model = given.model or self.settings.model or (stand_in.NONE if given.job else "")

        def emit(event: Event) -> None:
            run.log.append(event)
            self.activity.note(event)
            if run.log.is_failing and run.ending is None:
                run.ending = ("error", "the run's log can't be written: no space left in the workspace")
                raise OSError(run.ending[1])

        transcript = Transcript(emit, given.thread_id, given.run_id, model)
        transcript.started()
        try:
            async with run.turn:
                if self.repository:  # before the model: a script of its turns may be in it
                    async with asyncio.timeout(given.wall_s):
                        await self.repository.ready()
                await self._work(run, model, transcript)
        except Paused as paused:
            transcript.paused(paused.pending)
        except (LimitReached, ModelFailed) as error:
            transcript.failed(str(error), error.code)
        except TimeoutError:
            transcript.failed(f"the run took longer than {given.wall_s or 0:g} s", "timeout")
        except (RepositoryFailed, JobFailed, InvalidAnswer, OSError) as error:
            transcript.failed(str(error), "error")
        except asyncio.CancelledError:
            code, message = run.ending or ("interrupted", "the run was ended")
            transcript.failed(message, code)
            raise
        else:
            transcript.finished()

    async def _work(self, run: Run, model: str, transcript: Transcript) -> None:
        given = run.given
        conversation = self.conversations.open(given.thread_id, is_fresh=given.is_fresh)
        answered = _answered(conversation, given)
        if answered is None:
            conversation.take(given.messages)
        if given.job:
            await self._do_job(run, given.job, conversation, transcript)
            return
        terms = Terms(
            model=model,
            system=system_prompt(self.settings),
            steps=given.steps or self.settings.max_steps,
            context_tokens=self.settings.context_tokens,
            is_compressing=self.settings.is_compressing and not model.startswith(SCRIPT_PREFIX),
            cost_usd=given.cost_usd,
            fields=self._fields(given),
        )
        provider = self._provider(model, given.key)
        loop = Loop(terms, conversation=conversation, transcript=transcript, provider=provider, toolbox=self.toolbox)
        try:
            async with asyncio.timeout(given.wall_s):
                if answered is not None:
                    await loop.resume(*answered)
                    if answered[1].is_said:
                        conversation.take(given.messages)
                await loop.go()
        finally:
            loop.keep_partial()
            conversation.repair()
            await provider.close()

    async def _do_job(self, run: Run, order: JobOrder, conversation: Conversation, transcript: Transcript) -> None:
        def provider() -> Provider:
            if transcript.model in stand_in.NAMES:
                return stand_in.StandIn(is_chosen=transcript.model == stand_in.ECHO)
            return self._provider(transcript.model, run.given.key)

        await job.carry_out(
            run,
            order,
            self.settings,
            conversation=conversation,
            transcript=transcript,
            provider=provider,
            fields=self._fields(run.given),
        )

    def _fields(self, given: RunInput) -> dict[str, str]:
        """Return what the daemon's gateway counts by; a provider has no business to see it."""
        gateway, asked = self.settings.gateway_url, self.settings.environment.get("OPENAI_BASE_URL", "")
        if not gateway or not asked.startswith(gateway):
            return {}
        ids = {"X-Agentainer-Run-Id": given.work_id or given.run_id, "X-Agentainer-Session-Id": given.thread_id}
        return {name: value for name, value in ids.items() if value.isascii() and value.isprintable()}

    def _provider(self, model: str, key: str) -> Provider:
        if not model:
            raise ModelFailed("no model is set: AGENT_MODEL, or `model` with the run")
        if model.startswith(SCRIPT_PREFIX):
            return script.load(model, self.settings.scripts)
        from agentainer_runtime.chat_client import ChatClient

        try:
            endpoint = self.settings.endpoint(model, key)
        except NoEndpoint as error:
            raise ModelFailed(str(error)) from error
        return ChatClient(
            self._http(), endpoint, silence_s=self.settings.model_timeout_s, pause_s=self.settings.retry_pause_s
        )

    def _http(self) -> "httpx2.AsyncClient":
        """Return the HTTP client of all runs; it is made when the first model is asked, which scripts never do."""
        if self._client is None:
            import httpx2

            self._client = httpx2.AsyncClient(limits=httpx2.Limits(max_connections=100, max_keepalive_connections=10))
        return self._client


def _answered(conversation: Conversation, given: RunInput) -> tuple[Pending, Decision] | None:
    """Return the call that waits in a thread, and what was decided about it; None where none waits.

    Raises:
        InvalidAnswer: what was answered was not asked, or is no answer.
    """
    pending = conversation.pending
    strange = [
        each["interruptId"]
        for each in given.resume
        if each["status"] == "resolved" and (pending is None or each["interruptId"] != pending.id)
    ]
    if strange:
        raise InvalidAnswer(f"nothing waits for the answer to {strange[0]:.80}")
    return (pending, decide(pending, given.resume, given.messages)) if pending else None
