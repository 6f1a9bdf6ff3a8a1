"""Deployments: what has to be done to have agents as a file describes them, doing it, and describing them again.

`plan` changes nothing. `apply` does what `plan` says: agents side by side as far as their dependencies let them, replacements one
after the other. What an agent's failure leaves undone is told, not tried.
"""

import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.agents import MASK as MASK
from agentainerd.model.agents import Agent, AgentSpec, masked_env
from agentainerd.model.deployments import (
    Deployment,
    DeploymentRecord,
    Plan,
    ResolvedSpec,
    Wish,
    check,
    in_order,
    removals,
    step_of,
)
from agentainerd.services.applications import Application, Deeds
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.specs import SpecResolver
from agentainerd.store.agents import AgentStore
from agentainerd.store.deployments import DeploymentStore

log = logging.getLogger(__name__)

Spawn = Callable[..., object]


class DeploymentService:
    """Plans, applies and exports. One apply of a deployment at a time."""

    def __init__(
        self,
        store: DeploymentStore,
        agents: AgentStore,
        resolver: SpecResolver,
        deeds: Deeds,
        *,
        spawn: Spawn,
        audit: AuditService,
    ) -> None:
        self._store = store
        self._agents = agents
        self._resolver = resolver
        self._deeds = deeds
        self._spawn = spawn
        self._audit = audit
        self._under_way: set[str] = set()

    def plan(self, wish: Wish) -> Plan:
        """Return what has to be done, in order; nothing is changed.

        Raises:
            InvalidParameter: a spec, a folder that is not there, or a circle of dependencies. NotFound: a dependency.
            Conflict: an agent belongs to another deployment. Unavailable: engine or Redis.
        """
        return self._plan(wish, check(wish))

    def apply(self, wish: Wish, actor: Actor) -> Application:
        """Begin to do what `plan` says; the returned application tells how it goes on. Whoever got it closes it.

        Raises:
            as `plan`; NotFound: an image is not on the engine. Conflict: one of the deployments is being applied already
            (code DEPLOYMENT_BUSY). Nothing was changed then.
        """
        names = {deployment.name for deployment in wish.deployments}
        with self._audit.mutation(actor, "apply_deployment", ", ".join(sorted(names))):
            specs = check(wish)
            plan = self._plan(wish, specs)
            _require_images(plan)
            if names & self._under_way:
                raise Conflict(
                    f"deployment '{min(names & self._under_way)}' is being applied already", code="DEPLOYMENT_BUSY"
                )
            self._under_way |= names
            try:
                self._record(wish)
                return Application(
                    plan, specs, wish, actor, self._deeds, spawn=self._spawn, on_end=lambda: self._end(names)
                )
            except BaseException:
                self._end(names)
                raise

    def all(self) -> list[tuple[DeploymentRecord, list[Agent]]]:
        """Return all deployments that have agents, by name, each with them."""
        members: dict[str, list[Agent]] = {}
        for agent in self._agents.all():
            if agent.spec.deployment:
                members.setdefault(agent.spec.deployment, []).append(agent)
        records = {record.name: record for record in self._store.all()}
        return [(records.get(name, DeploymentRecord(name=name)), members[name]) for name in sorted(members)]

    def export(self, name: str) -> Deployment:
        """Return a deployment as `apply` takes it, dependencies first; secrets are masked, and named in `secrets`.

        Raises:
            NotFound: there is none of that name that has agents.
        """
        for record, agents in self.all():
            if record.name == name:
                specs = in_order([_exported(agent.spec) for agent in agents])
                return Deployment(name=name, description=record.description, labels=record.labels, agents=tuple(specs))
        raise NotFound("deployment", name, hint="agentainerctl deployments")

    def _plan(self, wish: Wish, specs: Sequence[AgentSpec]) -> Plan:
        agents = {agent.name: agent for agent in self._agents.all()}
        names = {deployment.name for deployment in wish.deployments}
        listed = {spec.name for spec in specs}
        known: dict[str, ResolvedSpec] = {}
        steps = []
        for spec in specs:
            _check_dependencies(spec, listed, agents, names)
            self._check_volumes(spec)
            known[spec.name] = self._resolver.foresee(spec, known)
            steps.append(step_of(agents.get(spec.name), known[spec.name], start=wish.start))
        gone = removals(list(agents.values()), wish)
        return Plan(
            steps=(*steps, *(gone if wish.prune else ())),
            stray=() if wish.prune else tuple(sorted(step.agent for step in gone)),
        )

    def _check_volumes(self, spec: AgentSpec) -> None:
        try:
            self._resolver.check_volumes(spec)
        except InvalidParameter as error:
            hint = error.hint
            missing = [each.host_path for each in spec.volumes if each.host_path in error.reason]
            if error.code == "VOLUME_SOURCE_MISSING" and missing:
                hint = f"mkdir -p {missing[0]}   (on the daemon's host)"
            raise InvalidParameter(f"{spec.name}.volumes", error.reason, code=error.code, hint=hint) from error

    def _record(self, wish: Wish) -> None:
        alive = {record.name for record, _ in self.all()}
        wanted = {deployment.name for deployment in wish.deployments}
        for record in self._store.all():
            if record.name not in alive | wanted:
                self._store.remove(record.name)
        for deployment in wish.deployments:
            self._store.put(
                DeploymentRecord(
                    name=deployment.name,
                    description=deployment.description,
                    labels=deployment.labels,
                    applied_at=time.time(),
                )
            )

    def _end(self, names: set[str]) -> None:
        self._under_way -= names


def _check_dependencies(spec: AgentSpec, listed: set[str], agents: dict[str, Agent], names: set[str]) -> None:
    """An agent that is not in the file may be depended on, but not one that the file no longer names."""
    for name in spec.dependencies:
        if name in listed:
            continue
        if name not in agents:
            hint = "name an agent of the same file, or deploy it first"
        elif agents[name].spec.deployment in names:
            hint = f"it belongs to deployment '{agents[name].spec.deployment}', whose file does not name it any more"
        else:
            continue
        raise NotFound("dependency", name, message=f"agent '{spec.name}': dependency '{name}' not found", hint=hint)


def _require_images(plan: Plan) -> None:
    for step in plan.steps:
        if step.lacks_image:
            message = (
                f"agent '{step.agent}': docker image '{step.image}' not found. Please build or pull the image first"
            )
            raise NotFound("image", step.image, message=message, hint=f"docker pull {step.image}")


def _exported(spec: AgentSpec) -> AgentSpec:
    """Return a spec whose secrets are masked and listed."""
    hidden = tuple(name for name in spec.env_vars if spec.is_secret(name))
    return msgspec.structs.replace(
        spec, env_vars=masked_env(spec), secrets=hidden, token=spec.token and MASK, deployment=""
    )
