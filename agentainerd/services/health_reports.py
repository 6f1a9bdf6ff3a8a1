"""What is known of the health of agents, as the API shows it: the fields of the original, and more of each replica."""

import msgspec

from agentainerd.errors import NotFound
from agentainerd.model.agents import Agent
from agentainerd.model.health import Health, HealthCheck, HealthState, worst
from agentainerd.model.replicas import AgentState, Replica
from agentainerd.proxy.routing import Route
from agentainerd.services.fleet import Fleet
from agentainerd.services.health import HealthMonitor
from agentainerd.services.views import Json, rfc3339


class HealthReports:
    """Reads only. `ref` is an id or a name."""

    def __init__(self, fleet: Fleet, monitor: HealthMonitor) -> None:
        self._fleet = fleet
        self._monitor = monitor

    def get(self, ref: str) -> Json:
        """Return the health of an agent.

        Raises:
            NotFound: no such agent; or nothing is asked of it, code HEALTH_NOT_FOUND.
        """
        agent = self._fleet.find(ref)
        if agent.spec.health_check is None:
            raise NotFound(
                "health",
                agent.name,
                message=f"No health data for agent '{agent.name}': it has no health check",
                hint="deploy it with --health-endpoint /health, or tcp",
            )
        return self._report(agent, agent.spec.health_check)

    def all(self) -> dict[str, Json]:
        """Return the health of every agent that has a health check, by id."""
        agents = self._fleet.store.all()
        return {agent.id: self._report(agent, check) for agent in agents if (check := agent.spec.health_check)}

    def state(self, agent: Agent, number: int) -> HealthState:
        """Return the health of one replica."""
        if agent.spec.health_check is None or agent.replica(number).state is not AgentState.RUNNING:
            return HealthState.NONE
        health = self._known(agent, number)
        return health.state if health else HealthState.STARTING

    def state_of(self, agent: Agent) -> HealthState:
        """Return what stands for all replicas: that of the one that is worst off."""
        return worst([self.state(agent, replica.number) for replica in agent.replicas])

    def _known(self, agent: Agent, number: int) -> Health | None:
        route: Route | None = self._fleet.route(agent.id)
        targets = [target for target in route.targets if target.number == number] if route else []
        return next((self._monitor.of(target) for target in targets if not target.is_retired), None)

    def _report(self, agent: Agent, check: HealthCheck) -> Json:
        state = self.state_of(agent)
        replicas = {replica.number: self._replica(agent, replica) for replica in agent.replicas}
        shown = next((each for each in replicas.values() if each["status"] == state.value), {})
        is_away = agent.state is not AgentState.RUNNING
        return {
            "agent_id": agent.id,
            "agent_name": agent.name,
            "status": state.value,
            "healthy": state is HealthState.HEALTHY,
            "failure_count": shown.get("failure_count", 0),
            "last_check": shown.get("last_check"),
            "latency_ms": shown.get("latency_ms", 0.0),
            "status_code": shown.get("status_code", 0),
            "message": f"agent is {agent.state}" if is_away else shown.get("message", ""),
            "check": {
                **msgspec.structs.asdict(check),
                "endpoint": "" if check.command else check.path or check.endpoint,
            },
            "replicas": list(replicas.values()),
        }

    def _replica(self, agent: Agent, replica: Replica) -> Json:
        state = self.state(agent, replica.number)
        health = self._known(agent, replica.number) if state is not HealthState.NONE else None
        last = health.last if health else None
        return {
            "replica": replica.number,
            "status": state.value,
            "healthy": state is HealthState.HEALTHY,
            "since": rfc3339(health.since) if health else None,
            "failure_count": health.failures if health else 0,
            "last_check": rfc3339(last.at) if last else None,
            "latency_ms": round(last.latency_s * 1000, 3) if last else 0.0,
            "status_code": last.status if last else 0,
            "message": last.message if last else "" if state is not HealthState.NONE else f"it is {replica.state}",
        }
