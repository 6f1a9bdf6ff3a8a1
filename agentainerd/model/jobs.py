"""Jobs: what a run needs beside itself to be carried out in a container of its own (decision 0018). Its id is the run's."""

import re
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

import msgspec

from agentainerd import defaults
from agentainerd.errors import InvalidParameter
from agentainerd.model import webhooks
from agentainerd.model.agents import check_image
from agentainerd.model.bridges import Bridge
from agentainerd.model.runs import Limits, Run, RunStatus
from agentainerd.units import parse_duration

KIND = "job"
"""`Run.kind` of one."""
WORKSPACE = "/workspace"
"""Where a job's container finds its folder."""
OUTPUT = "output"
"""What of it is packed."""
OUTPUT_DIR = f"{WORKSPACE}/{OUTPUT}"
NOTES = ".job"
"""What of it is the daemon's: the prompt as a file."""
PROMPT_FILE = f"{WORKSPACE}/{NOTES}/prompt.txt"
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS = re.compile(r"JOB_|AGENT_|AGENTAINER_|OPENAI_")


class JobLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Bounds of one job; None: the setting's (`jobs.*`). `memory`, `disk`: bytes, of its container and of /workspace.

    `cpus`: how many, in parts too. `pids`: processes and threads. `wall_s`: seconds from its start. `network`: whether it reaches
    more than the daemon and its models. `steps`, `cost_usd`: as of a run.
    """

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None
    disk: int | None = None
    wall_s: float | None = None
    network: bool | None = None
    steps: int | None = None
    cost_usd: float | None = None

    def check(self) -> None:
        """Raise InvalidParameter where a bound can't be meant."""
        _within("limits.memory", self.memory, defaults.MIN_MEMORY_BYTES, 2**50)
        _within("limits.cpus", self.cpus, 0.01, 1024)
        _within("limits.pids", self.pids, defaults.MIN_JOB_PIDS, 2**22)
        _within("limits.disk", self.disk, 2**20, 2**50)
        self.of_run.check()

    @property
    def of_run(self) -> Limits:
        """What of them bounds the run."""
        return Limits(steps=self.steps, wall_s=self.wall_s, cost_usd=self.cost_usd)


class JobFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that a job finds in /workspace: `name` is its path there, `content` base64."""

    name: str
    content: bytes

    def check(self) -> None:
        """Raise InvalidParameter where the name is no path within /workspace."""
        path = PurePosixPath(self.name)
        is_within = self.name and not path.is_absolute() and ".." not in path.parts and "\0" not in self.name
        if not is_within or not path.parts or len(self.name.encode()) > defaults.MAX_JOB_FILE_NAME_BYTES:
            raise InvalidParameter(
                "files", f"{self.name[:200]!r} is not a path in {WORKSPACE}", hint="write it as data.csv or in/data.csv"
            )
        if path.parts[0] in (NOTES, OUTPUT) and (path.parts[0] == NOTES or len(path.parts) == 1):
            raise InvalidParameter("files", f"{self.name!r} is the daemon's own")


class Webhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the end of a job is told. `secret`: what it is signed with, as Standard Webhooks have it (`whsec_...`, base64);
    one is made where it is "".
    """

    url: str
    secret: str = ""

    def signed(self) -> "Webhook":
        """Return it with a secret."""
        return self if self.secret else Webhook(self.url, webhooks.new_secret())


class DeliveryState(StrEnum):
    """Where the telling of an end is."""

    WAITING = "waiting"  # the job is not over
    PENDING = "pending"  # told, or to be told again
    DELIVERED = "delivered"
    DEAD = "dead"  # given up


class Delivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the telling of a job's end went. `next_at`: epoch seconds of the next attempt, 0.0 for none."""

    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    next_at: float = 0.0
    last_error: str = ""


