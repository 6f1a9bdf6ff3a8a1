"""`apply`, `diff`, `export`, `deployments`: agents that a file describes."""

import os
import time
from contextlib import closing
from typing import Any

import click

from agentainerctl import deployments, exits, output, own_keys
from agentainerctl.client import path_of
from agentainerctl.commands.lifecycle import WAIT_S
from agentainerctl.failures import ApiError, StreamBroken
from agentainerctl.manifest import Manifest, load, read_file
from agentainerctl.manifest_build import Build, have_images, name_images
from agentainerctl.manifest_export import as_manifest, as_yaml
from agentainerctl.options import DURATION, Command, Function, output_options
from agentainerctl.output import Column, age
from agentainerctl.session import Session
from agentainerd.errors import InvalidParameter, NotFound

_COLUMNS = (
    Column("NAME"),
    Column("AGENTS", can_shrink=True),
    Column("APPLIED"),
    Column("DESCRIPTION", can_shrink=True),
)
_OPTIONS = (
    click.option(
        "-f", "--file", "files", multiple=True, metavar="FILE", help="What to apply; - is standard input. Repeatable."
    ),
    click.option("--prune", is_flag=True, help="Remove agents that the deployment has and the file no longer names."),
    click.option("--no-start", is_flag=True, help="Do not start what does not run."),
)


def _file_options(function: Function) -> Function:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command(
    "apply",
    cls=Command,
    examples=(
        "agentainerctl apply -f agents.yaml",
        "agentainerctl apply -f agents.yaml --dry-run",
        "MODEL=small agentainerctl apply --prune -f - <agents.yaml",
    ),
)
@_file_options
@click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing; as `diff`.")
@click.option("--build", "rebuild", is_flag=True, help="Build images of Dockerfiles also where nothing changed.")
@click.option(
    "--pull", type=click.Choice(["always", "missing", "never"]), default="missing", show_default=True,
    help="When to pull images.",
)  # fmt: skip
@click.option(
    "--timeout", type=DURATION, default=WAIT_S, metavar="TIME", help="How long each is waited for.  [default: 60s]"
)
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def apply(session: Session, /, **given: Any) -> None:  # noqa: ANN401
    """Have agents as a file describes them.

    What is missing is created, what differs is changed, at once where that is possible, else by a new container that takes
    over when it is ready; the rest is left alone. Agents are started after those that they depend on are ready. When one
    fails, what depends on it is not done, and the exit code is 1.
    """
    run(session, given["files"], given)


def run(session: Session, files: tuple[str, ...], given: dict[str, Any]) -> None:
    """Apply files. `given`: prune, no_start, dry_run, rebuild, pull, timeout. Sets the exit code.

    Raises:
        AgentainerError: the files are wrong, a build failed, or the daemon does not do it; nothing was changed.
    """
    manifest, builds = _manifest(files)
    wish = _wish(manifest, given)
    plan = _plan(session, wish, manifest)
    if given["dry_run"]:
        _show_plan(session, plan)
        return
    changed = {step["agent"] for step in plan["steps"] if step["action"] != "keep"}
    own_keys.warn(
        session, {each["name"]: each.get("env_vars", {}) for each in manifest.agents() if each["name"] in changed}
    )
    have_images(session, manifest, builds, rebuild=given["rebuild"], pull=given["pull"])
    if session.has_progress:
        output.note(f"Deploying agents from: {', '.join(files)}")
    began = time.monotonic()
    result = _stream(session, wish, sum(1 for _ in manifest.agents()))
    _show_result(session, result, time.monotonic() - began)
    if not result["success"]:
        session.exit_code = exits.FAILED


@click.command(
    "diff",
    cls=Command,
    examples=("agentainerctl diff -f agents.yaml", "agentainerctl diff --prune -f agents.yaml -o json"),
)
@_file_options
@click.option("--exit-code", "tells", is_flag=True, help="Exit with 1 where something differs.")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def diff(session: Session, /, **given: Any) -> None:  # noqa: ANN401
    """Show what apply would do. Nothing is changed, built or pulled; values of secrets are not shown."""
    manifest, _ = _manifest(given["files"])
    plan = _plan(session, _wish(manifest, {**given, "timeout": WAIT_S}), manifest)
    _show_plan(session, plan)
    if given["tells"] and deployments.differs(plan):
        session.exit_code = exits.FAILED


