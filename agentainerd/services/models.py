"""The models that agents reach through the daemon: who may ask, which provider is asked and how, and what that cost.

The data plane carries the bytes (proxy/model_exchange.py) and knows nothing of this. A provider's key is in no answer, message
or log: it leaves here in the head of the request to the provider only.
"""

import logging
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

import gevent
import msgspec

from agentainerd.config import ModelsConfig
from agentainerd.errors import NotFound, Unavailable
from agentainerd.model.agents import Agent
from agentainerd.model.model_usage import usage_of
from agentainerd.model.providers import Catalogue, Model, Provider
from agentainerd.model.runs import Run, RunStatus
from agentainerd.model.runs import Usage as RunUsage
from agentainerd.model.sessions import Session
from agentainerd.proxy.model_gate import ModelAsk, ModelCall, ModelReply, ModelWay, refusal
from agentainerd.proxy.providers import ProviderTarget
from agentainerd.services.fleet import Fleet
from agentainerd.services.model_budgets import BudgetReserved, BudgetUsedUp, ModelBudgets, Reservation
from agentainerd.services.model_limits import RateLimits
from agentainerd.services.model_recorder import ModelRecorder
from agentainerd.services.model_requests import PATHS, ModelRequest
from agentainerd.services.model_usage import ModelUsageService, day_of
from agentainerd.services.tokens import TokenService
from agentainerd.store.model_usage import Spent

log = logging.getLogger(__name__)

