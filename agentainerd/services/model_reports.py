"""What is told of models: which there are, and what they were used for."""

import time
from collections.abc import Iterable, Sequence
from enum import StrEnum

from agentainerd.errors import NotFound
from agentainerd.model.model_usage import NANO, Usage
from agentainerd.model.providers import Price
from agentainerd.services.fleet import Fleet
from agentainerd.services.model_usage import day_of
from agentainerd.services.models import ModelService
from agentainerd.store.model_usage import Spent


class By(StrEnum):
    """What the rows of a report are."""

    AGENT = "agent"
    DAY = "day"
    MODEL = "model"


class ModelReports:
    """Reads; may be called from any greenlet. Raises Unavailable where Redis is away."""

    def __init__(self, models: ModelService, fleet: Fleet) -> None:
        self._models = models
        self._fleet = fleet

    def models(self) -> list[dict[str, object]]:
        """Return what agents can ask for, the aliases first; of a provider that lists none, one row with `*`."""
        catalogue = self._models.catalogue
        rows: list[dict[str, object]] = []
        for name in catalogue.aliases:
            try:
                meant = [model.ref for model in catalogue.resolve(name)]
            except NotFound:
                meant = []
            rows.append({"name": name, "models": meant, "price": None})
        for provider in catalogue.providers.values():
            for model in provider.models or ("*",):
                price = _price(provider.prices.get(model))
                rows.append({"name": f"{provider.name}/{model}", "models": [], "price": price})
        return rows

    def usage(self, since: float, by: By, agent: str = "") -> dict[str, object]:
        """Return what was used from the day on that `since` (epoch seconds) lies in. `agent`: only of this one, by id or name.

        Raises:
            NotFound: there is no such agent, and nothing of one with this id.
        """
        spent = self._models.usage.since(since)
        if agent:
            agent_id = self._id_of(agent, spent)
            spent = [each for each in spent if each.agent_id == agent_id]
        rows = [
            {**self._named(by, key), **usage.public()} for key, usage in sorted(_sums(spent, by).items())
        ]  # fmt: skip
        total = _sum(each.usage for each in spent)
        return {"since": day_of(since), "by": by.value, "rows": rows, "total": total.public(), "today": self._today()}

    def of_run(self, run_id: str) -> dict[str, object]:
        """Return what the calls of a run used."""
        return self._models.usage.of_run(run_id).public()

    def of_session(self, session_id: str) -> dict[str, object]:
        """Return what the calls of a session used."""
        return self._models.usage.store.session(session_id).public()

    def totals(self) -> list[tuple[str, str, Usage]]:
        """Return what was used since this start, by name of the agent and model."""
        found = []
        for (agent_id, model), usage in self._models.usage.totals.items():
            if route := self._fleet.route(agent_id):
                found.append((route.name, model, usage))
        return sorted(found, key=lambda each: each[:2])

    def _today(self) -> dict[str, object]:
        """Return what all agents spent today, and what they may."""
        _, spent = self._models.usage.of_today("")
        return {
            "day": day_of(time.time()),
            "cost_usd": spent / NANO,
            "budget_usd": self._models.config.budget_day_usd or None,
        }

    def _named(self, by: By, key: str) -> dict[str, object]:
        if by is not By.AGENT:
            return {by.value: key}
        route = self._fleet.route(key)
        return {"agent_id": key, "agent": route.name if route else ""}

    def _id_of(self, agent: str, spent: Sequence[Spent]) -> str:
        if any(each.agent_id == agent for each in spent):
            return agent
        return self._fleet.find(agent).id


def _sums(spent: Iterable[Spent], by: By) -> dict[str, Usage]:
    sums: dict[str, Usage] = {}
    for each in spent:
        key = {By.AGENT: each.agent_id, By.DAY: each.day, By.MODEL: each.model}[by]
        sums[key] = sums.get(key, Usage()).plus(each.usage)
    return sums


def _sum(usages: Iterable[Usage]) -> Usage:
    total = Usage()
    for each in usages:
        total = total.plus(each)
    return total


def _price(price: Price | None) -> dict[str, object] | None:
    return {"input": price.input, "cached": price.cached, "output": price.output} if price else None
