"""What a restore will do, decided and checked before it does anything."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import msgspec

from agentainerd.engine.engine import Engine
from agentainerd.errors import Conflict, NotFound
from agentainerd.model.agents import Agent, AgentSpec, validate
from agentainerd.model.backups import BackedAgent, Manifest
from agentainerd.services.backup_places import VolumePlan
from agentainerd.services.backup_volumes import VolumePlaces
from agentainerd.services.fleet import Fleet


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What is wanted: `agents` of the backup, by name or id (empty: all). `in_place`: over the agents and volumes that are
    there; else beside them. `passphrase`: that of the backup; "": without its secrets and requests.
    """

    agents: Sequence[str] = field(default=())
    in_place: bool = False
    passphrase: str = ""


@dataclass(frozen=True, slots=True)
class AgentPlan:
    """What becomes of one agent: `existing` gets the spec, or where that is None a new one is deployed."""

    backed: BackedAgent
    spec: AgentSpec
    existing: Agent | None


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """All of it; agents come after those that they depend on."""

    agents: list[AgentPlan]
    volumes: dict[int, VolumePlan]


class Planner:
    """Makes plans. Blocks its greenlet; changes nothing."""

    def __init__(self, places: VolumePlaces, fleet: Fleet, engine: Engine) -> None:
        self._places = places
        self._fleet = fleet
        self._engine = engine

    def plan(self, manifest: Manifest, options: RestoreOptions, mark: str) -> RestorePlan:
        """Decide names and places; `mark` is part of new ones where the old are taken.

        Raises:
            NotFound: an agent is not in the backup (code AGENT_NOT_IN_BACKUP), an image or a dependency is not here.
            Conflict: in place, and an agent runs (code AGENT_RUNNING). InvalidParameter: a spec that is none, a folder that
            agents may not have.
        """
        chosen = _in_order(_chosen(manifest, options.agents))
        for agent in chosen:
            validate(agent.spec)  # before anything in it is asked for: a backup may come from anywhere
        existing = {agent.id: self._existing(agent) if options.in_place else None for agent in chosen}
        names = {agent.spec.name: self._name(agent, existing[agent.id]) for agent in chosen}
        volumes = self._volumes(manifest, chosen, existing, mark)
        places = {plan.source.source: plan.destination for plan in volumes.values()}
        agents = [AgentPlan(agent, _spec(agent, names, places), existing[agent.id]) for agent in chosen]
        for plan in agents:
            self._check(plan, set(names.values()))
        for volume in volumes.values():
            self._places.check(volume.destination)
        return RestorePlan(agents, volumes)

    def users(self, plan: RestorePlan) -> list[Agent]:
        """Return the agents that are there and have something that will be overwritten."""
        live = {volume.destination for volume in plan.volumes.values() if not volume.is_new}
        wanted = {agent.existing.id for agent in plan.agents if agent.existing}
        return [
            agent
            for agent in self._fleet.store.all()
            if agent.id in wanted or live.intersection(volume.host_path for volume in agent.spec.volumes)
        ]

    def _existing(self, agent: BackedAgent) -> Agent | None:
        for ref in (agent.id, agent.spec.name):
            try:
                return self._fleet.find(ref)
            except NotFound:
                continue
        return None

    def _name(self, agent: BackedAgent, existing: Agent | None) -> str:
        if existing is not None:
            return existing.name
        base = agent.spec.name
        for number in count(0):
            name = base if not number else f"{base[:50]}-restored" + (f"-{number}" if number > 1 else "")
            if not self._is_taken(name):
                return name
        raise AssertionError("count does not end")

    def _is_taken(self, name: str) -> bool:
        try:
            self._fleet.store.find(name)
        except NotFound:
            return self._fleet.routes.find(name.encode()) is not None
        return True

    def _volumes(
        self, manifest: Manifest, chosen: list[BackedAgent], existing: dict[str, Agent | None], mark: str
    ) -> dict[int, VolumePlan]:
        plans: dict[int, VolumePlan] = {}
        taken = {volume.host_path for agent in self._fleet.store.all() for volume in agent.spec.volumes}
        for number, source in enumerate(manifest.volumes):
            users = [agent for agent in chosen if source.source in [each.host_path for each in agent.spec.volumes]]
            if not users:
                continue
            in_place = any(existing[agent.id] for agent in users)
            is_live = in_place and self._places.exists(source.source)
            destination = source.source if in_place else self._free(source.source, taken, mark)
            plans[number] = VolumePlan(number, source, destination, is_new=not is_live, image=users[0].spec.image)
        return plans

    def _free(self, source: str, taken: set[str], mark: str) -> str:
        """Return a place where nothing is, and that no agent has, be it empty: the old one, or one beside it."""
        place, attempts = source, count(1)
        while place in taken or self._places.has(place):
            number = next(attempts)
            place = f"{source.rstrip('/')}-restored-{mark}" + (f"-{number}" if number > 1 else "")
        return place

    def _check(self, plan: AgentPlan, names: set[str]) -> None:
        validate(plan.spec)
        self._engine.image(plan.spec.image)
        for name in plan.spec.dependencies:
            if name not in names:
                self._fleet.find(name)
        if plan.existing is not None:
            check_down(plan.existing)


def check_down(agent: Agent) -> None:
    """Check that an agent does not run and will not by itself. Raises Conflict (code AGENT_RUNNING)."""
    if agent.should_run or agent.is_idle or any(replica.is_alive for replica in agent.replicas):
        raise Conflict(
            f"'{agent.name}' is {agent.state.value}: data of an agent that runs is not written over",
            code="AGENT_RUNNING",
            hint=f"agentainerctl stop {agent.name}; or restore beside it: --as-new",
        )


def _chosen(manifest: Manifest, refs: Sequence[str]) -> list[BackedAgent]:
    if not refs:
        return list(manifest.agents)
    found: dict[str, BackedAgent] = {}
    for ref in refs:
        matching = [agent for agent in manifest.agents if ref in (agent.id, agent.spec.name)]
        if not matching:
            raise NotFound(
                "agent", ref, message=f"the backup has no agent '{ref}'", code="AGENT_NOT_IN_BACKUP",
                hint=f"agentainerctl backup show {manifest.id}",
            )  # fmt: skip
        found[matching[0].id] = matching[0]
    return list(found.values())


def _in_order(agents: list[BackedAgent]) -> list[BackedAgent]:
    """Return the agents, each after those that it depends on; where these form a circle, as they came."""
    ordered: list[BackedAgent] = []
    left = list(agents)
    while left:
        waiting = {agent.spec.name for agent in left}
        ready = [agent for agent in left if not waiting.intersection(agent.spec.dependencies)] or left
        ordered += ready
        left = [agent for agent in left if agent not in ready]
    return ordered


def _spec(agent: BackedAgent, names: dict[str, str], places: dict[str, str]) -> AgentSpec:
    """Return the spec under its new name, with its volumes where they will be."""
    name = names[agent.spec.name]
    return msgspec.structs.replace(
        agent.spec,
        name=name,
        deployment=agent.spec.deployment if name == agent.spec.name else "",
        dependencies=tuple(names.get(each, each) for each in agent.spec.dependencies),
        volumes=tuple(
            msgspec.structs.replace(volume, host_path=places.get(volume.host_path, volume.host_path))
            for volume in agent.spec.volumes
        ),
    )
