"""How an agent looks to people: its status with the reason, its columns, its page."""

from typing import Any

from agentainerctl import output
from agentainerctl.output import Column, age
from agentainerctl.session import Session
from agentainerd.units import format_duration, format_size

Agent = dict[str, Any]

COLUMNS: tuple[Column, ...] = (
    Column("ID"),
    Column("NAME", can_shrink=True),
    Column("IMAGE", can_shrink=True),
    Column("STATUS", can_shrink=True),
    Column("CREATED", can_shrink=True),
    Column("ENDPOINT", can_shrink=True),
)
WIDE_COLUMNS = (
    *COLUMNS,
    Column("PORT"),
    Column("REPLICAS"),
    Column("RESTARTS"),
    Column("PENDING"),
    Column("FAILED"),
    Column("CPU"),
    Column("MEMORY"),
    Column("CONTAINER"),
)
"""The id comes first and the name second, as in the original: scripts cut them out."""


def status(agent: Agent) -> str:
    """Return the state with what a person wants to know beside it: "stopped (exit 137, out of memory)"."""
    state = str(agent.get("status", "unknown"))
    if state == "running":
        health = agent.get("health", "none")
        if not agent.get("ready"):
            return f"running ({agent.get('reason') or ('unhealthy' if health == 'unhealthy' else 'starting')})"
        how = "ready" if health in ("none", "", None) else health
        return f"running ({how}{_how_many(agent)})"
    reason = str(agent.get("reason") or "")
    due = output.epoch(agent.get("next_restart_at"))
    if due:
        import time

        wait_s = due - time.time()
        restart = f"restarts in {format_duration(wait_s)}" if wait_s >= 1 else "restarts now"
        reason = f"{reason}, {restart}" if reason else restart
    return f"{state} ({reason})" if reason else state


def _how_many(agent: Agent) -> str:
    """Return how many of several replicas get requests: " 2 of 3"."""
    containers = agent.get("containers") or []
    ready = sum(1 for container in containers if container.get("ready"))
    return f", {ready} of {len(containers)}" if len(containers) > 1 else ""


def colours(agents: list[Agent]) -> dict[str, str]:
    """Return the colour of each status text: meaning is in the text, colour only helps to find it."""
    found = {}
    for agent in agents:
        state = agent.get("status")
        is_well = state == "running" and agent.get("ready") and agent.get("health") != "unhealthy"
        colour = "red" if state == "failed" else "green" if is_well else "yellow" if state == "running" else "dim"
        found[output.plain(status(agent))] = colour
    return found


def row(agent: Agent, session: Session, *, is_wide: bool = False) -> list[str]:
    """Return the cells of one agent in the order of COLUMNS, or with `is_wide` of WIDE_COLUMNS."""
    cells = [
        agent.get("id", ""),
        agent.get("name", ""),
        agent.get("image", ""),
        status(agent),
        age(agent.get("created_at")),
        session.url_of(agent) if is_wide else agent.get("endpoint", ""),
    ]
    if is_wide:
        requests = agent.get("requests") or {}
        cells += [
            agent.get("port", ""),
            _replicas(agent),
            agent.get("restarts", 0),
            requests.get("pending", 0),
            requests.get("failed", 0),
            cpu(agent),
            memory(agent),
            str(agent.get("container_id") or "")[:12] or "-",
        ]
    return [str(cell) for cell in cells]


def page(agent: Agent, session: Session) -> None:
    """Print all that is known of one agent, for people."""
    requests = agent.get("requests") or {}
    containers = agent.get("containers") or []
    output.facts(
        (
            ("Name", agent.get("name")),
            ("ID", agent.get("id")),
            ("Status", status(agent)),
            ("Image", agent.get("image")),
            ("Endpoint", session.url_of(agent)),
            ("Port", agent.get("port")),
            ("Named ports", ", ".join(f"{name} {port}" for name, port in (agent.get("named_ports") or {}).items())),
            ("Created", age(agent.get("created_at"))),
            ("Started", age(agent.get("started_at"))),
            ("Restarts", f"{agent.get('restarts', 0)} (crashes in a row: {agent.get('crashes', 0)})"),
            (
                "Requests",
                f"{requests.get('pending', 0)} pending, {requests.get('in_flight', 0)} in flight, "
                f"{requests.get('failed', 0)} failed",
            ),
            ("CPU", cpu(agent)),
            ("Memory", memory(agent)),
            ("Command", _command(agent.get("command") or [])),
            ("Auto-restart", _on(agent.get("auto_restart"))),
            ("Persistence", _on(agent.get("persistence"))),
            ("Replay", _replay(agent)),
            ("Network egress", _on(agent.get("network_egress"))),
            ("Services", ", ".join(name for name, wanted in (agent.get("services") or {}).items() if wanted)),
            ("Model", agent.get("model")),
            ("Timeouts", _timeouts(agent)),
            ("Health", _health(agent)),
            ("Deployment", agent.get("deployment")),
            ("Dependencies", ", ".join(agent.get("dependencies") or [])),
            ("Token", "asked for" if agent.get("token") else "none: its endpoint is public"),
            ("Replicas", _replicas(agent) if len(containers) > 1 else None),
            ("Container", str(agent.get("container_id") or "")[:12] if len(containers) < 2 else None),
        )
    )
    _section("Containers", [_container(agent, each) for each in containers] if len(containers) > 1 else [])
    variables = {**(agent.get("links") or {}), **(agent.get("env_vars") or {})}
    _section("Environment", [f"{name}={value}" for name, value in variables.items()])
    _section("Volumes", [volume(mount) for mount in agent.get("volumes") or []])
    _section("Labels", [f"{name}={value}" for name, value in (agent.get("labels") or {}).items()])
    _last_exit(agent.get("last_exit"))