@click.command(
    "export", cls=Command, examples=("agentainerctl export shop >shop.yaml", "agentainerctl export shop -o json")
)
@click.argument("name", metavar="DEPLOYMENT")
@output_options("yaml", "json")
@click.pass_obj
def export(session: Session, name: str) -> None:
    """Write a deployment as a file that can be applied.

    It says what the agents are now. Values of secrets are not told: `${NAME}` stands for each, and is taken from the
    environment when the file is applied.
    """
    if "/" in name or name in ("", ".", ".."):
        raise NotFound("deployment", name, hint="agentainerctl deployments")
    deployment = session.client.get(path_of("deployments", name, "export"))
    if session.output == "json":
        output.machine(as_manifest(deployment), "json")
    else:
        print(as_yaml(deployment), end="")


@click.command("deployments", cls=Command, examples=("agentainerctl deployments", "agentainerctl deployments -o json"))
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def deployments_(session: Session) -> None:
    """List deployments: agents that were applied together."""
    found = session.client.get(path_of("deployments")) or []
    if session.is_machine:
        output.machine(found, session.output)
    elif session.is_quiet or session.output == "name":
        for each in found:
            print(output.plain(each["name"]))
    elif not found:
        output.note("There are no deployments. Make one with: agentainerctl apply -f FILE")
    else:
        rows = [
            [each["name"], ", ".join(each["agents"]), age(each["applied_at"]), each["description"]] for each in found
        ]
        output.table(_COLUMNS, rows)


def _manifest(files: tuple[str, ...]) -> tuple[Manifest, list[Build]]:
    """Return what all files say together, and what has to be built for it."""
    if not files:
        raise click.UsageError("name a file: -f FILE, or -f - for standard input")
    whole = Manifest()
    for path in files:
        found = load(path, read_file(path), os.environ)
        taken = whole.builds.keys() & found.builds.keys()
        if taken:
            raise InvalidParameter(path, f"duplicate agent name: {min(taken)}", code="INVALID_MANIFEST")
        whole.deployments += found.deployments
        whole.builds |= found.builds
        whole.places |= found.places
    return whole, name_images(whole)


def _wish(manifest: Manifest, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "deployments": manifest.deployments,
        "prune": given["prune"],
        "start": not given["no_start"],
        "timeout_s": given["timeout"],
    }


def _plan(session: Session, wish: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    """Ask what would be done; what the daemon finds wrong is told with its place in the file."""
    try:
        return dict(session.client.call("POST", path_of("deployments", "plan"), body=wish)["data"])
    except ApiError as error:
        place = manifest.places.get(str(error.details.get("field", "")))
        if place:
            error.message = f"{place}: {error.message}"
        raise


def _show_plan(session: Session, plan: dict[str, Any]) -> None:
    if session.is_machine:
        output.machine(plan, session.output)
    elif session.is_quiet or session.output == "name":
        for step in plan["steps"]:
            if step["action"] != "keep":
                print(output.plain(step["agent"]))
    else:
        deployments.show_plan(plan)


def _stream(session: Session, wish: dict[str, Any], total: int) -> dict[str, Any]:
    progress = deployments.Progress(total, is_silent=not session.has_progress)
    lines = session.client.stream("POST", path_of("deployments", "apply"), body=wish)
    try:
        with closing(lines):  # type: ignore[type-var] # a generator has close()
            for line in lines:
                if "result" in line:
                    return dict(line["result"])
                if "progress" in line:
                    progress.take(line["progress"])
                else:
                    progress.draw()
    except KeyboardInterrupt:
        progress.clear()
        output.note("Broken off: what is under way is ended, and nothing more is begun. See: agentainerctl list")
        raise
    finally:
        progress.clear()
    raise StreamBroken(
        "agentainerd stopped before it was done", hint="apply it again: what is done already is left alone"
    )


def _show_result(session: Session, result: dict[str, Any], seconds: float) -> None:
    if session.is_machine:
        output.machine(result, session.output)
    elif session.is_quiet or session.output == "name":
        for each in result["agents"]:
            if each["stage"] == "done" and each.get("id"):
                print(output.plain(each["id" if session.is_quiet else "agent"]))
    else:
        deployments.show_result(result, seconds)
    if not session.is_machine:
        for each in deployments.failures(result):
            session.report(ApiError(0, each["error"]))
