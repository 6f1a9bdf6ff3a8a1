"""`deploy`."""

import os
import time
from typing import Any

import click

from agentainerctl import agents, output, own_keys
from agentainerctl.build_context import collect
from agentainerctl.client import READ_TIMEOUT_S, path_of
from agentainerctl.commands.images import assignments
from agentainerctl.commands.lifecycle import WAIT_S, act
from agentainerctl.deployment import FLAGS, image_name, parse_volume, read_env_file
from agentainerctl.dockerfiles import find_dockerfile
from agentainerctl.failures import ApiError
from agentainerctl.images import build_image, pull_image
from agentainerctl.options import CPU, DURATION, ON_OFF, SIZE, Command, output_options
from agentainerctl.progress import Waiting
from agentainerctl.runtime import IMAGE, body_of
from agentainerctl.session import Session
from agentainerd.errors import AgentainerError, Conflict, InvalidParameter

_POLICIES = click.Choice(["auto", "safe", "at_least_once", "never"])


@click.command(
    "deploy",
    cls=Command,
    context_settings={"allow_interspersed_args": False},
    examples=(
        "agentainerctl deploy --name web --image nginx:alpine --start",
        "agentainerctl deploy --name mine --image ./Dockerfile --env MODEL=small --secret API_KEY --volume ./data:/data --wait",
        "agentainerctl deploy --config agents.yaml",
        "agentainerctl deploy --name job --image my-agent:1.0 --memory 512M --cpu 0.5 -- python -m agent --verbose",
    ),
)
@click.argument("command", metavar="[-- COMMAND...]", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "--config", "config", metavar="FILE", help="Deploy what a file describes, as `apply -f` does; - is standard input."
)
@click.option("-n", "--name", metavar="NAME", help="Unique name: a-z, 0-9 and -.")
@click.option(
    "-i",
    "--image",
    metavar="IMAGE|DOCKERFILE",
    help="An image, or a Dockerfile (or its folder) to build.",
)
@click.option(
    "-e",
    "--env",
    "env",
    multiple=True,
    metavar="NAME=VALUE",
    help="A variable; NAME alone takes it from the environment.",
)
@click.option("--env-file", "env_files", multiple=True, metavar="FILE", help="Lines NAME=VALUE; --env wins over it.")
@click.option(
    "--secret", "secret", multiple=True, metavar="NAME[=VALUE]", help="A variable whose value is never shown."
)
@click.option(
    "-v",
    "--volume",
    "volume",
    multiple=True,
    metavar="HOST:PATH[:ro]",
    help="A folder (./data) or a named volume (data).",
)
@click.option("-c", "--cpu", "cpu", type=CPU, metavar="CORES", help="CPU limit: 0.5, 2 or 500m.")
@click.option("-m", "--memory", "memory_limit", type=SIZE, metavar="SIZE", help="Memory limit: 512M, 1Gi; 0 for none.")
@click.option("-r", "--auto-restart", "auto_restart", is_flag=True, default=None, help="Restart it when it crashes.")
@click.option("-t", "--token", "token", metavar="TOKEN", help="What /agent/NAME/ asks for; else it is public.")
@click.option(
    "-p",
    "--port",
    "port",
    type=click.IntRange(1, 65535),
    metavar="PORT",
    help="Where the agent listens; else the image's EXPOSE, else 8000.",
)
@click.option(
    "--command", "command_line", metavar="LINE", help="What to run instead of the image's command; or after --."
)
@click.option("-l", "--label", "label", multiple=True, metavar="NAME=VALUE", help="A label.")
@click.option(
    "--network-egress", type=ON_OFF, help="Whether it reaches more than other agents and the daemon.  [default: on]"
)
@click.option(
    "--hold-timeout",
    "hold_timeout_s",
    type=DURATION,
    metavar="TIME",
    help="How long a request waits for it to be ready, before 202.",
)
@click.option(
    "--request-timeout", "request_timeout_s", type=DURATION, metavar="TIME", help="How long it may take to answer."
)
@click.option("--stop-grace", "stop_grace_s", type=DURATION, metavar="TIME", help="Time between SIGTERM and SIGKILL.")
@click.option("--persistence", type=ON_OFF, help="Whether requests are queued while it is away.  [default: on]")
@click.option("--replay-policy", "replay_policy", type=_POLICIES, help="What may be sent to it twice.")
@click.option(
    "--replay-concurrency", "replay_concurrency", type=int, metavar="N", help="Queued requests delivered at a time."
)
@click.option("--ordered", "ordered", is_flag=True, default=None, help="Deliver queued requests strictly one by one.")
@click.option("--max-pending", "max_pending", type=int, metavar="N", help="Most requests in its queue.")
@click.option("--max-pending-size", "max_pending_bytes", type=SIZE, metavar="SIZE", help="Most bytes in its queue.")
@click.option(
    "--service",
    "services",
    multiple=True,
    type=click.Choice(["redis"]),
    help="What it finds beside itself: redis, the server that agents share (REDIS_URL); repeatable.",
)
@click.option(
    "--model",
    "model",
    metavar="MODEL",
    help="Which model it uses, through the daemon: provider/model, or an alias.",
)
@click.option(
    "--runtime",
    "runtime",
    is_flag=True,
    help="Deploy the runtime image, `runtime build`: an agent that works on its own.",
)
@click.option("--repo", metavar="URL", help="With --runtime: the Git repository that it works on.")
@click.option("--branch", metavar="NAME", help="With --repo: what is checked out.  [default: the repository's]")
@click.option("--target-branch", metavar="NAME", help="With --repo: the branch that is made for its work.")
@click.option("--instructions", metavar="FILE", help="With --runtime: what the model is told before anything else.")
@click.option("--replicas", "replicas", type=int, metavar="N", help="How many containers it has, behind one path.")
@click.option(
    "--idle-timeout",
    "idle_timeout_s",
    type=DURATION,
    metavar="TIME",
    help="Stop it when it had no request for so long; the next one starts it.",
)
@click.option(
    "--update-strategy",
    "update_strategy",
    type=click.Choice(["rolling", "recreate"]),
    help="Whether a file that is applied replaces it beside itself, or after it has ended.  [default: rolling]",
)
@click.option(
    "--bridge",
    "bridge",
    type=click.Choice(["native", "agui", "agentcore", "openai", "bridge", "exec", "acp"]),
    help="How runs are given to it.  [default: as its image's label agentainer.bridge says, else it is asked]",
)
@click.option(
    "--bridge-command",
    "bridge_command",
    metavar="LINE",
    help="What a run starts in its container, with --bridge exec or acp.  [default: the image's label agentainer.bridge.command]",
)
@click.option(
    "--named-port",
    "named_ports",
    multiple=True,
    metavar="NAME=PORT",
    help="What it serves beside its port, for people.  [default: the image's label agentainer.ports]",
)
@click.option("--health-endpoint", metavar="PATH|tcp", help="What a health check asks: a GET of PATH, or a connection.")
@click.option("--health-command", metavar="LINE", help="Or what it runs in the container.")
@click.option("--health-interval", metavar="TIME", help="From one to the next.  [default: 30s]")
@click.option("--health-timeout", metavar="TIME", help="How long one may take.  [default: 5s]")
@click.option("--health-retries", type=int, metavar="N", help="Failures in a row until it is unhealthy.  [default: 3]")
@click.option(
    "--health-start-period", metavar="TIME", help="How long after a start failures do not count.  [default: 0s]"
)
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME=VALUE", help="An ARG of the Dockerfile.")
@click.option(
    "--pull",
    type=click.Choice(["always", "missing", "never"]),
    default="missing",
    show_default=True,
    help="When to pull the image.",
)
@click.option("--start", is_flag=True, help="Start it too.")
@click.option("--wait", is_flag=True, help="Start it and return when it is ready.")
@click.option("--timeout", type=DURATION, default=WAIT_S, metavar="TIME", help="How long --wait waits.  [default: 60s]")
@output_options("table", "json", "yaml", "name")
@click.pass_obj
def deploy(session: Session, /, **given: Any) -> None:  # noqa: ANN401
    """Deploy an agent from an image or a Dockerfile.

    With a Dockerfile, its folder is sent to the daemon and built as agentainer-NAME:TIME. Deploying does not start the
    agent; requests to it are queued until it is started.
    """
    if given["config"]:
        _apply(session, given)
        return
    is_own = given["runtime"] and given["image"] is None
    if is_own:
        given["image"], given["pull"] = IMAGE, "never"
    for option in ("name", "image"):
        if given[option] is None:
            raise click.UsageError(f"Missing option '-{option[0]}' / '--{option}', or '--config FILE'")
    body = _body(given)
    _warn_of_folders(session, body.get("volumes", []))
    own_keys.warn(session, {body["name"]: body.get("env_vars", {})})
    dockerfile = find_dockerfile(given["image"])
    if dockerfile:
        body["image"] = _build(session, body["name"], dockerfile, given)
    elif given["build_args"]:
        raise click.UsageError("--build-arg needs a Dockerfile as --image")
    else:
        _pull(session, given["image"], given["pull"])
    try:
        agent = _create(session, body, is_built=bool(dockerfile))
    except ApiError as error:
        if given["runtime"] and error.code == "IMAGE_NOT_FOUND":
            error.hint = "agentainerctl runtime build"
        raise
    if given["start"] or given["wait"]:
        agent = _start(session, agent, given["timeout"] if given["wait"] else None)
    _show(session, agent, is_ready=given["wait"])


