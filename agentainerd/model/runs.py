"""Runs: one execution of one input on one agent, and the numbered events that tell of it (decision 0014).

An event's payload is an AG-UI event as the agent sent it; what the daemon adds by itself is marked `synthetic`.
"""

import uuid
from enum import StrEnum

import msgspec

from agentainerd import defaults
from agentainerd.errors import InvalidParameter
from agentainerd.model.agui import TERMINAL
from agentainerd.model.media import parse_media


class RunStatus(StrEnum):
    """Where a run is; the last three are for good."""

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


class RunError(msgspec.Struct, frozen=True):
    """Why a run did not complete: `code` is a RunCode, or what the agent said instead."""

    code: str
    message: str


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One run as it is stored. Times are epoch seconds, 0.0 where there is none yet.

    Attributes:
        session_id: "" where it stands alone. input, media, model: what was asked for.
        attempt: how often it was sent to an agent. bridge, replica: the tier that it was sent by, and the number of the
            agent's container; "" and 0 before.
        steps: calls of the model. output: the text of the answer, of at most MAX_RUN_OUTPUT_CHARS.
        last_seq: number of its last stored event. source_seq: what its agent called that, 0 where it does not number.
        bytes: what it takes when it is over: its events, and itself with its input and attachments.
        key: its idempotency key, "" for none.
    """

    id: str
    agent_id: str
    agent: str
    input: str
    created_at: float
    kind: str = "run"
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


class RunRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client asks for; the body of POST /api/v1/runs. `agent_id` is an id or a name."""

    agent_id: str
    input: str = ""
    session_id: str = ""
    media: list[dict[str, object]] = []
    limits: Limits = Limits()
    on_busy: OnBusy = OnBusy.QUEUE
    on_disconnect: OnDisconnect = OnDisconnect.CONTINUE
    model: str = ""

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
    def is_last(self) -> bool:
        """Whether the run ended with it."""
        return self.type in TERMINAL


def new_run_id() -> str:
    """Return a UUID (RFC 9562, version 4), which the documents' clients ask for."""
    return str(uuid.uuid4())


def is_run_id(text: str) -> bool:
    """Return whether `text` has the form of one."""
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False
