"""`jobs download artifacts`."""

import sys

import click

from agentainerctl import jobs as records
from agentainerctl import output
from agentainerctl.options import Command, output_options
from agentainerctl.output import plain
from agentainerctl.runstream import job_path
from agentainerctl.session import Session
from agentainerd.units import format_size


@click.command(
    "download",
    cls=Command,
    names="jobs",
    examples=(
        "agentainerctl jobs download 5b1f6a0e",
        "agentainerctl jobs download -o results/ 5b1f6a0e",
        "agentainerctl jobs download -o - 5b1f6a0e | bsdtar -xf -",
    ),
)
@click.argument("ref", metavar="JOB")
@click.option(
    "-o",
    "--output",
    "path",
    default="",
    metavar="FILE",
    help="Where to: a file, a folder, or -.  [default: job-ID.zip]",
)
@click.option("-f", "--force", is_flag=True, help="Write over the file, if it is there.")
@click.option("-q", "--quiet", is_flag=True, help="Print the name of the file only.")
@click.option("--json", "is_json", is_flag=True, help="Print the name and the size as JSON.")
@click.pass_obj
def download(session: Session, ref: str, path: str, force: bool, quiet: bool, is_json: bool) -> None:
    """Download what a job made, as a ZIP, when it has ended.

    What broke off, by Ctrl-C too, is gone on with by the same command.
    """
    from agentainerctl import job_downloads

    session.is_quiet, session.output = quiet, "json" if is_json else "table"
    job_id = records.resolve(session.client, ref)
    file = path if path == "-" else job_downloads.place(path, job_id, is_forced=force)
    size = job_downloads.download(session, job_id, file, is_forced=force)
    if file == "-":
        return
    if is_json:
        output.machine({"id": job_id, "file": file, "size": size}, "json")
    else:
        print(plain(file if quiet else f"{file} ({format_size(size)})"))


@click.command(
    "artifacts",
    cls=Command,
    names="jobs",
    examples=(
        "agentainerctl jobs artifacts 5b1f6a0e",
        "agentainerctl jobs artifacts 5b1f6a0e result.json | jq .status",
    ),
)
@click.argument("ref", metavar="JOB")
@click.argument("name", metavar="[FILE]", required=False)
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def artifacts(session: Session, ref: str, name: str | None) -> None:
    """List what a job has made by now, or print one file of it, as it is."""
    job_id = records.resolve(session.client, ref)
    if name:
        path = job_path(job_id, "artifacts", *name.split("/"))
        session.client.save(path, lambda piece, _: sys.stdout.buffer.write(piece))
        return
    found = records.list_artifacts(session.client, job_id)
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(plain(each["name"]))
    elif not found:
        print("It has made no files.")
    else:
        rows = [
            [each["name"], each["kind"], format_size(each["size"]), output.age(each["modified_at"])] for each in found
        ]
        output.table(records.ARTIFACT_COLUMNS, rows)
