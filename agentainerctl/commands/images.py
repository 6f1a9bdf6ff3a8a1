"""`build`."""

import os

import click

from agentainerctl import output
from agentainerctl.build_context import collect
from agentainerctl.images import build_image
from agentainerctl.options import Command, output_options
from agentainerctl.session import Session
from agentainerd.errors import InvalidParameter


@click.command(
    "build",
    cls=Command,
    examples=(
        "agentainerctl build --tag my-agent:1.0 .",
        "agentainerctl build --tag my-agent:dev -f Dockerfile.dev --build-arg BASE=python:3.12-slim ./agent",
    ),
)
@click.argument("folder", metavar="FOLDER", default=".")
@click.option("-t", "--tag", required=True, metavar="NAME[:TAG]", help="Name of the image.")
@click.option("-f", "--file", "dockerfile", metavar="PATH", help="The Dockerfile.  [default: FOLDER/Dockerfile]")
@click.option(
    "--build-arg",
    "args",
    multiple=True,
    metavar="NAME=VALUE",
    help="An ARG of the Dockerfile; NAME alone: from the environment.",
)
@output_options("table", "json", "yaml")
@click.pass_obj
def build(session: Session, folder: str, tag: str, dockerfile: str | None, args: tuple[str, ...]) -> None:
    """Build an image from a Dockerfile.

    Sends FOLDER to the daemon, but for what .dockerignore names.
    """
    context = collect(folder, dockerfile or os.path.join(folder, "Dockerfile"))
    result = build_image(session, context, tag, assignments(args, "build-arg"))
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet:
        print(output.plain(result.get("image_id", "")))
    else:
        print(f"Image: {output.plain(result.get('image', tag))}")
        print(f"ID: {output.plain(result.get('image_id', ''))}")


def assignments(texts: tuple[str, ...], option: str) -> dict[str, str]:
    """Return the NAME=VALUE pairs; a NAME alone takes its value from this program's environment.

    Raises:
        InvalidParameter: no name, or a NAME alone that the environment hasn't.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not name:
            raise InvalidParameter(option, f"{text!r} has no name", hint=f"--{option} NAME=VALUE")
        if not separator and name not in os.environ:
            raise InvalidParameter(
                option, f"{name} has no value and is not in the environment", hint=f"--{option} {name}=VALUE"
            )
        found[name] = value if separator else os.environ[name]
    return found
