"""`/models` and `/usage`: what agents can ask for, and what they used, by agent, day, model, run and session."""

import time

from agentainerd.model.model_usage import Usage
from agentainerd.model.providers import Price, Provider
from agentainerd.services.model_usage import day_of
from agentainerd.store.model_usage import Spent

PROVIDERS = (
    Provider("openai", "https://api.openai.com/v1", "sk-1", models=("a", "b"), prices={"a": Price(1.0, 2.0)}),
    Provider("open", "http://127.0.0.1:1/v1"),
)
ALIASES = (("small", ("openai/a", "open/x")), ("lost", ("nobody/x",)))


def test_models_are_listed_with_what_aliases_stand_for_and_prices(make_world):
    client = make_world(models={"providers": PROVIDERS, "aliases": ALIASES}).client()

    _, envelope = client.call("GET", "/models")

    assert [row["name"] for row in envelope["data"]] == ["small", "lost", "openai/a", "openai/b", "open/*"]
    assert [row["models"] for row in envelope["data"]][:2] == [["openai/a", "open/x"], ["open/nobody/x"]]
    assert envelope["data"][2]["price"] == {"input": 1.0, "cached": None, "output": 2.0}
    assert "sk-1" not in str(envelope)


def test_usage_is_summed_by_agent_day_and_model(make_world, eventually):
    world = make_world(models={"budget_day_usd": 9.0})
    web = world.deploy("web").id
    today, before = day_of(time.time()), day_of(time.time() - 3 * 86400)
    usage = world.services.models.usage
    for spent in (
        Spent(today, web, "openai/a", Usage(1, 0, 100, 10, cost_nano=2_000_000_000), "run-1", "s-1"),
        Spent(today, web, "openai/b", Usage(1, 1, 50, 5, unpriced=1)),
        Spent(before, web, "openai/a", Usage(2, 0, 7, 3, cost_nano=500_000_000)),
        Spent(today, "agent-00000000000000ff", "openai/a", Usage(1, 0, 1, 1, cost_nano=1)),
    ):
        usage.add(spent)
    client = world.client()

    def ask(query: str = "") -> dict:
        status, envelope = client.call("GET", f"/usage{query}")
        assert status == 200
        return envelope["data"]

    eventually(lambda: ask()["total"]["calls"] == 5)

    by_agent = {row["agent_id"]: row for row in ask()["rows"]}
    assert (by_agent[web]["agent"], by_agent[web]["calls"], by_agent[web]["cost_usd"]) == ("web", 4, 2.5)
    assert by_agent["agent-00000000000000ff"]["agent"] == ""
    assert {row["model"]: row["input_tokens"] for row in ask("?by=model&agent=web")["rows"]} == {
        "openai/a": 107,
        "openai/b": 50,
    }
    assert [row["day"] for row in ask("?by=day")["rows"]] == [before, today]
    assert [row["day"] for row in ask("?by=day&since=1d")["rows"]] == [today]
    assert ask("?agent=agent-00000000000000ff")["total"]["calls"] == 1
    assert ask()["today"] == {"day": today, "cost_usd": 2.000000001, "budget_usd": 9.0}
    assert {row["model"]: row["cost_usd"] for row in ask("?by=model&since=1d")["rows"]}["openai/b"] is None


def test_what_is_asked_wrongly_is_told(make_world):
    client = make_world().client()

    assert client.call("GET", "/usage?by=hour")[0] == 400
    assert client.call("GET", "/usage?agent=nobody")[0] == 404
    assert client.call("GET", "/usage/runs/run-x")[0] == 404
    assert client.call("GET", "/usage/sessions/x")[0] == 404
    assert client.call("GET", "/usage")[1]["data"]["rows"] == []
