"""The gateway to models as an agent sees it, with OpenAI's own client as the judge and a scripted provider behind it."""

import dataclasses

import openai
import pytest

from tests.fakes.model_worlds import USER, text_of
from tests.fakes.models import KEY, MODEL, Faults, Turn
from tests.fakes.world import ADMIN


def test_an_answer_comes_through_with_the_providers_key_and_nothing_of_ours(make_models):
    models = make_models(Turn(text="hi there"))

    answer = models.ask("hi there")

    (received,) = models.server.received
    assert answer.usage.total_tokens > 0
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.body["model"] == MODEL
    assert not {name for name in received.headers if name.startswith(("x-", "via", "cookie"))}


def test_a_stream_comes_event_by_event_and_is_counted_though_nobody_asked_for_its_usage(make_models, eventually):
    models = make_models(Turn(text="one two three", input_tokens=1000, output_tokens=100, cached_tokens=400))

    chunks = models.stream()

    assert text_of(chunks) == "one two three"
    assert all(chunk.choices for chunk in chunks)  # what was asked for on our behalf is kept from the client
    eventually(lambda: models.spent())
    usage = models.spent()[f"fake/{MODEL}"]
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.cached_tokens) == (1, 1000, 100, 400)
    assert usage.cost_usd == pytest.approx((600 * 2 + 400 * 1 + 100 * 8) / 1e6)


def test_who_asks_for_the_usage_gets_it(make_models):
    models = make_models(Turn(text="one", input_tokens=7, cost_usd=0.5))

    chunks = models.stream(stream_options={"include_usage": True})

    assert chunks[-1].usage.prompt_tokens == 7
    assert chunks[-1].choices == []


def test_events_are_passed_on_before_the_answer_is_over(make_models):
    models = make_models(Turn(text="one two", faults=Faults(stall_after=2, stall_s=30)))

    with models.client() as client:
        chunks = iter(client.chat.completions.create(model=MODEL, messages=[USER], stream=True))
        assert next(chunks).choices[0].delta.content == ""
        assert next(chunks).choices[0].delta.content == "one"


@pytest.mark.parametrize(
    "faults",
    [Faults(piece_bytes=1), Faults(newline="\r\n", piece_bytes=3), Faults(comments=True)],
    ids=["1", "crlf", "comments"],
)
def test_pieces_are_put_together_however_the_provider_cuts_them(make_models, eventually, faults: Faults):
    models = make_models(Turn(text="🌳 und Bäume", input_tokens=5, output_tokens=6, faults=faults))

    assert text_of(models.stream()) == "🌳 und Bäume"
    eventually(lambda: models.spent())
    assert models.spent()[f"fake/{MODEL}"].output_tokens == 6


def test_the_providers_own_figure_of_the_cost_beats_the_price_table(make_models, eventually):
    models = make_models(Turn(text="one", cost_usd=0.125))

    models.ask("one")

    eventually(lambda: models.spent())
    assert models.spent()[f"fake/{MODEL}"].cost_usd == 0.125


def test_responses_embeddings_and_the_list_of_models_are_served_too(make_models, eventually):
    models = make_models(Turn(text="hello there"), Turn(text="hello there"))

    with models.client() as client:
        whole = client.responses.create(model=MODEL, input="hi")
        events = list(client.responses.create(model=MODEL, input="hi", stream=True))
        vectors = client.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
        listed = [model.id for model in client.models.list()]
        one = client.models.retrieve(f"fake/{MODEL}")

    assert whole.output_text == "hello there"
    assert events[-1].response.usage.output_tokens > 0
    assert len(vectors.data) == 2
    assert listed == [one.id] == [f"fake/{MODEL}"]
    eventually(lambda: models.spent() and models.spent()[f"fake/{MODEL}"].calls == 3)
    assert models.spent()[f"fake/{MODEL}"].estimated == 0