def _apply(session: Session, given: dict[str, Any]) -> None:
    from agentainerctl.commands.apply import run

    context = click.get_current_context()
    chosen = [name for name in given if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE]
    others = sorted(set(chosen) - {"config", "start", "wait", "timeout", "pull"})
    if others:
        raise click.UsageError(f"--config does not go with {_flag_of(context, others[0])}: the file says it")
    run(session, (given["config"],), {**given, "prune": False, "no_start": False, "dry_run": False, "rebuild": False})


def _flag_of(context: click.Context, name: str) -> str:
    found = next(parameter for parameter in context.command.params if parameter.name == name)
    return max(found.opts, key=len) if isinstance(found, click.Option) else "a command after --"


def _body(given: dict[str, Any]) -> dict[str, Any]:
    """Return the deploy body; fields that were not given are not in it."""
    body: dict[str, Any] = {
        field: given[field]
        for field in ("name", "image", "auto_restart", "token", "port", "memory_limit", "hold_timeout_s", "request_timeout_s",
                      "stop_grace_s", "replay_policy", "replay_concurrency", "ordered", "max_pending", "max_pending_bytes",
                      "replicas", "idle_timeout_s", "update_strategy", "bridge")
        if given[field] is not None
    }  # fmt: skip
    file_lines = tuple(line for path in given["env_files"] for line in read_env_file(path))
    secrets = assignments(given["secret"], "secret")
    env = {**assignments(file_lines, "env-file"), **assignments(given["env"], "env"), **secrets}
    found = {
        "env_vars": env,
        "secrets": list(secrets),
        "volumes": [parse_volume(text) for text in given["volume"]],
        "labels": {name: value for name, _, value in (text.partition("=") for text in given["label"])},
        "command": _command(given["command"], given["command_line"]),
        "model": given["model"],
    }
    found |= _runtime(given, found)
    found["services"] = dict.fromkeys(given["services"], True)
    found["health_check"] = _health_check(given)
    found["bridge_command"] = _command((), given["bridge_command"], "bridge-command")
    found["named_ports"] = {
        name: _port(name, port) for name, port in assignments(given["named_ports"], "named-port").items()
    }
    body |= {field: value for field, value in found.items() if value}
    if given["cpu"] is not None:
        body["cpu_limit"] = round(given["cpu"] * 1e9)
    for field in ("network_egress", "persistence"):
        if given[field]:
            body[field] = given[field] == "on"
    return body


