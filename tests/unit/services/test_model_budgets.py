"""What agents may spend, how often they may ask, and which provider is asked when one does not answer."""

import dataclasses
import json
import socket
import time
from collections import Counter
from contextlib import suppress

import gevent
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentainerd.model.providers import Price, Provider
from agentainerd.model.runs import Limits, Run, RunStatus
from agentainerd.services.model_budgets import Budget, BudgetReserved, BudgetUsedUp, ModelBudgets
from agentainerd.services.model_limits import RateLimits
from tests.fakes.model_worlds import USER, provider, text_of
from tests.fakes.models import KEY, MODEL, Faults, ModelServer, Turn

RUN = "X-Agentainer-Run-Id"
SESSION = "X-Agentainer-Session-Id"
ANSWER = Turn(text="ok", cost_usd=0.3, times=100)


def a_run(models, run_id: str, **fields) -> Run:
    return Run(
        id=run_id,
        agent_id=models.agent.id,
        agent="web",
        input="x",
        created_at=time.time(),
        **{"status": RunStatus.RUNNING, **fields},
    )


def with_runs(models, *runs: Run) -> None:
    """These are under way."""
    models.models.find_run = {run.id: run for run in runs}.__getitem__
    models.models.active_runs = lambda agent_id: [run for run in runs if run.agent_id == agent_id]


@pytest.mark.parametrize("budget", ["budget_agent_usd", "budget_day_usd"])
def test_a_budget_that_is_used_up_is_402_as_openai_says_it(make_models, budget):
    models = make_models(ANSWER, **{budget: 0.5})

    models.ask()
    models.ask()
    with pytest.raises(openai.APIStatusError) as refused:
        models.ask()

    assert refused.value.status_code == 402
    assert (refused.value.type, refused.value.code) == ("insufficient_quota", "budget_exceeded")
    assert "today" in refused.value.message
    assert len(models.server.received) == 2


def test_a_run_has_a_budget_and_a_limit_of_its_own_of_which_the_lower_counts(make_models):
    models = make_models(ANSWER, budget_run_usd=10.0)
    with_runs(models, a_run(models, "run-a", limits=Limits(cost_usd=0.2), session_id="s-1"), a_run(models, "run-b"))

    models.ask(extra_headers={RUN: "run-a"})
    with pytest.raises(openai.APIStatusError, match="run-a"):
        models.ask(extra_headers={RUN: "run-a"})
    models.ask(extra_headers={RUN: "run-b"})
    models.ask(extra_headers={RUN: "run-b", SESSION: "run-b"})  # what a run without a session calls its conversation
    with pytest.raises(openai.BadRequestError, match="none of this agent's"):
        models.ask(extra_headers={RUN: "run-a", SESSION: "s-2"})

    assert all(RUN.lower() not in each.headers for each in models.server.received)


def all_at_once(models, count, **options):
    """Ask that often at the same time; return how often each status was the answer's."""
    body = {"model": MODEL, "messages": [USER], **options}
    asked = [gevent.spawn(models.raw, "/chat/completions", body) for _ in range(count)]
    return Counter(each.get(timeout=20).status for each in asked)


@pytest.mark.parametrize(("known", "options"), [("price", {"max_tokens": 50_000}), ("cost", {})])
def test_of_fifty_calls_at_once_as_many_are_made_as_the_budget_has_room_for(make_models, known, options):
    price = Price(input=0.0, output=2.0)
    answer = Turn(text="ok", output_tokens=50_000, input_tokens=1, times=100, faults=Faults(first_token_s=0.05))
    if known == "cost":  # only the provider says it
        answer = dataclasses.replace(answer, cost_usd=0.1)
    with ModelServer([answer]) as server:
        prices = {MODEL: price} if known == "price" else {}
        models = make_models(providers=(provider(server, prices=prices),), budget_day_usd=1.0)

        statuses = all_at_once(models, 50, **options)

        assert statuses == {200: 10, 402: 40}
        assert len(server.received) == 10
        assert models.models.usage.of_today(models.agent.id)[1] == 1_000_000_000
        assert models.models.budgets.calls_under_way == 0


def test_answers_that_cost_less_than_they_might_leave_room_for_those_that_wait(make_models):
    answer = Turn(text="ok", output_tokens=10, input_tokens=1, times=100, faults=Faults(first_token_s=0.02))
    models = make_models(answer, budget_run_usd=0.5, budget_agent_usd=0.1)
    with_runs(models, a_run(models, "run-a"))

    assert all_at_once(models, 8, max_tokens=10_000) == {200: 8}  # 8 cents each, at most: one after the other
    assert models.models.budgets.calls_under_way == 0