def _replicas(agent: Agent) -> str:
    """Return how many replicas get requests, of how many: "2/3"."""
    containers = agent.get("containers") or []
    ready = sum(1 for container in containers if container.get("ready"))
    return f"{ready}/{len(containers)}" if containers else "-"


def _container(agent: Agent, container: dict[str, Any]) -> str:
    """Return one replica in a line: its name in paths, container, state and why."""
    name = f"{agent.get('name')}-{container.get('replica')}"
    restarts = container.get("restarts", 0)
    words = [name, str(container.get("container_id") or "-")[:12], status(container)]
    return "   ".join(words) + (f"   restarts: {restarts}" if restarts else "")


def volume(mount: dict[str, Any]) -> str:
    """Return a mount as a person would write it: "/data -> /app/data (ro)"."""
    return f"{mount.get('host_path')} -> {mount.get('container_path')}{' (ro)' if mount.get('read_only') else ''}"


def cpu(agent: Agent) -> str:
    """Return the CPU limit in cores."""
    limit = agent.get("cpu_limit") or 0
    return f"{limit / 1e9:g}" if limit else "no limit"


def memory(agent: Agent) -> str:
    """Return the memory limit, in the unit in which it is a round number."""
    limit = agent.get("memory_limit") or 0
    return round_size(limit) if limit else "no limit"


def round_size(limit: int) -> str:
    """Return a number of bytes in the unit in which it is a round one."""
    for unit, size in (("GiB", 1024**3), ("MiB", 1024**2)):
        if limit % size == 0:
            return f"{limit // size} {unit}"
    return format_size(limit)


def _command(words: list[str]) -> str:
    if not words:
        return ""
    import shlex

    return shlex.join(words)


def _on(value: object) -> str:
    return "" if value is None else "on" if value else "off"


def _replay(agent: Agent) -> str:
    if not agent.get("replay_policy"):
        return ""
    how = "one by one, in order" if agent.get("ordered") else f"{agent.get('replay_concurrency', '?')} at a time"
    return f"{agent['replay_policy']}, {how}; at most {agent.get('max_pending', '?')} pending"


def _health(agent: Agent) -> str:
    """Return the health, and what is asked."""
    check = agent.get("health_check")
    if not check:
        return "none: it has no health check"
    asked = " ".join(check.get("command") or []) or check.get("endpoint") or "/health"
    return f"{agent.get('health')} ({asked} every {check.get('interval')}, {check.get('retries')} failures in a row)"


def _timeouts(agent: Agent) -> str:
    shown = (("hold", "hold_timeout_s"), ("request", "request_timeout_s"), ("stop grace", "stop_grace_s"))
    told = [f"{title} {agent[key]:g} s" for title, key in shown if agent.get(key) is not None]
    return ", ".join([*told, f"idle {agent['idle_timeout_s']:g} s"] if agent.get("idle_timeout_s") else told)


def _section(title: str, lines: list[str]) -> None:
    if lines:
        output.say(f"{title}:")
        for line in lines:
            output.say(f"  {output.plain(line)}")


def _last_exit(last: dict[str, Any] | None) -> None:
    if not last:
        return
    output.say("Last exit:")
    memory_note = ", out of memory" if last.get("oom_killed") else ""
    output.facts(
        (
            ("Code", f"{last.get('exit_code')}{memory_note}"),
            ("When", age(last.get("finished_at"))),
            ("Error", last.get("error")),
        ),
        indent="  ",
    )
    if last.get("log"):
        output.say("  Log:")
        for line in last["log"]:
            output.say(f"    | {output.strip_ansi(str(line))}")
