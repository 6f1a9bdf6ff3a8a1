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
        "agentainerctl runtime build --desktop",
        "agentainerctl runtime build --base agentainer-base:bookworm --wheels ./wheels",
    ),
)
@click.option(
    "--base", metavar="IMAGE", help="A Debian or Ubuntu with Python 3.11 or newer.  [default: python:3.12-slim]"
)
@click.option(
    "-t", "--tag", metavar="NAME[:TAG]", help=f"Name of the image.  [default: {runtime.IMAGE}, {runtime.DESKTOP_IMAGE}]"
)
@click.option(
    "--desktop", is_flag=True, help="With a screen and notebooks, on a runtime image that is built before it."
)
@click.option("--wheels", metavar="FOLDER", help="Packages for a build that reaches no package index; docs/runtime.md.")
@output_options("table", "json", "yaml")
@click.pass_obj
def build(session: Session, base: str | None, tag: str | None, wheels: str | None, desktop: bool) -> None:
    """Build the runtime image, which `deploy --runtime` takes.

    One with a desktop is deployed by `deploy --runtime --image agentainer-desktop:latest`.
    """
    offline = {"PIP_NO_INDEX": "1"} if wheels else {}
    args = {**({"BASE_IMAGE": base} if base else {}), **offline}
    first = runtime.IMAGE if desktop else tag or runtime.IMAGE
    result = build_image(session, runtime.context(wheels), first, args)
    if desktop:
        tag = tag or runtime.DESKTOP_IMAGE
        context = runtime.context(wheels, runtime.DESKTOP_DOCKERFILE)
        result = build_image(session, context, tag, {"RUNTIME_IMAGE": runtime.IMAGE, **offline})
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet:
        print(output.plain(result.get("image_id", "")))
    else:
        print(f"Image: {output.plain(result.get('image', first))}")
        print(f"ID: {output.plain(result.get('image_id', ''))}")
