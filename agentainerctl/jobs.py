"""How a job looks to people: its line in a list, its page, how it ended and the exit code that tells of it."""

from typing import Any

from agentainerctl import exits, output
from agentainerctl.agents import round_size
from agentainerctl.client import Client
from agentainerctl.output import Column, age, shorten
from agentainerctl.runs import COLOURS as COLOURS
from agentainerctl.runs import FINAL as FINAL
from agentainerctl.runs import WAITING, cost, took
from agentainerctl.runstream import job_path
from agentainerctl.session import Session
from agentainerd.errors import AgentainerError, Failed, NotFound
from agentainerd.units import format_duration

Record = dict[str, Any]

COLUMNS = (
    Column("ID"),
    Column("IMAGE", can_shrink=True),
    Column("STATUS"),
    Column("CREATED"),
    Column("TOOK"),
    Column("PROMPT", can_shrink=True),
)
WIDE_COLUMNS = (
    *COLUMNS,
    Column("PRIORITY"),
    Column("ATTEMPT"),
    Column("SUBMITTER"),
    Column("COST"),
    Column("EXPIRES"),
    Column("ERROR", can_shrink=True),
)
ARTIFACT_COLUMNS = (Column("NAME", can_shrink=True), Column("KIND"), Column("SIZE"), Column("MODIFIED"))
SHORT_ID = 8  # characters, which the name of its agent has too
_FULL_ID = 36
_MAX_PROMPT = 60  # characters in a list, also where a pipe cuts nothing
_MAX_EXIT = 255
_CODES = {"completed": exits.OK, "cancelled": exits.RUN_CANCELLED, WAITING: exits.RUN_WAITING}
_HINTS = {
    "timeout": "give it more time: --timeout",
    "step_limit": "give it more steps: --max-steps",
    "cost_limit": "allow it more: --max-cost",
    "oom": "give it more memory: --memory",
    "disk_limit": "give it more room: --disk",
    "interrupted": "what it did before may have had effects, so it was not done again: agentainerctl jobs logs {id}",
    "agent_unavailable": "agentainerctl jobs logs {id}; agentainerctl doctor",
}


def resolve(client: Client, ref: str) -> str:
    """Return the id of the job that `ref`, an id or the beginning of one, stands for.

    Raises:
        AgentainerError: there is none, or there are several.
    """
    return ref if len(ref) == _FULL_ID and "/" not in ref else str(find(client, ref)["id"])


def find(client: Client, ref: str) -> Record:
    """Return the job that `ref`, an id or the beginning of one, stands for. Raises AgentainerError, as `resolve`."""
    if ref in ("", ".", "..") or "/" in ref:
        raise NotFound("job", ref, message=f"no job '{ref}'", hint="agentainerctl jobs list")
    return dict(client.get(job_path(ref)))


def list_artifacts(client: Client, job_id: str) -> list[Record]:
    """Return what a job has left, page by page. Raises AgentainerError, as `Client.call`."""
    found: list[Record] = []
    cursor: object = None
    while True:
        envelope = client.call("GET", job_path(job_id, "artifacts"), query={"cursor": cursor})
        found += envelope["data"]["artifacts"]
        cursor = envelope.get("next_cursor")
        if not cursor:
            return found


def row(job: Record, is_wide: bool) -> list[str]:
    """Return the cells of one job in the order of COLUMNS, or with `is_wide` of WIDE_COLUMNS, where its id is whole."""
    identity = str(job.get("id", ""))
    cells = [
        identity if is_wide else identity[:SHORT_ID],
        job.get("image") or "",
        status(job),
        age(job.get("created_at")),
        took(job),
        shorten(" ".join(str(job.get("prompt", "")).split()), _MAX_PROMPT),
    ]
    if is_wide:
        error = job.get("error") or {}
        cells += [job.get("priority", 0), job.get("attempt") or 1, job.get("submitter") or ""]
        cells += [cost(job.get("usage") or {}), age(job.get("expires_at")), error.get("message", "")]
    return [str(cell) for cell in cells]


def status(job: Record) -> str:
    """Return its status, and beside it its place in the queue, or from when it may begin, or what its program ended with."""
    found = str(job.get("status", ""))
    if found == "queued" and (wait := age(job.get("after"))).startswith("in "):
        return f"queued ({wait})"
    if found == "queued" and job.get("position"):
        return f"queued (#{job['position']})"
    return f"{found} ({job['exit_code']})" if found == "failed" and job.get("exit_code") else found