def test_a_call_alone_is_made_whatever_it_may_cost(make_models):
    models = make_models(ANSWER, budget_day_usd=0.001)

    models.ask(max_tokens=1_000_000)

    assert all_at_once(models, 2) == {402: 2}


def test_one_that_waited_too_long_may_come_again(make_models, monkeypatch):
    monkeypatch.setattr(ModelBudgets.reserve, "__kwdefaults__", {"wait_s": 0.05})
    stalled = Turn(text="ok", faults=Faults(first_token_s=5), times=2)
    models = make_models(stalled, budget_day_usd=0.1)
    first = gevent.spawn(models.ask, max_tokens=10_000)
    while not models.models.budgets.calls_under_way:
        gevent.sleep(0.001)

    with pytest.raises(
        openai.RateLimitError, match="calls that are under way may use up today's budget of all agents"
    ) as refused:
        models.ask(max_tokens=10_000)

    assert refused.value.code == "budget_reserved"
    assert refused.value.response.headers["retry-after"] == "5"
    first.kill()


@pytest.mark.parametrize("when", ["while it waits", "before its answer", "in its answer"])
def test_what_a_client_that_left_had_reserved_is_free_again(make_models, eventually, when):
    slow = Turn(
        text="word " * 20,
        faults=Faults(first_token_s=0.3) if when == "before its answer" else Faults(pause_s=0.05),
        times=9,
    )
    models = make_models(slow, budget_day_usd=0.1)
    budgets = models.models.budgets
    body = json.dumps({"model": MODEL, "messages": [USER], "stream": True, "max_tokens": 10_000}).encode()

    def left_early(*, reads: bool):
        connection = socket.create_connection(models.address, timeout=10, source_address=(models.home, 0))
        head = f"POST /llm/v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {models.token}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        if reads:
            connection.recv(1000)
        return connection

    first = left_early(reads=when != "before its answer")
    eventually(lambda: budgets.calls_under_way == 1)
    second = left_early(reads=False) if when == "while it waits" else None
    if second:
        second.close()
    first.close()

    eventually(lambda: budgets.calls_under_way == 0)
    assert all_at_once(models, 1) == {200: 1}


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=30), st.integers(1, 100))
def test_a_budget_is_passed_by_one_call_and_by_what_was_estimated_too_low(calls, limit):
    """Each call is (what was estimated, what it costs); they end in any order, here the one that began first."""
    spent, budgets = [0], ModelBudgets(None)
    budget = Budget(("day", ""), limit / 1e9, lambda: spent[0], "it")
    under_way, too_low = [], 0

    def end():
        nonlocal too_low
        estimated, cost, reservation = under_way.pop(0)
        too_low += max(cost - estimated, 0)
        spent[0] += cost
        budgets.settle(reservation)

    for estimated, cost in calls:
        with suppress(BudgetReserved, BudgetUsedUp):
            under_way.append((estimated, cost, budgets.reserve([budget], estimated, wait_s=0)))
        if len(under_way) > 3:
            end()
    while under_way:
        end()

    assert spent[0] <= limit + too_low + max(estimated for estimated, _ in calls)
    assert budgets.calls_under_way == 0


def test_what_was_spent_is_known_after_a_restart(make_models, make_world, eventually):
    models = make_models(ANSWER, budget_agent_usd=0.2, budget_run_usd=0.2)
    with_runs(models, a_run(models, "run-a", session_id="s-1"))
    models.ask(extra_headers={RUN: "run-a"})
    eventually(lambda: models.spent())

    usage = make_world(models={"budget_agent_usd": 0.2}).services.models.usage

    assert usage.of_today(models.agent.id) == (300_000_000, 300_000_000)
    assert usage.of_run("run-a").cost_usd == 0.3
    assert usage.store.session("s-1").cost_usd == 0.3


def test_a_call_that_names_no_run_is_of_the_only_one_under_way(make_models, eventually):
    models = make_models(ANSWER)
    with_runs(models, a_run(models, "run-a"), a_run(models, "run-q", status=RunStatus.QUEUED))
    models.ask()
    eventually(lambda: models.models.usage.store.run("run-a").calls == 1)

    with_runs(models, a_run(models, "run-a"), a_run(models, "run-b"))
    models.ask()
    eventually(lambda: models.spent()[f"fake/{MODEL}"].calls == 2)

    assert models.models.usage.store.run("run-a").calls == 1


