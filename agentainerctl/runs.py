"""How a run looks to people: its line in a list, its page, and how it ended."""

import json
from typing import Any

from agentainerctl import output
from agentainerctl.output import Column, age, plain, shorten
from agentainerd.errors import AgentainerError, Failed, InvalidParameter
from agentainerd.units import format_duration

Record = dict[str, Any]

COLUMNS = (
    Column("ID"),
    Column("AGENT"),
    Column("STATUS"),
    Column("CREATED"),
    Column("INPUT", can_shrink=True),
)
WIDE_COLUMNS = (
    *COLUMNS,
    Column("STEPS"),
    Column("TOKENS"),
    Column("COST"),
    Column("TOOK"),
    Column("SESSION"),
    Column("ERROR", can_shrink=True),
)
COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "bold",
    "input_required": "yellow",
    "cancelling": "yellow",
}
STATES = ("queued", "starting", "running", "input_required", "cancelling", "completed", "failed", "cancelled")
WAITING = "input_required"
FINAL = ("completed", "failed", "cancelled")
UNDER_WAY = tuple(state for state in STATES if state not in FINAL)
_MAX_ASKED = 400
_MAX_INPUT = 60  # characters in a list, also where a pipe cuts nothing
_HINTS = {
    "timeout": "give it more time: --timeout",
    "step_limit": "give it more steps: --max-steps",
    "cost_limit": "allow it more: --max-cost; agentainerctl runs show {id}",
    "interrupted": "what it did before may have had effects, so it was not done again: agentainerctl runs attach {id}",
    "oom": "give it more memory: --memory; agentainerctl inspect {agent}",
    "agent_unavailable": "agentainerctl inspect {agent}",
    "agent_removed": "agentainerctl list",
    "stuck": "agentainerctl runs attach --full {id}",
}


def row(run: Record, is_wide: bool) -> list[str]:
    """Return the cells of one run in the order of COLUMNS, or with `is_wide` of WIDE_COLUMNS."""
    usage = run.get("usage") or {}
    cells = [
        run.get("id", ""),
        run.get("agent") or run.get("agent_id", ""),
        run.get("status", ""),
        age(run.get("created_at")),
        shorten(" ".join(str(run.get("input", "")).split()), _MAX_INPUT),
    ]
    if is_wide:
        error = run.get("error") or {}
        cells += [run.get("steps") or "", _tokens(usage), cost(usage), took(run)]
        cells += [run.get("session_id") or "", error.get("message", "")]
    return [str(cell) for cell in cells]


def page(run: Record) -> None:
    """Print one run whole, for people: what was asked, what became of it, the answer."""
    usage, limits, error = (run.get(name) or {} for name in ("usage", "limits", "error"))
    output.facts(
        (
            ("ID", run.get("id")),
            ("Agent", f"{run.get('agent', '')} ({run.get('agent_id', '')})"),
            ("Session", run.get("session_id")),
            ("Status", run.get("status")),
            ("Error", f"{error.get('message', '')} ({error.get('code', '')})" if error else None),
            ("Created", age(run.get("created_at"))),
            ("Begins at", run.get("starts_at")),
            ("Answer by", run.get("answer_by")),
            ("Took", took(run)),
            ("Steps", run.get("steps") or None),
            ("Tokens", _tokens(usage)),
            ("Cost", cost(usage)),
            ("Model", run.get("model")),
            ("Limits", _limits(limits)),
            ("Attachments", len(run.get("media") or ()) or None),
            ("Bridge", run.get("bridge")),
            ("Events", run.get("last_seq") or None),
        )
    )
    asked = "\n".join(questions(run)) if run.get("status") == WAITING else ""
    for title, text in (("Input", run.get("input")), ("Answer", run.get("output")), ("Waits for", asked)):
        if text:
            output.say(f"{title}:")
            for line in output.plain_text(str(text)).splitlines():
                output.say(f"  {line}".rstrip())