class TemplateUse(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named prompt with its parameters."""

    name: str
    parameters: dict[str, str] = {}


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a client asks for; the body of POST /api/v1/jobs.

    `image` "": the setting's. `command`: the image's own where empty. `retention`: how long its results are kept; None: the
    setting's. `priority`: higher ones first. `after`: how long it is held back; both are seconds, or a duration such as "2h".
    `after` may be a time too (RFC 3339). `bridge`: the tier of
    the image; None: as its label says, else `exec`. `model`: as of a run.
    """

    prompt: str = ""
    image: str = ""
    command: tuple[str, ...] = ()
    bridge: Bridge | None = None
    files: tuple[JobFile, ...] = ()
    env: dict[str, str] = {}
    limits: JobLimits = JobLimits()
    retention: float | str | None = None
    webhook: Webhook | None = None
    priority: int = 0
    after: float | str = 0.0
    template: TemplateUse | None = None
    model: str = ""

    def check(self) -> None:
        """Raise InvalidParameter where no container could do anything with it."""
        if not self.prompt.strip():
            raise InvalidParameter("prompt", "is empty", hint="say what is to be done")
        if len(self.prompt) > defaults.MAX_RUN_INPUT_CHARS:
            raise InvalidParameter("prompt", f"is longer than {defaults.MAX_RUN_INPUT_CHARS} characters")
        if "\0" in self.prompt:
            raise InvalidParameter("prompt", "has a NUL in it")
        if self.image:
            check_image(self.image)
        if self.bridge is Bridge.ACP:
            raise InvalidParameter("bridge", "acp needs an agent that stays: deploy one, and run it there")
        for part in self.command:
            if "\0" in part or len(part) > defaults.MAX_JOB_VARIABLE_CHARS:
                raise InvalidParameter("command", "is too long, or has a NUL in it")
        self._check_env()
        self._check_files()
        self.limits.check()
        if self.webhook:
            webhooks.check(self.webhook.url, self.webhook.secret)
        _within("priority", self.priority, -defaults.MAX_JOB_PRIORITY, defaults.MAX_JOB_PRIORITY)
        self.not_before(0.0)
        _within("retention", self.retention_s, 0, defaults.MAX_JOB_RETENTION_S)
        if len(self.model) > defaults.MAX_MODEL_CHARS:
            raise InvalidParameter("model", f"is longer than {defaults.MAX_MODEL_CHARS} characters")

    @property
    def retention_s(self) -> float | None:
        """How long its results are kept, in seconds; None: as the setting says. Raises InvalidParameter."""
        return parse_duration(self.retention, "retention") if isinstance(self.retention, str) else self.retention

    def not_before(self, now: float) -> float:
        """Return when it may start, epoch seconds; 0.0: at once. Raises InvalidParameter."""
        if isinstance(self.after, str) and (moment := _moment(self.after)):
            return moment
        delay_s = parse_duration(self.after, "after") if isinstance(self.after, str) else self.after
        _within("after", delay_s, 0, defaults.MAX_JOB_DELAY_S)
        return now + delay_s if delay_s else 0.0

    def _check_env(self) -> None:
        if len(self.env) > defaults.MAX_ENV_VARS:
            raise InvalidParameter("env", f"has {len(self.env)} variables; at most {defaults.MAX_ENV_VARS}")
        for name, value in self.env.items():
            if not _ENV_NAME.fullmatch(name):
                raise InvalidParameter("env", f"{name[:128]!r} is not a variable's name")
            if _OURS.match(name):
                raise InvalidParameter("env", f"{name} is set by agentainerd")
            if "\0" in value or len(value) > defaults.MAX_JOB_VARIABLE_CHARS:
                raise InvalidParameter("env", f"{name} is too long, or has a NUL in it")

    def _check_files(self) -> None:
        if len(self.files) > defaults.MAX_JOB_FILES:
            raise InvalidParameter("files", f"are {len(self.files)}; at most {defaults.MAX_JOB_FILES}")
        names: set[str] = set()
        for file in self.files:
            file.check()
            name = str(PurePosixPath(file.name))
            if name in names:
                raise InvalidParameter("files", f"{name!r} is there twice")
            names.add(name)


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is kept of a job beside its run. Times are epoch seconds, 0.0 where there is none.

    Attributes:
        submitter: whose turn counts, the name of the token (or "root" and the like on the control socket).
        env: its variables, which no read shows. files: paths of what it was sent, in /workspace.
        limits: complete, with what the settings were when it was accepted. sequence: its place among those of equal priority.
        not_before: when it may start. retention_s: how long it is kept after its end.
        agent_id, agent: what it runs in, "" before and after. workspace: the name of the folder that is mounted, "" before.
        exit_code: of its container's program, where that is what it ended with.
    """

    id: str
    image: str
    submitter: str
    limits: JobLimits
    retention_s: float
    sequence: int
    priority: int = 0
    command: tuple[str, ...] = ()
    bridge: Bridge | None = None
    env: dict[str, str] = {}
    files: tuple[str, ...] = ()
    not_before: float = 0.0
    template: str = ""
    webhook: Webhook | None = None
    delivery: Delivery = Delivery()
    agent_id: str = ""
    agent: str = ""
    workspace: str = ""
    exit_code: int | None = None


class JobView(msgspec.Struct, frozen=True):
    """A job and its run as they are together. `position`: place in the queue from 1, 0 where it does not wait."""

    job: Job
    run: Run
    position: int = 0

    @property
    def delivery(self) -> DeliveryState | None:
        """How far the telling of its end is; None: nobody is told."""
        if self.job.webhook is None:
            return None
        is_due = self.job.delivery.state is DeliveryState.WAITING and self.run.status.is_final
        return DeliveryState.PENDING if is_due else self.job.delivery.state

    @property
    def is_owed(self) -> bool:
        """Whether its end is still to be told, or will be when it comes."""
        return self.delivery in (DeliveryState.WAITING, DeliveryState.PENDING)


class JobFilter(msgspec.Struct, frozen=True):
    """Which jobs are asked for; what is empty asks for all. `webhook`: how far the telling of their end is."""

    status: RunStatus | None = None
    submitter: str = ""
    webhook: DeliveryState | None = None

    def matches(self, view: JobView) -> bool:
        """Whether a job is one of them."""
        is_state = self.status in (None, view.run.status) and self.webhook in (None, view.delivery)
        return is_state and self.submitter in ("", view.job.submitter)


def document_status(status: RunStatus) -> str:
    """Return a state in the words of the containerized-agent document."""
    return _WORDS[status]


_WORDS = {
    RunStatus.QUEUED: "scheduled",
    RunStatus.STARTING: "scheduled",
    RunStatus.RUNNING: "running",
    RunStatus.INPUT_REQUIRED: "running",
    RunStatus.CANCELLING: "running",
    RunStatus.COMPLETED: "complete",
    RunStatus.FAILED: "error",
    RunStatus.CANCELLED: "cancelled",
}


def _moment(text: str) -> float:
    """Return a time of RFC 3339 as epoch seconds; 0.0: it is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return found.timestamp() if found.tzinfo is not None else 0.0


def _within(field: str, value: Any, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:
        raise InvalidParameter(field, f"{value:g} is not between {low:g} and {high:g}")
