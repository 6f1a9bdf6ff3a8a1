"""Runs: one execution of one input on one agent, and the numbered events that tell of it (decision 0014).

An event's payload is an AG-UI event as the agent sent it; what the daemon adds by itself is marked `synthetic`.
"""

import uuid
from collections.abc import Sequence
from enum import StrEnum

import msgspec

from agentainerd import defaults
from agentainerd.errors import InvalidParameter
from agentainerd.model.agui import TERMINAL, EventType
from agentainerd.model.interrupts import Answer, Interrupt, expires_at, is_interrupted
from agentainerd.model.media import parse_media


class RunStatus(StrEnum):
    """Where a run is; the last three are for good. Between `running` and `input_required` it may go to and fro."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    INPUT_REQUIRED = "input_required"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether it never changes again."""
        return self in _FINAL


_FINAL = frozenset((RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED))


class RunCode(StrEnum):
    """Why a run failed, or that it was cancelled: the `code` of its error."""

    ERROR = "error"  # the agent says so, or what it sent can't be understood
    TIMEOUT = "timeout"
    STEP_LIMIT = "step_limit"
    COST_LIMIT = "cost_limit"
    STUCK = "stuck"
    OOM = "oom"
    CONTAINER_LOST = "container_lost"
    MODEL_ERROR = "model_error"
    DISK_LIMIT = "disk_limit"  # of a job: its folder takes more than it may
    INTERRUPTED = "interrupted"  # by a restart of the daemon or of the container
    AGENT_REMOVED = "agent_removed"
    AGENT_UNAVAILABLE = "agent_unavailable"  # it did not become ready
    CANCELLED = "cancelled"


class OnBusy(StrEnum):
    """What a run does whose session has another one under way."""

    REJECT = "reject"
    QUEUE = "queue"
    INTERRUPT = "interrupt"  # it cancels those before it, and waits for their end


class OnDisconnect(StrEnum):
    """What becomes of a run when the client goes away that started it and reads its events."""

    CONTINUE = "continue"
    CANCEL = "cancel"


class CancelMode(StrEnum):
    """INTERRUPT asks the agent, and insists after a grace. KILL restarts its container at once where it does not end."""

    INTERRUPT = "interrupt"
    KILL = "kill"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds of one run; None: no bound but the daemon's. `steps`: calls of the model. `wall_s`: seconds from its start."""

    steps: int | None = None
    wall_s: float | None = None
    cost_usd: float | None = None

    def check(self) -> None:
        """Raise InvalidParameter where a bound can't be meant."""
        if self.steps is not None and not 1 <= self.steps <= defaults.MAX_RUN_STEPS:
            raise InvalidParameter("limits.steps", f"{self.steps} is not between 1 and {defaults.MAX_RUN_STEPS}")
        if self.wall_s is not None and not 0 < self.wall_s <= defaults.MAX_RUN_WALL_S:
            raise InvalidParameter("limits.wall_s", f"{self.wall_s:g} is not between 0 and {defaults.MAX_RUN_WALL_S:g}")
        if self.cost_usd is not None and not 0 < self.cost_usd < float("inf"):
            raise InvalidParameter("limits.cost_usd", f"{self.cost_usd:g} is not a price")


