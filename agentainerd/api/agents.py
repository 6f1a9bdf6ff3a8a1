"""`/agents`: deploy, the verbs, the reads, and the log."""

from collections.abc import Iterator

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd import defaults
from agentainerd.api.exchange import NDJSON, ApiRequest, Query, answer, stream_bytes, stream_lines
from agentainerd.errors import InvalidParameter
from agentainerd.model.agents import Agent, AgentSpec, AgentState
from agentainerd.model.containers import LogPiece
from agentainerd.services.agents import AgentFilter
from agentainerd.services.log_merge import LogMerge, Told
from agentainerd.services.logs import LogOptions, LogReader, Notice
from agentainerd.services.runtime import RuntimeAgents
from agentainerd.services.services import Services

MAX_WAIT_S = 3600.0
MAX_GRACE_S = 3600.0
MAX_TAIL = 1_000_000


class Port(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The original's port mapping; only its container's side means something, as no port is published."""

    container_port: int
    host_port: int | str = 0
    protocol: str = ""


class DeployBody(AgentSpec, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What POST /agents takes: an `AgentSpec`, and the original's `ports`. A limit that is None was not given."""

    ports: tuple[Port, ...] = ()
    memory_limit: int = None  # type: ignore[assignment]  # a default is not checked, what is given is
    cpu_limit: int = None  # type: ignore[assignment]

    def spec(self, runtime: RuntimeAgents) -> AgentSpec:
        """Return it as a spec; `port` wins over the first of `ports`."""
        fields = {name: getattr(self, name) for name in AgentSpec.__struct_fields__}
        if self.memory_limit is None:
            fields["memory_limit"] = runtime.memory_limit(is_runtime=self.runtime)
        if self.cpu_limit is None:
            fields["cpu_limit"] = runtime.cpu_limit(is_runtime=self.runtime)
        if not self.port and self.ports:
            fields["port"] = self.ports[0].container_port
        return AgentSpec(**fields)


def deploy(request: ApiRequest, services: Services) -> Response:
    """POST /agents."""
    agent = services.agents.deploy(request.read_json(DeployBody).spec(services.runtime), request.actor)
    return answer("Agent deployed successfully", _public(services, agent), status=201)


def page(request: ApiRequest, services: Services) -> Response:
    """GET /agents."""
    query = Query(request, ("status", "name", "ephemeral", "limit", "cursor"), many=("label",))
    wanted = AgentFilter(_states(query), query.text("name"), query.pairs("label"), query.flag("ephemeral"))
    found, cursor = services.agents.page(
        wanted, limit=query.limit(defaults.MAX_PAGE_LIMIT), cursor=query.text("cursor")
    )
    return answer("Agents retrieved successfully", services.agents.public(found), next_cursor=cursor or None)


def get(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}."""
    Query(request, ())
    return answer("Agent retrieved successfully", _public(services, services.agents.get(ref)))


def start(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /agents/{ref}/start."""
    agent = services.agents.start(ref, request.actor, wait_s=_wait(request))
    return answer("Agent started successfully", _public(services, agent))


def stop(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /agents/{ref}/stop."""
    grace_s = Query(request, ("grace",)).seconds("grace", MAX_GRACE_S)
    agent = services.agents.stop(ref, request.actor, grace_s=grace_s)
    return answer("Agent stopped successfully", _public(services, agent))


def restart(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /agents/{ref}/restart."""
    agent = services.agents.restart(ref, request.actor, wait_s=_wait(request))
    return answer("Agent restarted successfully", _public(services, agent))


def pause(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /agents/{ref}/pause."""
    Query(request, ())
    agent = services.agents.pause(ref, request.actor)
    return answer("Agent paused successfully", _public(services, agent))


def resume(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /agents/{ref}/resume."""
    agent = services.agents.resume(ref, request.actor, wait_s=_wait(request))
    return answer("Agent resumed successfully", _public(services, agent))


def remove(request: ApiRequest, services: Services, ref: str) -> Response:
    """DELETE /agents/{ref}."""
    Query(request, ("force",)).flag("force")
    agent = services.agents.remove(ref, request.actor)
    return answer(
        f"Agent '{agent.name}' (ID: {agent.id}) removed successfully", {"agent_id": agent.id, "agent_name": agent.name}
    )


def logs(request: ApiRequest, services: Services, ref: str) -> Response:
    """GET /agents/{ref}/logs."""
    query = Query(request, ("follow", "tail", "since", "timestamps", "stream", "replica"))
    options = LogOptions(
        follow=query.flag("follow"),
        tail=query.integer("tail", 0, 0, MAX_TAIL) if query.text("tail") else None,
        since=query.moment("since"),
        timestamps=query.flag("timestamps"),
        stream=_stream(query.text("stream")),
        replica=query.integer("replica", 0, 0, defaults.MAX_REPLICAS),
    )
    reader = services.agents.logs(ref, options)
    if NDJSON in request.headers.get("Accept", ""):
        return stream_lines(reader, _lines(reader))
    return stream_bytes(reader, (piece.data for _, piece in _pieces(reader) if isinstance(piece, LogPiece)))


ROUTES = (
    Rule("/agents", methods=["POST"], endpoint=deploy),
    Rule("/agents", methods=["GET"], endpoint=page),
    Rule("/agents/<ref>", methods=["GET"], endpoint=get),
    Rule("/agents/<ref>", methods=["DELETE"], endpoint=remove),
    Rule("/agents/<ref>/start", methods=["POST"], endpoint=start),
    Rule("/agents/<ref>/stop", methods=["POST"], endpoint=stop),
    Rule("/agents/<ref>/restart", methods=["POST"], endpoint=restart),
    Rule("/agents/<ref>/pause", methods=["POST"], endpoint=pause),
    Rule("/agents/<ref>/resume", methods=["POST"], endpoint=resume),
    Rule("/agents/<ref>/logs", methods=["GET"], endpoint=logs),
)


def _public(services: Services, agent: Agent) -> object:
    return services.agents.public([agent])[0]


def _wait(request: ApiRequest) -> float | None:
    return Query(request, ("wait",)).seconds("wait", MAX_WAIT_S)


def _states(query: Query) -> tuple[AgentState, ...]:
    text = query.text("status")
    try:
        return tuple(AgentState(word) for word in text.split(",") if word)
    except ValueError:
        raise InvalidParameter("status", f"{text[:64]!r} is none of {', '.join(AgentState)}") from None


def _stream(text: str) -> str:
    if text not in ("", "stdout", "stderr"):
        raise InvalidParameter("stream", f"{text[:64]!r} is neither stdout nor stderr")
    return text


def _pieces(reader: LogReader | LogMerge) -> Iterator[tuple[int, LogPiece | Notice]]:
    """Return the pieces, each with the number of its replica; 0 where there is one only."""
    for item in reader:
        yield (item.replica, item.piece) if isinstance(item, Told) else (0, item)


def _lines(reader: LogReader | LogMerge) -> Iterator[dict[str, object]]:
    """Return the log as JSON lines; bytes that are no UTF-8 are kept as lone surrogates, so that nothing is lost."""
    for number, piece in _pieces(reader):
        replica = {"replica": number} if number else {}
        if isinstance(piece, Notice):
            yield {"notice": piece.text, **replica}
        else:
            yield {"stream": piece.stream, "data": piece.data.decode("utf-8", "surrogateescape"), **replica}
