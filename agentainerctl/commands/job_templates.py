"""`jobs templates`."""

from typing import Any

import click

from agentainerctl import output
from agentainerctl.client import path_of
from agentainerctl.options import Command, output_options
from agentainerctl.output import Column, plain
from agentainerctl.session import Session

Template = dict[str, Any]

COLUMNS = (Column("NAME"), Column("PARAMETERS", can_shrink=True), Column("DESCRIPTION", can_shrink=True))


@click.command(
    "templates",
    cls=Command,
    examples=("agentainerctl jobs templates", "agentainerctl jobs templates summarize"),
)
@click.argument("name", metavar="[TEMPLATE]", required=False)
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def templates(session: Session, name: str | None) -> None:
    """List the daemon's templates, or show one: named prompts with parameters, for `jobs submit --template`."""
    envelope = session.client.call("GET", path_of("api", "v1", "templates", *([name] if name else [])))
    found: Any = envelope.get("data") or []
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in [found] if name else found:
            print(plain(each["name"]))
    elif name:
        _page(found)
    elif not found:
        print("No templates yet.")
    else:
        rows = [(each["name"], _names(each), each.get("description") or "") for each in found]
        output.table(COLUMNS, rows)
    for problem in envelope.get("problems") or ():
        output.note(f"warning: {plain(problem)}")


def _names(template: Template) -> str:
    return ", ".join(
        f"{name}{'' if parameter.get('required') else '=' + str(parameter.get('default') or '')}"
        for name, parameter in template["parameters"].items()
    )


def _page(template: Template) -> None:
    output.facts(
        (
            ("Name", template["name"]),
            ("Description", template.get("description")),
            ("Image", template.get("image")),
            ("Model", template.get("model")),
            ("File", template.get("file")),
        )
    )
    if template["parameters"]:
        output.say("Parameters:")
    for name, parameter in template["parameters"].items():
        choices = f" ({' | '.join(parameter['choices'])})" if parameter.get("choices") else ""
        needed = "required" if parameter.get("required") else f"else {parameter.get('default')!r}"
        told = f" - {parameter['description']}" if parameter.get("description") else ""
        output.say(plain(f"  {name}{choices}: {needed}{told}"))
    output.say("Prompt:")
    for line in output.plain_text(str(template["prompt"])).splitlines():
        output.say(f"  {line}".rstrip())