class Usage(msgspec.Struct, frozen=True):
    """Tokens and cost of a run. `cost_usd` None: not known; `cost_source`: "provider", "table", "gateway" where the daemon
    counted its calls to models, or "" for none.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_usd: float | None = None
    cost_source: str = ""

    def plus(self, more: "Usage") -> "Usage":
        """Return both together; the cost of all is known where it is of each that used anything."""
        if self == Usage() or more == Usage():
            return more if self == Usage() else self
        is_known = self.cost_usd is not None and more.cost_usd is not None
        return Usage(
            self.input_tokens + more.input_tokens,
            self.output_tokens + more.output_tokens,
            self.cached_tokens + more.cached_tokens,
            self.reasoning_tokens + more.reasoning_tokens,
            (self.cost_usd or 0.0) + (more.cost_usd or 0.0) if is_known else None,
            more.cost_source if is_known else "",
        )


class RunError(msgspec.Struct, frozen=True):
    """Why a run did not complete: `code` is a RunCode, or what the agent said instead."""

    code: str
    message: str


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run as it is stored. Times are epoch seconds, 0.0 where there is none yet.

    Attributes:
        starts_at: it is not begun before. session_id: "" where it stands alone. input, media, model: what was asked for.
        attempt: how often it was sent to an agent. bridge, replica: the tier that it was sent by, and the number of the
            agent's container; "" and 0 before.
        steps: calls of the model. output: the text of the answer, of at most MAX_RUN_OUTPUT_CHARS.
        last_seq: number of its last stored event. source_seq: what its agent called that, 0 where it does not number.
        bytes: what it takes when it is over: its events, and itself with its input and attachments.
        key: its idempotency key, "" for none.
        interrupts: what it waits for an answer to, or waited for last; answers: what was answered to that. answered: how often it
            was. is_answered: its agent was not sent the answers yet. asked_seq: the number of the event that asked.
        paused_at: since when it waits, 0.0 where it does not; answer_by: until when; waited_s: how long it did before.
    """

    id: str
    agent_id: str
    agent: str
    input: str
    created_at: float
    kind: str = "run"
    starts_at: float = 0.0
    session_id: str = ""
    status: RunStatus = RunStatus.QUEUED
    media: list[dict[str, object]] = []
    model: str = ""
    limits: Limits = Limits()
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE
    attempt: int = 0
    bridge: str = ""
    replica: int = 0
    usage: Usage = Usage()
    steps: int = 0
    error: RunError | None = None
    output: str = ""
    started_at: float = 0.0
    finished_at: float = 0.0
    last_seq: int = 0
    source_seq: int = 0
    bytes: int = 0
    key: str = ""
    interrupts: list[Interrupt] = []
    answers: list[Answer] = []
    answered: int = 0
    is_answered: bool = False
    asked_seq: int = 0
    paused_at: float = 0.0
    answer_by: float = 0.0
    waited_s: float = 0.0

    @property
    def is_given(self) -> bool:
        """Whether its agent was sent it, and, of one that waited for answers, was sent those too."""
        return bool(self.started_at) and not self.is_answered and self.status is not RunStatus.INPUT_REQUIRED

    @property
    def is_settled(self) -> bool:
        """Whether nothing more comes of it by itself: it is over, or waits for an answer."""
        return self.status.is_final or self.status is RunStatus.INPUT_REQUIRED

    @property
    def part_id(self) -> str:
        """What its agent calls what it does now: after each answer it is something new there (AG-UI: a run of its own)."""
        return f"{self.id}.{self.answered}" if self.answered else self.id

    def paused(self, interrupts: Sequence[Interrupt], now: float, wait_s: float) -> "Run":
        """Return it as it waits for answers to its last event, for at most `wait_s`: less where its limit of time or an interrupt
        says so.
        """
        ends_at = self.started_at + self.limits.wall_s if self.limits.wall_s else float("inf")
        return msgspec.structs.replace(
            self, status=RunStatus.INPUT_REQUIRED, interrupts=list(interrupts), answers=[], paused_at=now,
            asked_seq=self.last_seq,
            answer_by=min(now + wait_s, ends_at, expires_at(interrupts)),
        )  # fmt: skip

    def going_on(self, answers: Sequence[Answer], now: float) -> "Run":
        """Return it as it goes on with answers, which its agent is to be sent."""
        return msgspec.structs.replace(
            self, status=RunStatus.RUNNING, answers=list(answers), answered=self.answered + 1, is_answered=True,
            paused_at=0.0, answer_by=0.0, waited_s=self.waited_s + max(0.0, now - self.paused_at),
        )  # fmt: skip

    def given(self, bridge: str, replica: int, now: float) -> "Run":
        """Return it as it is being sent to an agent."""
        return msgspec.structs.replace(
            self, status=RunStatus.RUNNING, started_at=self.started_at or now, attempt=self.attempt + 1, bridge=bridge,
            replica=replica, is_answered=False,
        )  # fmt: skip

    def not_given(self) -> "Run":
        """Return it as it was before it was sent: nobody has read it."""
        if self.answered:
            return msgspec.structs.replace(self, is_answered=True)
        return msgspec.structs.replace(self, started_at=0.0)

    def unanswered(self) -> list[str]:
        """Return the ids of the interrupts that its agent has no answer to."""
        is_open = bool(self.interrupts) and (self.is_answered or self.paused_at > 0)
        return [one["id"] for one in self.interrupts] if is_open else []


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client asks for; the body of POST /api/v1/runs. `agent_id` is an id or a name. `after_seconds`: it is not begun
    before that.
    """

    agent_id: str
    input: str = ""
    session_id: str = ""
    media: list[dict[str, object]] = []
    limits: Limits = Limits()
    on_busy: OnBusy = OnBusy.QUEUE
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE
    model: str = ""
    after_seconds: float = 0.0

    def check(self) -> None:
        """Raise InvalidParameter where no agent could do anything with it."""
        if not self.agent_id:
            raise InvalidParameter("agent_id", "is required")
        if not self.input.strip() and not self.media:
            raise InvalidParameter("input", "is empty", hint="say what the agent is to do")
        if len(self.input) > defaults.MAX_RUN_INPUT_CHARS:
            raise InvalidParameter("input", f"is longer than {defaults.MAX_RUN_INPUT_CHARS} characters")
        if len(self.model) > defaults.MAX_MODEL_CHARS:
            raise InvalidParameter("model", f"is longer than {defaults.MAX_MODEL_CHARS} characters")
        if not 0 <= self.after_seconds <= defaults.MAX_RUN_DELAY_S:
            raise InvalidParameter(
                "after_seconds", f"{self.after_seconds:g} is not between 0 and {defaults.MAX_RUN_DELAY_S:g}"
            )
        if self.after_seconds and self.on_busy is not OnBusy.QUEUE:
            raise InvalidParameter(
                "on_busy", f"is {self.on_busy.value} for a run that begins later, which can only queue"
            )
        parse_media(self.media)
        self.limits.check()


class RunEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a run. `seq` from 1 without gaps; `payload` the AG-UI event; `type` its type; `at` epoch seconds."""

    seq: int
    at: float
    type: str
    payload: msgspec.Raw
    synthetic: bool = False

    @property
    def is_pause(self) -> bool:
        """Whether the agent asks for something with it, so that more comes when it was answered."""
        return self.type == EventType.RUN_FINISHED and is_interrupted(msgspec.json.decode(self.payload))

    @property
    def is_last(self) -> bool:
        """Whether the run ended with it."""
        return self.type in TERMINAL and not self.is_pause


def new_run_id() -> str:
    """Return a UUID (RFC 9562, version 4), which the documents' clients ask for."""
    return str(uuid.uuid4())


def is_run_id(text: str) -> bool:
    """Return whether `text` has the form of one."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
