"""`runtime build`."""

import click

from agentainerctl import output, runtime
from agentainerctl.images import build_image
from agentainerctl.options import Command, Group, output_options
from agentainerctl.session import Session


@click.group(
    "runtime",
    cls=Group,
    examples=("agentainerctl runtime build", "agentainerctl deploy --runtime --name coder --start"),
)
def group() -> None:
    """Build the image that agents of --runtime have."""


@group.command(
    "build",
    cls=Command,
    examples=(
        "agentainerctl runtime build",
        "agentainerctl runtime build --base agentainer-base:bookworm --wheels ./wheels",
    ),
)
@click.option(
    "--base", metavar="IMAGE", help="A Debian or Ubuntu with Python 3.11 or newer.  [default: python:3.12-slim]"
)
@click.option("-t", "--tag", default=runtime.IMAGE, show_default=True, metavar="NAME[:TAG]", help="Name of the image.")
@click.option("--wheels", metavar="FOLDER", help="Packages for a build that reaches no package index; docs/runtime.md.")
@output_options("table", "json", "yaml")
@click.pass_obj
def build(session: Session, base: str | None, tag: str, wheels: str | None) -> None:
    """Build the runtime image, which `deploy --runtime` takes."""
    args = {**({"BASE_IMAGE": base} if base else {}), **({"PIP_NO_INDEX": "1"} if wheels else {})}
    result = build_image(session, runtime.context(wheels), tag, args)
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet:
        print(output.plain(result.get("image_id", "")))
    else:
        print(f"Image: {output.plain(result.get('image', tag))}")
        print(f"ID: {output.plain(result.get('image_id', ''))}")
