"""What a spec means on this host: which image that is, where its program listens, and where the agents are that it depends on."""

from collections.abc import Mapping

from agentainerd import defaults
from agentainerd.engine.engine import Engine
from agentainerd.errors import NotFound
from agentainerd.model import ports
from agentainerd.model.agents import AgentSpec
from agentainerd.model.bridges import labelled
from agentainerd.model.containers import Image
from agentainerd.model.deployments import ResolvedSpec, links_of
from agentainerd.services.volumes import VolumePolicy
from agentainerd.store.agents import AgentStore


class SpecResolver:
    """Stateless; asks the engine and the store. `url` is where agents find the daemon."""

    def __init__(self, engine: Engine, store: AgentStore, volumes: VolumePolicy, url: str) -> None:
        self._engine = engine
        self._store = store
        self._volumes = volumes
        self._url = url

    def resolve(self, spec: AgentSpec) -> ResolvedSpec:
        """Return a spec, which was validated, with its image's id, its port and the URLs of its dependencies, which exist.

        Raises:
            InvalidParameter: a volume. NotFound: the image, or a dependency (code DEPENDENCY_NOT_FOUND). Unavailable.
        """
        self._volumes.resolve(spec.volumes)
        image = self._engine.image(spec.image)
        return self._resolved(spec, image, {})

    def foresee(self, spec: AgentSpec, known: Mapping[str, ResolvedSpec]) -> ResolvedSpec:
        """The same for a plan: `known` has what will be made before it, and the image may be missing yet."""
        try:
            image = self._engine.image(spec.image)
        except NotFound:
            image = None
        return self._resolved(spec, image, known)

    def check_volumes(self, spec: AgentSpec) -> None:
        """Check what can only be said of volumes by looking at the file system. Raises InvalidParameter."""
        self._volumes.resolve(spec.volumes)

    def _resolved(self, spec: AgentSpec, image: Image | None, known: Mapping[str, ResolvedSpec]) -> ResolvedSpec:
        urls = {name: self._url_of(name, known) for name in spec.dependencies}
        return ResolvedSpec(
            spec=spec,
            image_id=image.id if image else "",
            port=_port(spec, image),
            links=links_of(spec, {name: url for name, url in urls.items() if url}),
            bridge=spec.bridge or (labelled(image.labels) if image else None),
            named_ports=spec.named_ports or (ports.labelled(image.labels) if image else {}),
        )

    def _url_of(self, name: str, known: Mapping[str, ResolvedSpec]) -> str:
        """Return where an agent is reached from others: directly; one that sleeps now and then through the daemon, which wakes
        it. "" where there is none.
        """
        if name in known:
            port, idle_timeout_s = known[name].port, known[name].spec.idle_timeout_s
        else:
            try:
                agent = self._store.find(name)
            except NotFound:
                return ""
            port, idle_timeout_s = agent.port, agent.spec.idle_timeout_s
        return f"{self._url}/agent/{name}" if idle_timeout_s else f"http://{name}:{port}"


def _port(spec: AgentSpec, image: Image | None) -> int:
    exposed = image.exposed if image else ()
    return spec.port or (exposed[0] if len(exposed) == 1 else defaults.AGENT_PORT)