def test_a_run_of_another_agent_is_refused(make_models):
    models = make_models(ANSWER)
    other = a_run(models, "run-x")
    with_runs(
        models, Run(id="run-x", agent_id="agent-ffffffffffffffff", agent="x", input="", created_at=other.created_at)
    )

    with pytest.raises(openai.BadRequestError, match="none of this agent's"):
        models.ask(extra_headers={RUN: "run-x"})
    with pytest.raises(openai.BadRequestError, match="session 's-1' is none"):
        models.ask(extra_headers={SESSION: "s-1"})
    assert models.server.received == []


def test_too_many_calls_are_429_and_told_when_to_come_back(make_models):
    models = make_models(ANSWER, requests_per_minute=2)
    models.ask()
    models.ask()

    with pytest.raises(openai.RateLimitError) as refused:
        models.ask()

    assert 1 <= int(refused.value.response.headers["retry-after"]) <= 31


def test_tokens_of_a_call_count_for_those_after_it():
    now = 100.0
    limits = RateLimits(0, 600, lambda: now)

    assert limits.take_request("a") == 0.0
    limits.add_tokens("a", 1200)
    assert limits.take_request("a") == pytest.approx(60.1)
    assert limits.take_request("b") == 0.0
    now += 60.2
    assert limits.take_request("a") == 0.0


@pytest.mark.parametrize("status", [401, 404, 429, 500, 503, 529])
def test_the_next_model_of_a_list_is_asked_where_one_does_not_answer(make_models, status):
    with (
        ModelServer([Turn(faults=Faults(refusals=9, status=status))]) as broken,
        ModelServer([Turn(text="ok")]) as well,
    ):
        models = make_models(
            providers=(provider(broken, "broken"), provider(well, "well")),
            aliases=(("small", (f"broken/{MODEL}", f"well/{MODEL}")),),
        )

        assert text_of(models.stream(model="small")) == "ok"
        assert len(broken.received) == 1


def test_a_provider_that_is_not_there_is_passed_over_and_the_only_one_is_named(make_models):
    with ModelServer([Turn(text="ok", times=2)]) as well:
        gone = Provider("gone", "http://127.0.0.1:1/v1", "sk-gone", models=(MODEL,))
        models = make_models(
            providers=(gone, provider(well, "well")), aliases=(("small", (f"gone/{MODEL}", f"well/{MODEL}")),)
        )

        models.ask("ok", model="small")
        (target,) = [each for name, each in models.models._targets.items() if name == "gone"]
        assert (target.is_resting, target.refusals) == (True, 1)
        models.ask("ok", model="small")
        assert target.refusals == 1  # the others come first for a while
        with pytest.raises(openai.InternalServerError, match=f"gone/{MODEL} can't be reached") as refused:
            models.ask(model=f"gone/{MODEL}")

    assert refused.value.status_code == 502
    assert "sk-gone" not in refused.value.message


def test_what_a_provider_says_of_a_request_is_passed_on_as_it_is(make_models):
    models = make_models(Turn(faults=Faults(refusals=1, retry_after_s=7)))

    with pytest.raises(openai.RateLimitError, match="try again later") as refused:
        models.ask()
    with pytest.raises(openai.BadRequestError, match="alternate"):
        models.ask(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])

    assert refused.value.response.headers["retry-after"] == "7"


def test_a_key_that_the_provider_refuses_is_the_administrators_affair(make_models):
    with ModelServer([ANSWER]) as server:
        models = make_models(providers=(Provider("fake", server.base_url, KEY + "x", models=(MODEL,)),))

        with pytest.raises(openai.InternalServerError, match="does not take the key") as refused:
            models.ask()

    assert refused.value.code == "provider_key_refused"
    assert "sk-" not in str(refused.value.body)


def test_a_stream_that_breaks_off_is_not_a_whole_one_and_its_tokens_are_estimated(make_models, eventually):
    models = make_models(Turn(text="one two three", faults=Faults(cut_after=2, reset=True)))

    with pytest.raises((openai.APIConnectionError, openai.APIError)):
        models.stream()

    eventually(lambda: models.spent())
    usage = models.spent()[f"fake/{MODEL}"]
    assert (usage.failed, usage.estimated) == (1, 1)
    assert usage.input_tokens > 0
    assert usage.output_tokens > 0


def test_who_leaves_in_the_middle_pays_for_what_came_and_the_provider_is_left_too(make_models, eventually):
    models = make_models(Turn(text="word " * 50, faults=Faults(pause_s=0.02)))

    with models.client() as client:
        chunks = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "x" * 400}], stream=True
        )
        for _, _ in zip(range(5), chunks, strict=False):
            pass
        chunks.close()

    eventually(lambda: models.spent())
    usage = models.spent()[f"fake/{MODEL}"]
    assert usage.estimated == 1
    assert usage.input_tokens >= 100
    assert usage.output_tokens >= 4
    eventually(lambda: models.server.left == 1)
