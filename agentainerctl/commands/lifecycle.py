"""`start stop restart pause resume remove`: one verb each, on one agent or several."""

from collections.abc import Callable
from typing import Any

import click

from agentainerctl import batch, output
from agentainerctl.agents import Agent, status
from agentainerctl.client import READ_TIMEOUT_S, path_of
from agentainerctl.options import DURATION, Command, Function, output_options
from agentainerctl.progress import Waiting
from agentainerctl.refs import list_agents, with_agent
from agentainerctl.session import Session

WAIT_S = 60.0
_ALIVE = ("running", "paused")


def _targets(verb: str) -> Callable[[Function], Function]:
    def add(function: Function) -> Function:
        function = output_options("table", "json", "yaml", "name")(function)
        function = click.option("--all", "is_all", is_flag=True, help=f"All agents that one can {verb}.")(function)
        return click.argument("refs", metavar="AGENT...", nargs=-1)(function)

    return add


def _wait_options(function: Function) -> Function:
    function = click.option(
        "--timeout", type=DURATION, default=WAIT_S, metavar="TIME", help="How long --wait waits.  [default: 60s]"
    )(function)
    return click.option("--wait", is_flag=True, help="Return when the agent is ready.")(function)


@click.command(
    "start",
    cls=Command,
    names="agents",
    examples=("agentainerctl start web", "agentainerctl start --wait --timeout 2m web worker"),
)
@_targets("start")
@_wait_options
@click.pass_obj
def start(session: Session, refs: tuple[str, ...], is_all: bool, wait: bool, timeout: float) -> None:
    """Start deployed or stopped agents.

    Returns when the container runs; with --wait when the agent is ready. A start that fails shows the exit code and the
    last lines of the agent's log.
    """
    chosen = _chosen(session, refs, is_all, lambda agent: agent.get("status") in ("created", "stopped", "failed"))
    _run(session, chosen, "start", "started", wait_s=timeout if wait else None)


@click.command(
    "stop",
    cls=Command,
    names="agents",
    examples=("agentainerctl stop web", "agentainerctl stop --grace 60s web worker", "agentainerctl stop --all"),
)
@_targets("stop")
@click.option("--grace", type=DURATION, metavar="TIME", help="Time between SIGTERM and SIGKILL; else the agent's own.")
@click.pass_obj
def stop(session: Session, refs: tuple[str, ...], is_all: bool, grace: float | None) -> None:
    """Stop running agents.

    What is in flight may finish within the grace; what arrives from then on is queued.
    """
    chosen = _chosen(
        session, refs, is_all, lambda agent: agent.get("status") in _ALIVE or bool(agent.get("next_restart_at"))
    )
    _run(session, chosen, "stop", "stopped", query={"grace": grace})


@click.command(
    "restart",
    cls=Command,
    names="agents",
    examples=("agentainerctl restart web", "agentainerctl restart --wait web"),
)
@_targets("restart")
@_wait_options
@click.pass_obj
def restart(session: Session, refs: tuple[str, ...], is_all: bool, wait: bool, timeout: float) -> None:
    """Restart running agents. Requests that arrive meanwhile are held or queued, none is lost."""
    chosen = _chosen(session, refs, is_all, lambda agent: agent.get("status") == "running")
    _run(session, chosen, "restart", "restarted", wait_s=timeout if wait else None)


@click.command(
    "pause",
    cls=Command,
    names="agents",
    examples=("agentainerctl pause web", "agentainerctl pause --all"),
)
@_targets("pause")
@click.pass_obj
def pause(session: Session, refs: tuple[str, ...], is_all: bool) -> None:
    """Freeze running agents: they keep their memory and use no CPU. Requests are queued until `resume`."""
    chosen = _chosen(session, refs, is_all, lambda agent: agent.get("status") == "running")
    _run(session, chosen, "pause", "paused")


@click.command(
    "resume",
    cls=Command,
    names="agents",
    examples=("agentainerctl resume web", "agentainerctl resume --wait --all"),
)
@_targets("resume")
@_wait_options
@click.pass_obj
def resume(session: Session, refs: tuple[str, ...], is_all: bool, wait: bool, timeout: float) -> None:
    """Bring agents back, whatever took them down.

    A paused one goes on, a stopped or crashed one is started, a lost container is made anew. Queued requests follow.
    """
    chosen = _chosen(session, refs, is_all, lambda agent: agent.get("status") != "running")
    _run(session, chosen, "resume", "resumed", wait_s=timeout if wait else None)


