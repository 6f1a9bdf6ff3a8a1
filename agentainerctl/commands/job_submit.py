"""`jobs submit`."""

import os
from typing import Any

import click

from agentainerctl import jobs as records
from agentainerctl import output
from agentainerctl.options import CPU, DURATION, SIZE, Command, output_options
from agentainerctl.runstream import Record, call_again, job_path
from agentainerctl.session import Session
from agentainerd import defaults
from agentainerd.errors import AgentainerError, InvalidParameter
from agentainerd.units import format_size

_BRIDGES = ("exec", "openai", "agentcore", "agui", "native", "bridge")


@click.command(
    "submit",
    cls=Command,
    examples=(
        'agentainerctl jobs submit --wait "Write a poem about the sea into sea.txt"',
        'agentainerctl jobs submit --file data.csv --wait --download results/ "Draw a chart of data.csv"',
        "agentainerctl jobs submit --image my-agent:1.0 --memory 512Mi --timeout 10m --no-network @prompt.txt",
        "agentainerctl jobs submit --template review --param repository=https://github.com/you/project",
    ),
)
@click.argument("prompt", metavar="[PROMPT]", default="")
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help="A file or folder that it finds in /workspace; FILE=NAME: under that name. Repeatable.",
)
@click.option("--image", metavar="IMAGE", help="What it runs in.  [default: the daemon's jobs.image]")
@click.option(
    "--bridge", type=click.Choice(_BRIDGES), help="What the image speaks.  [default: as its label says, else exec]"
)
@click.option("--template", metavar="TEMPLATE", help="A named prompt of the daemon's.")
@click.option(
    "--param", "parameters", multiple=True, metavar="NAME=VALUE", help="A parameter of the template; repeatable."
)
@click.option(
    "-e", "--env", multiple=True, metavar="NAME=VALUE", help="A variable; NAME alone takes it from the environment."
)
@click.option("--model", metavar="MODEL", help="Another model than the default.")
@click.option("-m", "--memory", type=SIZE, metavar="SIZE", help="Memory limit: 512M, 2Gi.")
@click.option("--cpus", "--cpu", type=CPU, metavar="CORES", help="How many, in parts too: 0.5.")
@click.option("--pids", type=click.IntRange(1), metavar="N", help="Processes and threads.")
@click.option("--disk", type=SIZE, metavar="SIZE", help="What it may have in /workspace.")
@click.option("--timeout", type=DURATION, metavar="TIME", help="How long it may run.")
@click.option(
    "--max-steps", type=click.IntRange(1, defaults.MAX_RUN_STEPS), metavar="N", help="How often it may ask its model."
)
@click.option("--max-cost", type=click.FloatRange(0, min_open=True), metavar="DOLLARS", help="What its model may cost.")
@click.option("--no-network", is_flag=True, help="Let it reach nothing but its model.")
@click.option(
    "--priority",
    type=click.IntRange(-defaults.MAX_JOB_PRIORITY, defaults.MAX_JOB_PRIORITY),
    metavar="N",
    help="Higher ones first, from -10 to 10.  [default: 0]",
)
@click.option("--after", metavar="TIME", help="Not before: 2h (from now), or 2026-11-20T18:00:00.")
@click.option("--retention", type=DURATION, metavar="TIME", help="How long to keep it after its end.")
@click.option("--webhook", metavar="URL", help="Where its end is told.")
@click.option("--webhook-secret-file", default="", metavar="FILE", help="File with what that is signed with.")
@click.option(
    "--idempotency-key", metavar="KEY", help="The same key makes the same job, however often it is submitted."
)
@click.option("-w", "--wait", is_flag=True, help="Show what it says and does until it ends, and end as it does.")
@click.option("--full", "is_full", is_flag=True, help="Show thinking too, and results of tools and edits whole.")
@click.option("--download", metavar="PATH", help="Wait, then save the ZIP there: a file or a folder.")
@click.option("-f", "--force", is_flag=True, help="Write over the file of --download, if it is there.")
@output_options("table", "json", "yaml")
@click.pass_obj
def submit(session: Session, /, prompt: str, **given: Any) -> None:  # noqa: ANN401 - of several types
    """Have something done in a container of its own, and print the job's id.

    PROMPT - is standard input, @FILE a file. With --wait the answer goes to stdout and what the job does for it to stderr, and
    the exit code is the job's: 0 where it completed, else its program's own, or 1; 10 where somebody cancelled it. Ctrl-C asks
    whether to cancel it or to leave it, and ends with 130.
    """
    from agentainerctl import job_downloads

    waits = given["wait"] or given["download"] is not None
    body = _body(prompt, given)
    if given["download"] is not None:
        if given["download"] == "-":
            raise InvalidParameter(
                "download", "standard output has the answer", hint="agentainerctl jobs download -o - JOB"
            )
        job_downloads.place(given["download"], "", is_forced=given["force"])  # rather told now than after the job
    job = _start(session, body, given["idempotency_key"])
    _tell_secret(session, body, job)
    if not waits:
        _show(session, job)
        return
    file = (
        "" if given["download"] is None else job_downloads.place(given["download"], job["id"], is_forced=given["force"])
    )
    ended, is_ours = _watch(session, job, is_full=given["is_full"])
    records.conclude(session, ended, is_ours=is_ours)
    if file:
        _save(session, ended, file, is_forced=given["force"])