DEFAULT = "default"
"""The name of the model that the configuration says."""
BASE_URL_VARIABLE = "OPENAI_BASE_URL"
KEY_VARIABLE = "OPENAI_API_KEY"
MODEL_VARIABLE = "AGENT_MODEL"
RESERVED_RETRY_S = 5
NEW_CONTAINER_S = 1.0
"""An agent may ask before the engine's answer is here that says where its container is."""


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What is known of a call that was let pass; `body` only where exchanges are recorded."""

    agent_id: str
    agent: str
    models: dict[str, Model]
    run_id: str
    session_id: str
    path: str
    request_bytes: int
    body: bytes
    reservation: Reservation


class ModelService:
    """Every method may be called from any greenlet. `url`: where agents find the daemon.

    Attributes:
        usage: what was used. budgets: what may still be.
        find_run, find_session: return a run or session, or raise NotFound; may ask Redis.
        active_runs: returns the runs of an agent that are not over; memory only.
    """

    def __init__(
        self,
        config: ModelsConfig,
        fleet: Fleet,
        tokens: TokenService,
        usage: ModelUsageService,
        recorder: ModelRecorder,
        *,
        url: str,
    ) -> None:
        self.usage = usage
        self.budgets = ModelBudgets(usage)
        self._recorder = recorder
        self.find_run: Callable[[str], Run] = _no_run
        self.find_session: Callable[[str], Session] = _no_session
        self.active_runs: Callable[[str], list[Run]] = lambda agent_id: []
        self._fleet = fleet
        self._tokens = tokens
        self._url = url
        self._targets: dict[str, ProviderTarget] = {}
        self.use(config)

    def use(self, config: ModelsConfig) -> None:
        """Go by this configuration from now on; calls under way end as they began."""
        old = self._targets
        self.config = config
        aliases = dict(config.aliases)
        if config.default:
            aliases[DEFAULT] = (config.default,) if config.default != DEFAULT else aliases.get(DEFAULT, ())
        self.catalogue = Catalogue(config.providers, aliases)
        self._targets = {provider.name: _target(provider) for provider in config.providers}
        self._limits = RateLimits(config.requests_per_minute, config.tokens_per_minute)
        for target in old.values():
            target.drop_idle()

    def environment(self, agent: Agent) -> dict[str, str]:
        """Return what an agent that asks for a model finds in its environment; nothing where it brings a key of its own."""
        spec = agent.spec
        if not spec.model or KEY_VARIABLE in spec.env_vars:
            return {}
        return {
            BASE_URL_VARIABLE: f"{self._url}/llm/v1",
            KEY_VARIABLE: self._tokens.model_token(agent.id),
            MODEL_VARIABLE: spec.model,
        }

    def forget(self, agent_id: str) -> None:
        """An agent is gone."""
        self.usage.forget(agent_id)
        self._limits.forget(agent_id)

    def unreachable(self) -> dict[str, str]:
        """Return the providers that no connection can be opened to now, and why. Blocks, for a while with each of them."""
        found = {}
        for name, target in self._targets.items():
            try:
                target.connect().close()
            except OSError as error:
                found[name] = error.strerror or str(error)
        return found

    def used_by(self, run_id: str) -> RunUsage | None:
        """Return what the calls of a run used; None where it made none here, or that can't be known now."""
        try:
            used = self.usage.of_run(run_id)
        except Unavailable:
            return None
        if not used.calls:
            return None
        return RunUsage(
            used.input_tokens,
            used.output_tokens,
            used.cached_tokens,
            used.reasoning_tokens,
            used.cost_usd,
            "gateway" if used.cost_usd is not None else "",
        )

    # ---- for the data plane

    def ask(self, ask: ModelAsk) -> ModelCall | ModelReply:
        """Say what becomes of a call; see ModelGate.on_ask."""
        agent_id = self._tokens.agent_of_model_token(ask.token)
        route = self._fleet.route(agent_id) if agent_id else None
        if route is None:
            return self._refuse_token(ask, agent_id)
        if not self._is_at_home(agent_id, ask.peer):
            self._tokens.refuse_model_token(ask.peer, route.name)
            message = f"this token is good from the containers of '{route.name}' only, and this came from {ask.peer}"
            return refusal(401, message, "wrong_source", kind="authentication_error")
        self._fleet.touch(agent_id)
        try:
            return self._answer(ask, agent_id, route.name)
        except NotFound as error:
            message = f"{error.message} ({error.hint})" if error.hint else error.message
            return refusal(404, message, error.code.lower())
        except Unavailable as error:
            return refusal(
                503, error.message, error.code.lower(), kind="server_error", retry_after_s=error.retry_after_s or 2
            )

    def end(self, call: ModelCall) -> None:
        """Count what a call used; see ModelGate.on_end."""
        ticket = call.ticket
        assert isinstance(ticket, _Ticket)
        self._fleet.touch(ticket.agent_id)
        name = call.model
        model = ticket.models.get(name)
        is_answer = 200 <= call.status < 300
        usage, source = usage_of(
            call.usage if is_answer else b"",
            model.price if model else None,
            is_whole=call.is_whole and is_answer,
            request_bytes=ticket.request_bytes,
            events=call.events if is_answer else 0,
        )
        is_listed = model is not None and (model.name in model.provider.models or model.price is not None)
        if not is_answer and not is_listed:  # what no provider knows must not fill the store with its name
            name = f"{name.partition('/')[0] or 'none'}/?"
        spent = Spent(day_of(time.time()), ticket.agent_id, name, usage, ticket.run_id, ticket.session_id)
        self._limits.add_tokens(ticket.agent_id, usage.tokens)
        self.usage.add(spent)
        if is_answer:
            self.budgets.learn(name, usage.cost_nano)
        self.budgets.settle(ticket.reservation)
        self._recorder.keep(call, ticket.path, ticket.body)
        if not call.is_whole or not is_answer:
            log.info(
                "a call to a model failed",
                extra={"agent": ticket.agent, "model": name, "status": call.status, "reason": call.reason},
            )
        log.debug(
            "model called",
            extra={"agent": ticket.agent, "model": name, "tokens": usage.tokens, "cost_source": source.value},
        )

    # ---- who

    def _refuse_token(self, ask: ModelAsk, agent_id: str) -> ModelReply:
        if agent_id and not self._fleet.routes.complete:
            return refusal(503, "agentainerd is starting", "starting", kind="server_error", retry_after_s=1)
        wait_s = self._tokens.refuse_model_token(ask.peer, agent_id) if ask.token else 0
        if wait_s:
            return refusal(
                429, "too many wrong tokens came from this address", "too_many_failed_logins", retry_after_s=wait_s
            )
        message = "this is no token of an agent that runs here" if ask.token else "an agent's token is missing"
        return refusal(401, message, "invalid_api_key", kind="authentication_error")

    def _is_at_home(self, agent_id: str, peer: str) -> bool:
        """Whether this address is one of the agent's containers."""
        address = peer.removeprefix("::ffff:")
        end = time.monotonic() + NEW_CONTAINER_S
        while not self._fleet.is_container_of(agent_id, address):
            if time.monotonic() > end:
                return False
            gevent.sleep(0.05)
        return True

    def _work_of(self, ask: ModelAsk, agent_id: str) -> tuple[Run | None, str]:
        """Return the run and the session that a call is for: as it says, else the only run that its agent has under way.

        Raises:
            NotFound: what it says is none of this agent's.
        """
        if ask.run_id:
            run = self.find_run(ask.run_id)
            if run.agent_id != agent_id or ask.session_id not in ("", run.session_id or run.id):
                raise NotFound("run", ask.run_id)
            return run, run.session_id
        if ask.session_id and self.find_session(ask.session_id).agent_id != agent_id:
            raise NotFound("session", ask.session_id)
        waiting = (RunStatus.QUEUED, RunStatus.INPUT_REQUIRED)
        active = [run for run in self.active_runs(agent_id) if run.status not in waiting]
        if ask.session_id:
            active = [run for run in active if run.session_id == ask.session_id]
        if len(active) == 1:
            return active[0], active[0].session_id
        return None, ask.session_id

    # ---- what

    def _answer(self, ask: ModelAsk, agent_id: str, agent: str) -> ModelCall | ModelReply:
        path = unquote(ask.path.partition("?")[0].rstrip("/"))
        if ask.method == "GET" and (path == "/models" or path.startswith("/models/")):
            return self._list(path.removeprefix("/models").removeprefix("/"))
        if path not in PATHS or ask.method != "POST":
            return refusal(404, f"Invalid URL ({ask.method} /v1{path})", "unknown_url")
        try:
            request = ModelRequest(path, ask.body)
        except ValueError as error:
            return refusal(400, f"the body is not a request in JSON: {error}", "invalid_json")
        models = [] if self._recorder.is_playing else self._resolve(request.model or DEFAULT)
        try:
            run, session_id = self._work_of(ask, agent_id)
        except NotFound as error:
            return refusal(400, f"the {error.noun} '{error.ref}' is none of this agent's", f"{error.noun}_not_found")
        if (refused := self._over_rate(agent_id)) is not None:
            return refused
        call = ModelCall(self._ways(models, request))
        try:
            reservation = self.budgets.reserve(
                self.budgets.of(self.config, agent_id, run), self.budgets.estimate(models, request)
            )
        except BudgetUsedUp as error:
            return refusal(402, str(error), "budget_exceeded", kind="insufficient_quota")
        except BudgetReserved as error:
            return refusal(429, str(error), "budget_reserved", kind="rate_limit_error", retry_after_s=RESERVED_RETRY_S)
        known = {model.ref: model for model in models}
        body = ask.body if self._recorder.is_recording else b""
        call.ticket = _Ticket(
            agent_id, agent, known, run.id if run else "", session_id, path, len(ask.body), body, reservation
        )
        call.tape = [] if self._recorder.is_recording else None
        if self._recorder.is_playing:
            try:
                call.play = self._recorder.play(path, ask.body, hides_usage=request.hides_usage)
            except BaseException:  # whatever keeps it from being made: nothing tells of its end
                self.budgets.settle(reservation)
                raise
        return call

    def _ways(self, models: list[Model], request: ModelRequest) -> list[ModelWay]:
        """Return how these models are asked; those whose provider could not be reached lately come last."""
        targets = [(self._targets[model.provider.name], model) for model in models]
        return [request.way(model, target) for target, model in sorted(targets, key=lambda pair: pair[0].is_resting)]

    def _resolve(self, name: str) -> list[Model]:
        """Return what a name means. Raises NotFound."""
        if name == DEFAULT and not self.catalogue.aliases.get(DEFAULT):
            hint = "deploy it with --model, or set models.default (AGENT_MODEL in the daemon's environment)"
            raise NotFound("model", name, message="there is no default model", hint=hint)
        return self.catalogue.resolve(name)

    def _list(self, name: str) -> ModelReply:
        """Say which models there are, or that there is this one."""
        if name:
            self.catalogue.resolve(name)
            return ModelReply(200, msgspec.json.encode(self._described(name)))
        listed = [self._described(each) for each in self.catalogue.names()]
        return ModelReply(200, msgspec.json.encode({"object": "list", "data": listed}))

    def _described(self, name: str) -> dict[str, object]:
        owner = "agentainer" if name in self.catalogue.aliases else self.catalogue.resolve(name)[0].provider.name
        return {"id": name, "object": "model", "created": 0, "owned_by": owner}

    # ---- how much

    def _over_rate(self, agent_id: str) -> ModelReply | None:
        wait_s = self._limits.take_request(agent_id)
        if not wait_s:
            return None
        return refusal(
            429, "this agent asks models too often", "rate_limit_exceeded", kind="rate_limit_error",
            retry_after_s=int(wait_s) + 1,
        )  # fmt: skip


def _no_run(run_id: str) -> Run:
    raise NotFound("run", run_id)


def _no_session(session_id: str) -> Session:
    raise NotFound("session", session_id)


def _target(provider: Provider) -> ProviderTarget:
    host, port, is_secure = provider.place
    context = ssl.create_default_context(cafile=provider.ca_file or None) if is_secure else None
    return ProviderTarget(host, port, context)
