"""Deployments: agents that are described together, and what has to be done to have them so. Nothing here does I/O.

What differs between an agent and its description is a list of `Change`s. Each says what it takes: nothing but the daemon's word
(a hold time), other numbers for the running container (its limits), or a new container.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.agents import MASK, Agent, AgentSpec, UpdateStrategy, check_name, validate
from agentainerd.model.bridges import Bridge
from agentainerd.model.replicas import AgentState

Value = str | int | float | bool | list[object] | dict[str, object] | None
"""A value of a spec, as JSON has it."""

MAX_AGENTS = 1000  # in one call
MAX_TEXT_CHARS = 1024
CONTAINER_FIELDS = frozenset(
    (
        "image",
        "env_vars",
        "volumes",
        "command",
        "labels",
        "network_egress",
        "services",
        "model",
        "runtime",
        "named_ports",
    )
)
"""What a container has from its making on. The port is one of them: the program that listens elsewhere is another one."""
UPSTREAMS = "UPSTREAM_SERVICES"


class Deployment(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Agents that belong together; `description` and `labels` are for people."""

    name: str
    description: str = ""
    labels: dict[str, str] = {}
    agents: tuple[AgentSpec, ...] = ()


class DeploymentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a deployment beside its agents; `applied_at`: epoch seconds of the last apply."""

    name: str
    description: str = ""
    labels: dict[str, str] = {}
    applied_at: float = 0.0


class Wish(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked for. `prune`: agents of these deployments that are in none of them any more are removed. `start`: agents that
    do not run are started, and waited for up to `timeout_s` seconds each.
    """

    deployments: tuple[Deployment, ...]
    prune: bool = False
    start: bool = True
    timeout_s: float = 60.0


class ResolvedSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A spec with what only the engine and other agents can say. `image_id` "": the image is not on the engine (yet)."""

    spec: AgentSpec
    image_id: str
    port: int
    links: dict[str, str] = {}
    bridge: Bridge | None = None
    named_ports: dict[str, int] = {}


class Need(StrEnum):
    """What a change takes."""

    NOTHING = "nothing"
    LIMITS = "limits"  # of the containers that are there
    REPLICAS = "replicas"  # more of them, or fewer
    CONTAINER = "container"  # a new one


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs. `field`: as in the deploy body, `env_vars.MODEL` for one variable; None: it is not there.

    Values of secrets are masked on both sides.
    """

    field: str
    before: Value = None
    after: Value = None
    needs: Need = Need.NOTHING


class Verb(StrEnum):
    """What is done to an agent."""

    CREATE = "create"
    REPLACE = "replace"
    UPDATE = "update"
    START = "start"
    KEEP = "keep"
    REMOVE = "remove"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is done to one agent, and why. `dependencies`: agents that have to be ready before. `starts`: it is started, too.

    `stops_first`: it is replaced after its containers have ended, not beside them. `lacks_image`: its image has to be built or
    pulled before.
    """

    agent: str
    deployment: str
    verb: Verb
    image: str = ""
    changes: tuple[Change, ...] = ()
    dependencies: tuple[str, ...] = ()
    starts: bool = False
    stops_first: bool = False
    lacks_image: bool = False


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All steps in order: agents after their dependencies, removals last. `stray`: agents of these deployments that are in none
    of them any more, and stay.
    """

    steps: tuple[Step, ...]
    stray: tuple[str, ...] = ()


def check(wish: Wish) -> list[AgentSpec]:
    """Return the specs of all agents, dependencies first, each with the name of its deployment.

    Raises:
        InvalidParameter: a value is wrong, something is there twice, or agents depend on each other in a circle (code
            DEPENDENCY_CYCLE); the field says where.
    """
    if not wish.deployments:
        raise InvalidParameter("deployments", "there is none")
    if not 0 <= wish.timeout_s <= 3600:
        raise InvalidParameter("timeout_s", f"{wish.timeout_s:g} is not between 0 and 3600")
    names: set[str] = set()
    specs: dict[str, AgentSpec] = {}
    for deployment in wish.deployments:
        _check_deployment(deployment)
        if deployment.name in names:
            raise InvalidParameter("deployments", f"'{deployment.name}' is there twice")
        names.add(deployment.name)
        for spec in deployment.agents:
            if spec.name in specs:
                raise InvalidParameter("agents", f"duplicate agent name: {spec.name}")
            specs[spec.name] = _checked(spec, deployment.name)
    if len(specs) > MAX_AGENTS:
        raise InvalidParameter("agents", f"{len(specs)} are more than {MAX_AGENTS}")
    _check_replica_names(specs)
    return in_order(specs.values())