def page(job: Record) -> None:
    """Print one job whole, for people: what was asked, what became of it, the answer."""
    usage, error, webhook = (job.get(name) or {} for name in ("usage", "error", "webhook"))
    tokens = [usage.get(name) or 0 for name in ("input_tokens", "output_tokens")]
    output.facts(
        (
            ("ID", job.get("id")),
            ("Status", status(job)),
            ("Error", f"{error.get('message', '')} ({error.get('code', '')})" if error else None),
            ("Image", job.get("image")),
            ("Template", job.get("template")),
            ("Agent", job.get("agent")),
            ("Submitter", job.get("submitter")),
            ("Priority", job.get("priority") or None),
            ("Attempt", job.get("attempt") if (job.get("attempt") or 1) > 1 else None),
            ("Created", age(job.get("created_at"))),
            ("Not before", age(job.get("after")) if job.get("status") == "queued" else None),
            ("Took", took(job)),
            ("Exit code", job.get("exit_code")),
            ("Steps", job.get("steps") or None),
            ("Tokens", f"{tokens[0]} in, {tokens[1]} out" if any(tokens) else None),
            ("Cost", cost(usage)),
            ("Limits", _limits(job.get("limits") or {})),
            ("Kept", _kept(job)),
            ("Webhook", _webhook(webhook)),
        )
    )
    for title, text in (("Prompt", job.get("prompt")), ("Answer", job.get("output"))):
        if text:
            output.say(f"{title}:")
            for line in output.plain_text(str(text)).splitlines():
                output.say(f"  {line}".rstrip())


def failure(job: Record) -> AgentainerError | None:
    """Return the error that a job is which has ended or waits for an answer, None where it completed."""
    identity = str(job.get("id", ""))
    error = job.get("error") or {}
    reason, message = str(error.get("code") or ""), str(error.get("message") or "")
    details = {"job_id": identity, "reason": reason}
    if job.get("status") == "completed":
        return None
    if job.get("status") == WAITING:
        hint = f"agentainerctl runs answer {identity} TEXT"
        return AgentainerError(f"job {identity} waits for an answer", code="JOB_WAITING", hint=hint, details=details)
    if job.get("status") == "cancelled":
        return AgentainerError(f"job {identity} was cancelled", code="JOB_CANCELLED", details=details)
    shown = f" ({reason})" if reason not in ("", "error") else ""
    hint = _HINTS.get(reason, "agentainerctl jobs logs {id}").format(id=identity[:SHORT_ID])
    why = f": {message}" if message else ""
    return Failed(f"job {identity} failed{shown}{why}", code="JOB_FAILED", hint=hint, details=details)


def conclude(session: Session, job: Record, *, is_ours: bool = False) -> None:
    """Say how a job ended, where it did not complete, and have the program end with what the job ended with.

    `is_ours`: a person who waited for it had it cancelled.
    """
    error = failure(job)
    if not error:
        return
    session.exit_code = exits.INTERRUPTED if is_ours else exit_code(job)
    output.report(error, output=session.output, code=session.exit_code)


def exit_code(job: Record) -> int:
    """Return 0 for a job that completed; for one that failed what its program ended with, else 1. One that was cancelled or waits
    for an answer has its own.
    """
    if job.get("status") in _CODES:
        return _CODES[str(job["status"])]
    code = job.get("exit_code")
    return code if isinstance(code, int) and 0 < code <= _MAX_EXIT else exits.FAILED


def _limits(limits: Record) -> str:
    seconds, memory, disk, cpus = (limits.get(name) for name in ("wall_s", "memory", "disk", "cpus"))
    parts = [
        format_duration(float(seconds)) if seconds else "",
        f"{round_size(int(memory))} of memory" if memory else "",
        f"{float(cpus):g} CPU{'' if float(cpus) == 1 else 's'}" if cpus else "",
        f"{limits['pids']} processes" if limits.get("pids") else "",
        f"{round_size(int(disk))} of disk" if disk else "",
        f"{limits['steps']} steps" if limits.get("steps") else "",
        cost({"cost_usd": limits.get("cost_usd")}),
        "no network" if limits.get("network") is False else "",
    ]
    return ", ".join(filter(None, parts))


def _kept(job: Record) -> str | None:
    if job.get("expires_at"):
        at = age(job["expires_at"])
        return f"expires {at}" if at.startswith("in ") else f"expired {at}"
    seconds = job.get("retention_s")
    return f"{format_duration(float(seconds))} after its end" if seconds else None


def _webhook(webhook: Record) -> str | None:
    if not webhook:
        return None
    tries = webhook.get("attempts") or 0
    shown = f" after {tries} attempt{'' if tries == 1 else 's'}" if tries else ""
    why = f": {webhook['last_error']}" if webhook.get("last_error") else ""
    return f"{webhook.get('state', '')}{shown}{why} ({webhook.get('url', '')})"
