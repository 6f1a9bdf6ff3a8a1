"""What calls to models may still cost: what was spent counts, and what those under way may cost, as far as that can be said.

A call that has a budget to itself is made as long as anything of it is left. More of them at once are made as far as their
estimates fit into it; the others wait until those end. So a budget is passed by one call at most, and by what answers cost more
than was estimated. Memory only, of one daemon: nothing can come between the look and the reservation.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gevent.event import Event

from agentainerd import defaults
from agentainerd.config import ModelsConfig
from agentainerd.model.model_usage import BYTES_PER_TOKEN, NANO
from agentainerd.model.providers import Model
from agentainerd.model.runs import Run
from agentainerd.services.model_requests import ModelRequest
from agentainerd.services.model_usage import ModelUsageService

_MAX_KNOWN = 1000


@dataclass(frozen=True, slots=True)
class Budget:
    """One that a call counts for. `spent` returns nanodollars, and may ask Redis the first time; `name`: as a message has it."""

    key: tuple[str, str]
    limit_usd: float
    spent: Callable[[], int]
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """What one call under way may cost, in nanodollars, of which budgets. None: anything, so nothing beside it has room."""

    keys: tuple[tuple[str, str], ...] = ()
    cost_nano: int | None = 0


class BudgetUsedUp(Exception):
    """Nothing more may be spent; the text says of what."""


class BudgetReserved(Exception):
    """Calls under way may use up what is left, and they did not end in time; the text says of what."""


class ModelBudgets:
    """Every method may be called from any greenlet."""

    def __init__(self, usage: ModelUsageService) -> None:
        self._usage = usage
        self._under_way: dict[tuple[str, str], list[Reservation]] = {}
        self._ended = Event()
        self._known: OrderedDict[str, int] = OrderedDict()

    def of(self, config: ModelsConfig, agent_id: str, run: Run | None) -> list[Budget]:
        """Return the budgets that a call of this agent, in this run, counts for."""
        usage, found = self._usage, []
        limits = [each for each in (config.budget_run_usd, run.limits.cost_usd if run else None) if each]
        if run and limits:
            run_id = run.id
            name = f"the budget of the run '{run_id}'"
            found.append(Budget(("run", run_id), min(limits), lambda: usage.of_run(run_id).cost_nano, name))
        if config.budget_agent_usd:
            name = "today's budget of this agent (until 00:00 UTC)"
            limit = config.budget_agent_usd
            found.append(Budget(("agent", agent_id), limit, lambda: usage.of_today(agent_id)[0], name))
        if config.budget_day_usd:
            name = "today's budget of all agents (until 00:00 UTC)"
            found.append(Budget(("day", ""), config.budget_day_usd, lambda: usage.of_today(agent_id)[1], name))
        return found

    def estimate(self, models: Sequence[Model], request: ModelRequest) -> int | None:
        """Return what the dearest of these models may make of a request, in nanodollars; None: nobody knows of one."""
        costs = [self._estimate(model, request) for model in models]
        return None if None in costs else max((each or 0 for each in costs), default=0)

    def reserve(
        self, budgets: Sequence[Budget], cost_nano: int | None, *, wait_s: float = defaults.MODEL_BUDGET_WAIT_S
    ) -> Reservation:
        """Have a call counted that is about to be made; it has to be settled when it ended. Blocks while there is no room.

        Raises:
            BudgetUsedUp, BudgetReserved: it may not be made. Unavailable: what was spent can't be known now.
        """
        end = time.monotonic() + wait_s
        while True:
            ended = self._ended
            for budget in budgets:
                budget.spent()  # what is not in memory is read here: from now on nothing blocks
            for budget in budgets:
                if budget.spent() >= budget.limit_usd * NANO:
                    raise BudgetUsedUp(f"{budget.name} is used up (${budget.limit_usd:g})")
            full = next((each for each in budgets if not self._has_room(each, cost_nano)), None)
            if full is None:
                return self._take(budgets, cost_nano)
            if not ended.wait(max(end - time.monotonic(), 0)) and time.monotonic() >= end:
                raise BudgetReserved(f"calls that are under way may use up {full.name} (${full.limit_usd:g})")

    def settle(self, reservation: Reservation) -> None:
        """A call ended: what it cost was counted before. Does not block."""
        for key in reservation.keys:
            others = self._under_way[key]
            others.remove(reservation)
            if not others:
                del self._under_way[key]
        if reservation.keys:
            self._ended.set()
            self._ended = Event()

    def learn(self, model: str, cost_nano: int) -> None:
        """An answer of a model (provider/model) cost this much; 0 where that can't be known."""
        self._known[model] = max(self._known.pop(model, 0), cost_nano)
        if len(self._known) > _MAX_KNOWN:
            self._known.popitem(last=False)

    @property
    def calls_under_way(self) -> int:
        """How many reservations there are."""
        return len({id(each) for several in self._under_way.values() for each in several})

    def _estimate(self, model: Model, request: ModelRequest) -> int | None:
        known = self._known.get(model.ref)
        if model.price is None:
            return known
        bound = request.max_output_tokens
        output_tokens = defaults.MODEL_OUTPUT_TOKENS if bound is None else bound
        cost_nano = round(model.price.cost_usd(request.size // BYTES_PER_TOKEN, 0, output_tokens) * NANO)
        return max(cost_nano, known or 0) if bound is None else cost_nano

    def _has_room(self, budget: Budget, cost_nano: int | None) -> bool:
        others = self._under_way.get(budget.key)
        if not others:
            return True
        reserved = [each.cost_nano for each in others]
        if cost_nano is None or None in reserved:
            return False
        return budget.spent() + sum(each or 0 for each in reserved) + cost_nano <= budget.limit_usd * NANO

    def _take(self, budgets: Sequence[Budget], cost_nano: int | None) -> Reservation:
        reservation = Reservation(tuple(budget.key for budget in budgets), cost_nano)
        for key in reservation.keys:
            self._under_way.setdefault(key, []).append(reservation)
        return reservation