def _body(prompt: str, given: dict[str, Any]) -> Record:
    from agentainerctl.commands.images import assignments
    from agentainerctl.job_requests import limits, moment, read_files, read_job_prompt

    template = {"name": given["template"], "parameters": assignments(given["parameters"], "param")}
    if given["parameters"] and not given["template"]:
        raise InvalidParameter("param", "there is no template for it", hint="--template TEMPLATE")
    body = {
        "prompt": read_job_prompt(prompt),
        "image": given["image"],
        "command": list(given["command"]),
        "bridge": given["bridge"],
        "files": read_files(given["files"]),
        "env": assignments(given["env"], "env"),
        "limits": limits(given),
        "retention": given["retention"],
        "webhook": _webhook(given["webhook"], given["webhook_secret_file"]),
        "priority": given["priority"],
        "after": moment(given["after"]),
        "template": template if given["template"] else None,
        "model": given["model"],
    }
    if not body["prompt"] and not given["template"]:
        raise click.UsageError("Missing argument 'PROMPT'", click.get_current_context())
    return {name: value for name, value in body.items() if value or (value == 0 and name == "retention")}


def _webhook(url: str | None, secret_file: str) -> Record | None:
    if not url:
        if secret_file:
            raise InvalidParameter("webhook-secret-file", "there is no webhook to sign", hint="--webhook URL")
        return None
    if not secret_file:
        return {"url": url}
    with open(secret_file, encoding="utf-8", errors="replace") as file:
        secret = file.readline().strip()
    if not secret:
        raise InvalidParameter("webhook-secret-file", f"the first line of {secret_file} is empty")
    return {"url": url, "secret": secret}


def _start(session: Session, body: Record, key: str | None) -> Record:
    """Submit a job, one however often the connection breaks meanwhile."""
    return dict(call_again(session.client, "POST", job_path(), body=body, key=key or os.urandom(16).hex())["data"])


def _tell_secret(session: Session, body: Record, job: Record) -> None:
    """Tell what was made to sign the webhook with: nothing tells it later."""
    secret = (job.get("webhook") or {}).get("secret")
    if secret and "secret" not in body.get("webhook", {}) and not session.is_machine:
        output.note(f"Secret of its webhook, told once: {output.plain(secret)}")


def _show(session: Session, job: Record) -> None:
    if session.is_machine:
        output.machine(job, session.output)
        return
    print(output.plain(job["id"]))
    if session.has_progress:
        ref = output.plain(job["id"])[: records.SHORT_ID]
        output.note(f"Watch it: agentainerctl jobs logs --follow {ref}   then: agentainerctl jobs download {ref}")


def _watch(session: Session, job: Record, *, is_full: bool) -> tuple[Record, bool]:
    """Show a job until it ends; return it as it then is, and whether the person who waits had it cancelled."""
    from agentainerctl.watching import View, asks_to_cancel, watch

    is_cancelled = False

    def wants_cancel() -> bool:
        nonlocal is_cancelled
        is_cancelled = session.is_interactive and asks_to_cancel("job")
        return is_cancelled

    view = View(session, is_full=is_full, noun="job")
    view.begin(job)
    ended = watch(session, job, view, wants_cancel=wants_cancel)
    view.end(ended)
    return ended, is_cancelled and ended.get("status") == "cancelled"


def _save(session: Session, job: Record, file: str, *, is_forced: bool) -> None:
    """Download the results; of a job that did not complete it is only told where that fails."""
    from agentainerctl import job_downloads

    try:
        size = job_downloads.download(session, str(job["id"]), file, is_forced=is_forced)
    except AgentainerError as error:
        if job.get("status") == "completed":
            raise
        output.note(f"its results can't be had: {output.plain(error.message)}")
        return
    if session.has_progress:
        output.note(f"--- results: {output.plain(file)} ({format_size(size)}) ---")
