"""`jobs list show logs events cancel rm open webhook`; the others have modules of their own."""

from typing import Any

import click

from agentainerctl import batch, output
from agentainerctl import jobs as records
from agentainerctl.commands.job_results import artifacts, download
from agentainerctl.commands.job_submit import submit
from agentainerctl.commands.job_templates import templates
from agentainerctl.commands.runs import show_events
from agentainerctl.options import Group, output_options
from agentainerctl.output import plain
from agentainerctl.runs import STATES
from agentainerctl.runstream import Record, cancel, job_path
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.errors import Conflict


@click.group(
    "jobs",
    cls=Group,
    examples=(
        'agentainerctl jobs submit --wait "Write a poem about the sea into sea.txt"',
        "agentainerctl jobs list --status running",
        "agentainerctl jobs download 5b1f6a0e",
    ),
)
def jobs() -> None:
    """Submit, watch and collect jobs: work in a container of its own, whose results are a ZIP.

    A job is called by its id or by the beginning of it.
    """


for command in (submit, templates, download, artifacts):
    jobs.add_command(command)


@jobs.command(
    "list",
    examples=(
        "agentainerctl jobs list",
        "agentainerctl jobs list --status failed -o wide",
        "for job in $(agentainerctl jobs list --status queued -q); do agentainerctl jobs cancel $job; done",
    ),
)
@click.option("--status", type=click.Choice(STATES), help="Only in this state.")
@click.option("--submitter", metavar="NAME", help="Only of this submitter: the name of a token, as -o wide shows it.")
@click.option(
    "--webhook",
    type=click.Choice(["waiting", "pending", "delivered", "dead"]),
    help="Only those the telling of whose end is there.",
)
@click.option("-n", "--limit", type=click.IntRange(1, defaults.MAX_PAGE_LIMIT), metavar="N", help="At most so many.")
@click.option("--cursor", metavar="CURSOR", help="Go on where an earlier page ended.")
@output_options()
@click.pass_obj
def list_(session: Session, /, cursor: str | None, **wanted: Any) -> None:  # noqa: ANN401 - of several types
    """List jobs, the newest first. -o wide has whole ids."""
    envelope = session.client.call("GET", job_path(), query={**wanted, "cursor": cursor})
    found: list[Record] = envelope.get("data") or []
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(plain(each["id"]))
    elif not found:
        is_any = not (cursor or any(value for name, value in wanted.items() if name != "limit"))
        print('No jobs yet. Submit one: agentainerctl jobs submit "PROMPT"' if is_any else "No such jobs.")
    else:
        is_wide = session.output == "wide"
        rows = [records.row(each, is_wide) for each in found]
        output.table(records.WIDE_COLUMNS if is_wide else records.COLUMNS, rows, colours=records.COLOURS)
    if envelope.get("next_cursor") and session.has_progress:
        more = "".join(f" --{name} {value}" for name, value in wanted.items() if value)
        output.note(f"There are more: agentainerctl jobs list{more} --cursor {envelope['next_cursor']}")


@jobs.command(
    "show",
    names="jobs",
    examples=("agentainerctl jobs show 5b1f6a0e", "agentainerctl jobs show -o json 5b1f6a0e | jq -r .status"),
)
@click.argument("ref", metavar="JOB")
@output_options("table", "json", "yaml")
@click.pass_obj
def show(session: Session, ref: str) -> None:
    """Show one job whole: what was asked, what became of it, its bounds, the answer."""
    job: Record = records.find(session.client, ref)
    if session.is_machine:
        output.machine(job, session.output)
    elif session.is_quiet:
        print(plain(job["id"]))
    else:
        records.page(job)


@jobs.command(
    "logs",
    names="jobs",
    examples=(
        "agentainerctl jobs logs 5b1f6a0e",
        "agentainerctl jobs logs --follow 5b1f6a0e 2>errors.txt",
        "agentainerctl jobs logs --stream stderr --tail 20 5b1f6a0e",
    ),
)
@click.argument("ref", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--stream", type=click.Choice(["stdout", "stderr"]), help="Only this one.  [default: both]")
@click.option(
    "-n", "--tail", type=click.IntRange(min=0), metavar="LINES", help="Only the last LINES of each.  [default: all]"
)
@click.pass_obj
def logs(session: Session, ref: str, follow: bool, stream: str | None, tail: int | None) -> None:
    """Show what a job's program writes, as it is: its stdout on stdout, its stderr on stderr."""
    from agentainerctl.job_logs import show_logs

    show_logs(session.client, records.resolve(session.client, ref), stream or "", tail=tail, follow=follow)


@jobs.command(
    "events",
    names="jobs",
    examples=(
        "agentainerctl jobs events 5b1f6a0e",
        "agentainerctl jobs events --follow --type TOOL_CALL_START 5b1f6a0e",
        "agentainerctl jobs events -o json 5b1f6a0e | jq .event.type",
    ),
)
@click.argument("ref", metavar="JOB")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends.")
@click.option("--after", type=click.IntRange(min=0), default=0, metavar="N", help="Begin after event number N.")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="Only of this type: CUSTOM, STEP_STARTED, ...; repeatable."
)
@output_options("table", "json")
@click.pass_obj
def events(session: Session, ref: str, follow: bool, after: int, types: tuple[str, ...]) -> None:
    """Show the events of a job, each on a line: its number, when it was, its type, what it says.

    With -o json each line is the event as it was stored.
    """
    show_events(session, records.resolve(session.client, ref), follow=follow, after=after, types=types)