def _runtime(given: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that --runtime means; what was given with other options wins."""
    if not given["runtime"]:
        for option in ("repo", "branch", "target_branch", "instructions"):
            if given[option] is not None:
                raise click.UsageError(f"--{option.replace('_', '-')} needs --runtime")
        return {}
    if given["repo"] is None and (given["branch"] or given["target_branch"]):
        raise click.UsageError("--branch and --target-branch need --repo")
    return body_of(given, env=found["env_vars"], volumes=found["volumes"])


def _health_check(given: dict[str, Any]) -> dict[str, Any]:
    """Return the health check that was asked for; times go as they are written, as in files."""
    fields = ("endpoint", "interval", "timeout", "retries", "start_period")
    found = {field: given[f"health_{field}"] for field in fields if given[f"health_{field}"] is not None}
    if given["health_command"] is not None:
        found["command"] = _command((), given["health_command"])
    return found


def _warn_of_folders(session: Session, volumes: list[dict[str, Any]]) -> None:
    for mount in volumes:
        name = mount["host_path"]
        if not name.startswith("/") and os.path.isdir(name) and session.has_progress:
            output.note(f"warning: '{name}' is a named volume; for the folder write ./{name}:{mount['container_path']}")


def _port(name: str, port: str) -> int:
    if not port.isascii() or not port.isdigit() or len(port) > 5:
        raise click.UsageError(f"--named-port {name}: {port!r} is not a port")
    return int(port)


def _command(words: tuple[str, ...], line: str | None, option: str = "command") -> list[str]:
    if words and line is not None:
        raise click.UsageError("give the command with --command or after --, not both")
    if line is None:
        return list(words)
    import shlex

    try:
        return shlex.split(line)
    except ValueError as error:
        raise InvalidParameter(option, f"{line!r} cannot be split into words: {error}") from error


def _build(session: Session, name: str, dockerfile: str, given: dict[str, Any]) -> str:
    """Build the agent's image and return its name; a name that is taken is found out before, not after minutes."""
    tag = image_name(name, time.strftime("%Y%m%d-%H%M%S"))
    if given["pull"] == "always":
        raise click.UsageError("--pull always does not go with a Dockerfile: its base is pulled when it is missing")
    try:
        session.client.get(path_of("agents", name))
    except ApiError as error:
        if error.code != "AGENT_NOT_FOUND":
            raise
    else:
        raise Conflict(
            f"there is an agent '{name}' already", code="AGENT_NAME_TAKEN", hint=f"agentainerctl inspect {name}"
        )
    context = collect(os.path.dirname(dockerfile) or ".", dockerfile)
    build_image(session, context, tag, assignments(given["build_args"], "build-arg"))
    return tag


def _pull(session: Session, image: str, policy: str) -> None:
    if policy == "never":
        return
    try:
        pull_image(session, image, policy)
    except ApiError as error:
        if error.code == "IMAGE_NOT_FOUND" and os.path.isfile(os.path.join(image, "Dockerfile")):
            error.hint = f"to build the folder of that name: --image ./{image}"
        raise _with_flag(error) from error


def _create(session: Session, body: dict[str, Any], *, is_built: bool) -> dict[str, Any]:
    text = f"deploy {body['name']}"
    try:
        with Waiting(text, is_silent=not session.has_progress) as waiting:
            envelope = session.client.call("POST", path_of("agents"), body=body, timeout_s=READ_TIMEOUT_S, tick=waiting)
    except ApiError as error:
        if is_built and session.has_progress:
            output.note(f"The image {body['image']} is built; go on with --image {body['image']}")
        missing = [mount["host_path"] for mount in body.get("volumes", ()) if not os.path.exists(mount["host_path"])]
        if error.code == "VOLUME_SOURCE_MISSING" and missing and not error.hint:
            error.hint = f"mkdir -p {missing[0]}"
        raise _with_flag(error) from error
    return dict(envelope["data"])


def _with_flag(error: ApiError) -> ApiError:
    """Say which option the field of a validation error came from."""
    flag = FLAGS.get(str(error.details.get("field", "")))
    if flag:
        error.message = f"{error.message} ({flag})"
    return error


def _start(session: Session, agent: dict[str, Any], wait_s: float | None) -> dict[str, Any]:
    try:
        return {**agent, **act(session, str(agent["name"]), "start", wait_s=wait_s)}
    except AgentainerError as error:
        error.details.setdefault("agent_id", agent["id"])
        if session.has_progress:
            output.note(f"Agent '{agent['name']}' was deployed (ID: {agent['id']}), but it did not start well.")
        raise


def _show(session: Session, agent: dict[str, Any], *, is_ready: bool) -> None:
    if session.is_machine:
        output.machine(agent, session.output)
        return
    if session.is_quiet or session.output == "name":
        print(output.plain(agent.get("id" if session.is_quiet else "name", "")))
        return
    print("Agent deployed successfully!")
    print(f"ID: {output.plain(agent.get('id', ''))}")
    print(f"Name: {output.plain(agent.get('name', ''))}")
    print(f"Image: {output.plain(agent.get('image', ''))}")
    print(f"Status: {output.plain(agents.status(agent) if is_ready else agent.get('status', ''))}")
    print("\nAccess:")
    print(f"  Proxy: {output.plain(session.url_of(agent))}")
    print(f"  API:   {output.plain(session.url_of(agent, 'api'))}")
    if agent.get("volumes"):
        print("\nVolume mappings:")
        for mount in agent["volumes"]:
            print(f"  {output.plain(agents.volume(mount))}")
    if agent.get("status") == "created":
        output.note(f"Start it with: agentainerctl start {agent.get('name', '')}")