def failure(run: Record) -> AgentainerError | None:
    """Return the error that a run is which has ended or waits for an answer, None where it completed."""
    status = run.get("status")
    if status == "completed":
        return None
    identity, agent = str(run.get("id", "")), str(run.get("agent") or run.get("agent_id", ""))
    if status == WAITING:
        asked = "; ".join(" ".join(text.split()) for text in questions(run))
        return AgentainerError(
            f"run {identity} on {agent} waits for an answer: {shorten(asked, _MAX_ASKED)}",
            code="RUN_WAITING",
            hint=f"agentainerctl runs answer {identity} TEXT",
            details={"run_id": identity, "interrupts": run.get("interrupts") or []},
        )
    error = run.get("error") or {}
    reason, message = str(error.get("code") or ""), str(error.get("message") or "")
    details = {"run_id": identity, "reason": reason}
    if status == "cancelled":
        return AgentainerError(f"run {identity} was cancelled", code="RUN_CANCELLED", details=details)
    why = f": {message}" if message else ""
    hint = _HINTS.get(reason, "agentainerctl logs --tail 20 {agent}").format(id=identity, agent=agent)
    shown = f" ({reason})" if reason not in ("", "error") else ""
    return Failed(f"run {identity} on {agent} failed{shown}{why}", code="RUN_FAILED", hint=hint, details=details)


def questions(run: Record) -> list[str]:
    """Return what an agent asks for, a text for each question; what is in them may have control characters."""
    found = [one for one in run.get("interrupts") or () if isinstance(one, dict)]
    return [str(one.get("message") or one.get("reason") or "an answer") for one in found]


def answers(run: Record, text: str | None, payload: str | None) -> Record:
    """Return what answers all questions of a run, for the API: a text, a payload in JSON, or without both that nobody will.

    Raises:
        InvalidParameter: the payload is not JSON.
    """
    if text is not None:
        return {"text": text}
    entry: Record = {"status": "cancelled"}
    if payload is not None:
        try:
            entry = {"payload": json.loads(payload)}
        except ValueError as error:
            raise InvalidParameter("--payload", f"is not JSON: {error}") from error
    return {"resume": [{"interruptId": one["id"], **entry} for one in run.get("interrupts") or ()]}


def expected(interrupt: Record) -> str:
    """Return in a few words what is taken as an answer, "" for any text."""
    schema = interrupt.get("responseSchema")
    schema = schema if isinstance(schema, dict) else {}
    properties = schema.get("properties")
    kind = schema.get("type")
    if isinstance(schema.get("enum"), list):
        return f"one of {', '.join(str(value) for value in schema['enum'])}"
    if kind == "boolean" or (isinstance(properties, dict) and "approved" in properties):
        return "yes or no, and why" if isinstance(properties, dict) and "reason" in properties else "yes or no"
    if kind in ("integer", "number"):
        return "a number"
    if kind in ("object", "array"):
        return "JSON" if not isinstance(properties, dict) or len(properties) != 1 else ""
    return "yes or no" if not schema and interrupt.get("reason") in ("tool_call", "confirmation") else ""


def summary(run: Record) -> str:
    """Return in one line what a run took: "completed in 12 s: 3 steps, 512 tokens in, 80 out, $0.0123"."""
    usage = run.get("usage") or {}
    steps = run.get("steps") or 0
    parts = [
        f"{steps} step{'' if steps == 1 else 's'}" if steps else "",
        f"{usage.get('input_tokens', 0)} tokens in, {usage.get('output_tokens', 0)} out" if _tokens(usage) else "",
        cost(usage),
    ]
    costs = ", ".join(filter(None, parts))
    seconds = took(run)
    return f"{plain(run.get('status', ''))}{f' in {seconds}' if seconds else ''}{f': {costs}' if costs else ''}"


def cost(usage: Record) -> str:
    """Return the cost in dollars, "" where it is not known."""
    dollars = usage.get("cost_usd")
    if not isinstance(dollars, int | float):
        return ""
    return f"${dollars:.2f}" if dollars >= 1 or not dollars else f"${dollars:.4f}"


def took(run: Record) -> str:
    """Return how long a run has been at work, or was; "" where it has not begun."""
    began, ended = output.epoch(run.get("started_at")), output.epoch(run.get("finished_at"))
    if not began or not ended:
        return ""
    seconds = max(0.0, ended - began)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else format_duration(seconds)


def _tokens(usage: Record) -> str:
    tokens = [usage.get(name) or 0 for name in ("input_tokens", "output_tokens")]
    return f"{tokens[0]} in, {tokens[1]} out" if any(tokens) else ""


def _limits(limits: Record) -> str:
    steps, seconds = limits.get("steps"), limits.get("wall_s")
    parts = [
        f"{steps} steps" if steps else "",
        format_duration(float(seconds)) if seconds else "",
        cost({"cost_usd": limits.get("cost_usd")}),
    ]
    return ", ".join(filter(None, parts))