@jobs.command(
    "cancel",
    names="jobs",
    examples=("agentainerctl jobs cancel 5b1f6a0e", "agentainerctl jobs cancel --kill 5b1f6a0e 0c9d4a0e"),
)
@click.argument("refs", metavar="JOB...", nargs=-1, required=True)
@click.option("--kill", is_flag=True, help="Do not wait for its program to end by itself.")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def cancel_(session: Session, refs: tuple[str, ...], kill: bool) -> None:
    """Cancel jobs, whether they wait or run. What one has made until then can be downloaded."""

    def act(ref: str) -> dict[str, Any]:
        job_id = records.resolve(session.client, ref)
        answer = cancel(session.client, job_id, "kill" if kill else "interrupt", noun="job")
        return {**answer["data"], "name": answer["data"]["id"], "was_cancelled": answer.get("cancelled", True)}

    def line(ref: str, result: dict[str, Any]) -> str:
        if not result["was_cancelled"]:
            return f"Job {plain(ref)} had ended before: {plain(result['status'])}"
        return f"Job {plain(ref)} {'cancelled' if result['status'] == 'cancelled' else 'is being cancelled'}"

    batch.each(session, refs, act, line)


@jobs.command(
    "rm",
    names="jobs",
    examples=(
        "agentainerctl jobs rm 5b1f6a0e",
        "for job in $(agentainerctl jobs list --status failed -q); do agentainerctl jobs rm --force $job; done",
    ),
)
@click.argument("refs", metavar="JOB...", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Do not ask.")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def rm(session: Session, refs: tuple[str, ...], force: bool) -> None:
    """Remove jobs that have ended, with their results, logs and events, before they expire by themselves."""
    if not force:
        what = f"job {refs[0]}" if len(refs) == 1 else f"{len(refs)} jobs"
        session.confirm(f"Remove {what} with all results for good?", f"refusing to remove {what}")

    def act(ref: str) -> Record:
        job_id = records.resolve(session.client, ref)
        session.client.call("DELETE", job_path(job_id))
        return {"id": job_id, "name": job_id, "result": "removed"}

    batch.each(session, refs, act, lambda ref, _: f"Job {plain(ref)} removed")


@jobs.command(
    "open",
    names="jobs",
    examples=("agentainerctl jobs open 5b1f6a0e", "xdg-open $(agentainerctl jobs open 5b1f6a0e gui)"),
)
@click.argument("ref", metavar="JOB")
@click.argument("port", metavar="PORT", required=False)
@output_options("table", "json", "yaml")
@click.pass_obj
def open_(session: Session, ref: str, port: str | None) -> None:
    """Print addresses that open the screens and notebooks of a running job in a browser.

    Each is good once, within five minutes, and lets that browser in for twelve hours. Without PORT: of all of them.
    """
    from agentainerctl.commands.ports import find_logins, show_logins

    job = records.find(session.client, ref)
    if not job.get("agent"):
        hint = f"agentainerctl jobs {'show' if job['status'] in records.FINAL else 'logs --follow'} {job['id'][:8]}"
        raise Conflict(
            f"job {job['id']} is {job['status']}: it can be opened while it runs", code="JOB_NOT_RUNNING", hint=hint
        )
    show_logins(session, find_logins(session, str(job["agent"]), port), has_port=bool(port))


@jobs.group(
    "webhook",
    cls=Group,
    examples=("agentainerctl jobs list --webhook dead", "agentainerctl jobs webhook retry 5b1f6a0e"),
)
def webhook() -> None:
    """Tell the end of jobs again; where it stands is in `jobs show`."""


@webhook.command(
    "retry",
    names="jobs",
    examples=(
        "agentainerctl jobs webhook retry 5b1f6a0e",
        "for job in $(agentainerctl jobs list --webhook dead -q); do agentainerctl jobs webhook retry $job; done",
    ),
)
@click.argument("refs", metavar="JOB...", nargs=-1, required=True)
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def retry(session: Session, refs: tuple[str, ...]) -> None:
    """Tell the end of jobs to their webhooks again, at once, whether it was given up or delivered."""

    def act(ref: str) -> Record:
        job_id = records.resolve(session.client, ref)
        found = session.client.call("POST", job_path(job_id, "webhook", "retry"))["data"]
        return {**found, "name": found["id"]}

    batch.each(session, refs, act, lambda ref, _: f"The end of job {plain(ref)} is told again")