def test_a_token_is_good_from_its_agents_container_only(make_models):
    models = make_models(Turn(text="hi"))
    body = {"model": MODEL, "messages": [USER]}

    elsewhere = models.raw("/chat/completions", body, source="127.0.0.9")
    wrong = models.raw(
        "/chat/completions",
        body,
        fields={"Authorization": f"Bearer {models.token[:-1]}{'y' if models.token.endswith('x') else 'x'}"},
    )
    missing = models.raw("/chat/completions", body, fields={"Authorization": "Basic x"})

    assert [elsewhere.status, wrong.status, missing.status] == [401, 401, 401]
    assert elsewhere.json["error"]["code"] == "wrong_source"
    assert models.server.received == []
    assert models.raw("/chat/completions", body).status == 200


def test_a_model_that_nobody_serves_and_a_body_that_is_none_are_told_in_openais_form(make_models):
    models = make_models()

    with pytest.raises(openai.NotFoundError, match="there are: fake/fake-1"):
        models.ask(model="other")
    with pytest.raises(openai.NotFoundError, match="Invalid URL"), models.client() as client:
        client.images.generate(model=MODEL, prompt="a tree")
    assert models.raw("/chat/completions", ["no", "object"]).json["error"]["code"] == "invalid_json"
    assert models.raw("/chat/completions", {"model": 7}).status == 400
    deep = f'{{"model":"x","messages":{"[" * 100_000}{"]" * 100_000}}}'.encode()
    for body in (deep, b'{"model":"\xff"}', b"", b"{"):
        assert models.raw("/chat/completions", body).json["error"]["code"] == "invalid_json"


def test_an_agent_that_asks_for_a_model_finds_it_in_its_environment_and_no_key(make_models):
    models = make_models()
    environment = models.models.environment(models.agent)

    assert environment == {
        "OPENAI_BASE_URL": "http://host.docker.internal:8081/llm/v1",
        "OPENAI_API_KEY": models.token,
        "AGENT_MODEL": f"fake/{MODEL}",
    }
    own = models.world.deploy("own", model=MODEL, env_vars={"OPENAI_API_KEY": "sk-mine"})
    assert models.models.environment(own) == {}
    assert models.models.environment(models.world.deploy("none")) == {}


def test_who_names_no_model_gets_the_one_of_the_configuration(make_models):
    models = make_models(Turn(text="ok", times=3), default=f"fake/{MODEL}")

    models.ask("ok", model="default")
    assert models.raw("/chat/completions", {"messages": [USER]}).status == 200
    assert [each.body["model"] for each in models.server.received] == [MODEL, MODEL]

    models.models.use(dataclasses.replace(models.models.config, default=""))
    with pytest.raises(openai.NotFoundError, match="no default model .*AGENT_MODEL"):
        models.ask(model="default")


def test_a_reload_takes_new_keys_and_providers(make_models):
    models = make_models(Turn(text="ok", times=2))
    models.ask("ok")
    (before,) = models.models.config.providers

    models.models.use(
        dataclasses.replace(models.models.config, providers=(dataclasses.replace(before, api_key="sk-new"),))
    )
    with pytest.raises(openai.InternalServerError, match="does not take the key"):
        models.ask()
    models.models.use(dataclasses.replace(models.models.config, providers=(before,)))

    models.ask("ok")
    assert [each.headers["authorization"] for each in models.server.received] == [
        f"Bearer {KEY}",
        "Bearer sk-new",
        f"Bearer {KEY}",
    ]


def test_an_agent_that_asks_a_model_is_not_idle(make_models):
    models = make_models(Turn(text="ok"))
    (target,) = models.world.route().targets
    target.used_at -= 1000.0
    assert models.world.route().idle_s() > 900

    models.ask("ok")

    assert models.world.route().idle_s() < 100


def test_an_agent_that_is_removed_can_not_ask_any_more(make_models):
    models = make_models(Turn(text="ok", times=2))
    models.ask("ok")
    home = models.home

    models.world.services.agents.remove(models.agent.id, ADMIN)

    assert models.raw("/chat/completions", {"model": MODEL, "messages": [USER]}, source=home).status == 401
    assert models.models.usage.totals == {}