@click.command(
    "remove",
    cls=Command,
    names="agents",
    examples=("agentainerctl remove web", "agentainerctl remove --force web worker"),
)
@_targets("remove")
@click.option("-f", "--force", is_flag=True, help="Running agents too, and without asking.")
@click.pass_obj
def remove(session: Session, refs: tuple[str, ...], is_all: bool, force: bool) -> None:
    """Remove agents with their containers and requests.

    Nothing is left but named volumes and folders of the host. A running agent is removed with --force, or after a question
    on a terminal.
    """
    chosen = _chosen(session, refs, is_all, lambda agent: True)
    if is_all and chosen and not force:
        session.confirm(f"Remove all {len(chosen)} agents?", f"refusing to remove all {len(chosen)} agents")
    batch.each(session, chosen, lambda ref: _remove(session, ref, force), _line("removed successfully"))


def act(
    session: Session, ref: str, verb: str, *, query: dict[str, object] | None = None, wait_s: float | None = None
) -> dict[str, Any]:
    """Do `verb` on one agent and return it as it is then; blocks as long as that takes, a line on a terminal says so.

    Raises:
        AgentainerError: as `Client.call`; with `wait_s`, AGENT_EXITED or AGENT_NOT_READY with the evidence.
    """
    text = f"{verb} {ref}" + (", waiting until it is ready" if wait_s is not None else "")
    with Waiting(text, is_silent=not session.has_progress) as waiting:

        def call(known: str) -> dict[str, Any]:
            envelope = session.client.call(
                "POST",
                path_of("agents", known, verb),
                query={**(query or {}), "wait": wait_s},
                timeout_s=None if wait_s is None else wait_s + READ_TIMEOUT_S,
                tick=waiting,
            )
            data = envelope.get("data")
            return data if isinstance(data, dict) and "id" in data else {"id": known, "name": known}

        return with_agent(session.client, ref, call)


def _run(
    session: Session,
    refs: list[str],
    verb: str,
    done: str,
    *,
    query: dict[str, object] | None = None,
    wait_s: float | None = None,
) -> None:
    def one(ref: str) -> dict[str, Any]:
        return _result(act(session, ref, verb, query=query, wait_s=wait_s), done)

    batch.each(session, refs, one, _line(f"{done} successfully{' and is ready' if wait_s is not None else ''}"))


def _line(text: str) -> batch.Line:
    return lambda ref, _: output.plain(f"Agent {ref} {text}")


def _remove(session: Session, ref: str, force: bool) -> dict[str, Any]:
    agent: Agent = with_agent(session.client, ref, lambda known: session.client.get(path_of("agents", known)))
    agent_id, name = str(agent["id"]), str(agent["name"])
    if agent.get("status") in _ALIVE and not force:
        pending = (agent.get("requests") or {}).get("pending", 0)
        with_requests = f" with its {pending} pending requests" if pending else ""
        question = f"Agent '{name}' is {agent['status']}. Remove it{with_requests}?"
        session.confirm(question, f"refusing to remove '{name}': it is {agent['status']}")
    if session.has_progress and session.output == "table":
        print(f"Removing agent '{name}' (ID: {agent_id}, Status: {status(agent)})")
    with Waiting(f"remove {ref}", is_silent=not session.has_progress) as waiting:
        session.client.call("DELETE", path_of("agents", agent_id), timeout_s=None, tick=waiting)
    return _result(agent, "removed")


def _result(agent: Agent, done: str) -> dict[str, Any]:
    return {"id": agent["id"], "name": agent["name"], "status": agent.get("status", ""), "result": done}


def _chosen(session: Session, refs: tuple[str, ...], is_all: bool, fits: Callable[[Agent], bool]) -> list[str]:
    if is_all and refs:
        raise click.UsageError("name agents or say --all, not both")
    if not is_all:
        if not refs:
            raise click.UsageError("name an agent, or say --all")
        return list(refs)
    chosen = [str(agent["name"]) for agent in list_agents(session.client) if fits(agent)]
    if not chosen and session.has_progress:
        output.note("There is no agent in a state for that.")
    return chosen