def in_order(specs: Iterable[AgentSpec]) -> list[AgentSpec]:
    """Return specs with dependencies before what depends on them, else in the order given.

    Raises:
        InvalidParameter: they depend on each other in a circle (code DEPENDENCY_CYCLE).
    """
    waiting = {spec.name: spec for spec in specs}
    found: list[AgentSpec] = []
    while waiting:
        free = [spec for spec in waiting.values() if not any(name in waiting for name in spec.dependencies)]
        if not free:
            circle = " -> ".join(_circle(waiting))
            raise InvalidParameter(
                "dependencies", f"these wait for each other: {circle}", code="DEPENDENCY_CYCLE",
                hint="leave out one of these dependencies",
            )  # fmt: skip
        found += free
        for spec in free:
            del waiting[spec.name]
    return found


def links_of(spec: AgentSpec, url_of: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that tell an agent where its dependencies are: `AUTH_SERVICE=http://auth:8000` for each, and all
    of them in UPSTREAM_SERVICES. `url_of`: the URL of each agent that it depends on.

    Raises:
        NotFound: there is no such agent (code DEPENDENCY_NOT_FOUND).
    """
    links = {}
    for name in spec.dependencies:
        if name not in url_of:
            message = f"agent '{spec.name}': dependency '{name}' not found"
            raise NotFound(
                "dependency", name, message=message, hint="name an agent of the same file, or deploy it first"
            )
        variable = name.upper().replace("-", "_")
        links[f"{'_' if variable[0].isdigit() else ''}{variable}_SERVICE"] = url_of[name]
    if links:
        links[UPSTREAMS] = ",".join(url_of[name] for name in spec.dependencies)
    return links


def changes_of(agent: Agent, wanted: ResolvedSpec) -> tuple[Change, ...]:
    """Return what differs between an agent and what is wanted of it."""
    old, new = agent.spec, wanted.spec
    found: list[Change] = []
    for field in AgentSpec.__struct_fields__:
        before, after = getattr(old, field), getattr(new, field)
        if field == "image":
            found += _image_change(agent, wanted)
        elif field == "port":
            if agent.port != wanted.port and wanted.image_id:
                found.append(Change(field=field, before=agent.port, after=wanted.port, needs=Need.CONTAINER))
        elif before == after:
            continue
        elif field in ("env_vars", "labels"):
            found += _map_changes(field, before, after, old, new)
        elif field == "token":
            found.append(Change(field=field, before=before and MASK, after=after and MASK))
        else:
            needs = _need(field, before, after)
            found.append(Change(field=field, before=_json(before), after=_json(after), needs=needs))
    if agent.links != wanted.links:
        found += _map_changes("env_vars", agent.links, wanted.links, old, new)
    return tuple(found)


def step_of(agent: Agent | None, wanted: ResolvedSpec, *, start: bool) -> Step:
    """Return what has to be done to have an agent (None: there is none of that name) as it is wanted.

    Raises:
        Conflict: it belongs to another deployment (code OTHER_DEPLOYMENT).
    """
    spec = wanted.spec
    if agent is None:
        return _step(wanted, Verb.CREATE, starts=start)
    if agent.spec.deployment not in ("", spec.deployment):
        raise Conflict(
            f"agent '{agent.name}' belongs to deployment '{agent.spec.deployment}', not '{spec.deployment}'",
            code="OTHER_DEPLOYMENT",
            hint=f"give it another name, or remove that one first: agentainerctl remove {agent.name}",
        )
    changes = changes_of(agent, wanted)
    starts = start and needs_start(agent)
    if any(change.needs is Need.CONTAINER for change in changes):
        return _step(wanted, Verb.REPLACE, changes, starts=starts)
    if changes:
        return _step(wanted, Verb.UPDATE, changes, starts=starts)
    return _step(wanted, Verb.START if starts else Verb.KEEP, starts=starts)


def needs_start(agent: Agent) -> bool:
    """Return whether one of its replicas neither runs nor will by itself: a restart is waited for, or a request wakes it."""
    return not agent.is_idle and any(
        replica.state is not AgentState.RUNNING and not replica.next_restart_at for replica in agent.replicas
    )


def removals(agents: Sequence[Agent], wish: Wish) -> list[Step]:
    """Return the removal of each agent that belongs to one of the deployments and is in none of them, dependents first."""
    names = {deployment.name for deployment in wish.deployments}
    wanted = {spec.name for deployment in wish.deployments for spec in deployment.agents}
    gone = [agent.spec for agent in agents if agent.spec.deployment in names and agent.name not in wanted]
    return [
        Step(
            agent=spec.name,
            deployment=spec.deployment,
            verb=Verb.REMOVE,
            image=spec.image,
            dependencies=spec.dependencies,
        )
        for spec in reversed(in_order(gone))
    ]


def _check_deployment(deployment: Deployment) -> None:
    check_name(deployment.name, "deployment")
    if not deployment.agents:
        raise InvalidParameter("agents", f"deployment '{deployment.name}': at least one agent must be specified")
    texts = (deployment.description, *deployment.labels, *deployment.labels.values())
    if any(len(text) > MAX_TEXT_CHARS or "\0" in text for text in texts):
        raise InvalidParameter(
            "deployments", f"'{deployment.name}': a text is longer than {MAX_TEXT_CHARS} characters, or has a NUL"
        )


def _checked(spec: AgentSpec, deployment: str) -> AgentSpec:
    if spec.deployment not in ("", deployment):
        raise InvalidParameter("deployment", f"'{spec.name}' is in '{deployment}', and says '{spec.deployment}'")
    masked = [name for name, value in spec.env_vars.items() if value == MASK and spec.is_secret(name)]
    if masked or spec.token == MASK:
        raise InvalidParameter(
            masked[0] if masked else "token", f"of '{spec.name}' is {MASK}: a value that is hidden can't be applied"
        )
    try:
        return validate(msgspec.structs.replace(spec, deployment=deployment))
    except InvalidParameter as error:
        where = f"{spec.name}.{error.field}" if spec.name else error.field
        raise InvalidParameter(where, error.reason, code=error.code, hint=error.hint) from error


def _check_replica_names(specs: Mapping[str, AgentSpec]) -> None:
    for spec in specs.values():
        for number in range(1, spec.replicas + 1 if spec.replicas > 1 else 1):
            if f"{spec.name}-{number}" in specs:
                raise InvalidParameter(
                    "replicas", f"replica {number} of '{spec.name}' is called like the agent '{spec.name}-{number}'"
                )


def _circle(waiting: Mapping[str, AgentSpec]) -> list[str]:
    """Return the names of a circle among agents each of which waits for another one of them, the first one at both ends."""
    name = next(iter(waiting))
    way: list[str] = []
    while name not in way:
        way.append(name)
        name = next(other for other in waiting[name].dependencies if other in waiting)
    return [*way[way.index(name) :], name]


def _image_change(agent: Agent, wanted: ResolvedSpec) -> Iterator[Change]:
    before, after = agent.spec.image, wanted.spec.image
    if before != after:
        yield Change(field="image", before=before, after=after, needs=Need.CONTAINER)
    elif wanted.image_id and agent.image_id not in ("", wanted.image_id):
        shown = [f"{after} ({image_id.removeprefix('sha256:')[:12]})" for image_id in (agent.image_id, wanted.image_id)]
        yield Change(field="image", before=shown[0], after=shown[1], needs=Need.CONTAINER)


def _map_changes(
    field: str, before: Mapping[str, str], after: Mapping[str, str], old: AgentSpec, new: AgentSpec
) -> Iterator[Change]:
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        is_secret = field == "env_vars" and (old.is_secret(name) or new.is_secret(name))
        values = [MASK if is_secret and name in side else side.get(name) for side in (before, after)]
        yield Change(field=f"{field}.{name}", before=values[0], after=values[1], needs=Need.CONTAINER)


def _need(field: str, before: object, after: object) -> Need:
    """Return what a change of a field takes. A limit of memory that shrinks could kill the program that runs, and one that is
    taken away is none that the engine can change.
    """
    if field == "replicas":
        return Need.REPLICAS
    if field == "cpu_limit":
        return Need.LIMITS if after else Need.CONTAINER
    if field == "memory_limit":
        grows = isinstance(before, int) and isinstance(after, int) and 0 < before < after
        return Need.LIMITS if grows else Need.CONTAINER
    return Need.CONTAINER if field in CONTAINER_FIELDS else Need.NOTHING


def _json(value: object) -> Value:
    found: Value = msgspec.to_builtins(value)
    return found


def _step(wanted: ResolvedSpec, verb: Verb, changes: tuple[Change, ...] = (), *, starts: bool) -> Step:
    return Step(
        agent=wanted.spec.name,
        deployment=wanted.spec.deployment,
        verb=verb,
        image=wanted.spec.image,
        changes=changes,
        dependencies=wanted.spec.dependencies,
        starts=starts,
        stops_first=verb is Verb.REPLACE and wanted.spec.update_strategy is UpdateStrategy.RECREATE,
        lacks_image=not wanted.image_id,
    )
