"""Exchanges are recorded as they came, without keys, and played again without any provider."""

import json

import openai
import pytest

from agentainerd.store.model_recordings import ModelRecordings, Recording
from tests.fakes.model_worlds import text_of
from tests.fakes.models import KEY, MODEL, Faults, Turn

USAGE = {"include_usage": True}


def test_what_was_recorded_is_played_as_it_came(make_models, tmp_path, eventually):
    folder = tmp_path / "exchanges"
    turns = [
        Turn(text="🌳 und Bäume", input_tokens=9, faults=Faults(piece_bytes=5)),
        Turn(text="second", cost_usd=0.5),
        Turn(text="whole"),
    ]
    models = make_models(*turns, record=str(folder))
    first, second = models.stream(stream_options=USAGE), models.stream(stream_options=USAGE)
    whole = models.ask("whole")
    eventually(lambda: len(list(folder.glob("*.json"))) == 3)
    models.close()

    played = make_models(replay=str(folder), providers=())

    assert [played.stream(stream_options=USAGE) for _ in range(3)] == [first, second, second]
    assert played.ask().model_dump() == whole.model_dump()
    eventually(lambda: played.spent()[f"fake/{MODEL}"].calls == 7)
    assert played.server.received == []


def test_the_files_have_no_key_and_no_token_and_are_the_owners(make_models, tmp_path, eventually):
    models = make_models(Turn(text="hi"), record=str(tmp_path / "exchanges"))
    models.stream()
    eventually(lambda: list((tmp_path / "exchanges").glob("*.json")))

    (file,) = (tmp_path / "exchanges").glob("*.json")
    text = file.read_text()

    assert KEY not in text
    assert models.token not in text
    assert file.stat().st_mode & 0o077 == 0
    assert json.loads(text)["request"]["messages"][0]["content"] == "hello"


def test_a_client_that_did_not_ask_for_usage_does_not_get_the_recorded_one(make_models, tmp_path, eventually):
    models = make_models(Turn(text="one two"), record=str(tmp_path))
    models.stream()
    eventually(lambda: list(tmp_path.glob("*-1.json")))
    models.close()

    played = make_models(replay=str(tmp_path))
    chunks = played.stream()

    assert text_of(chunks) == "one two"
    assert all(chunk.choices for chunk in chunks)


def test_what_was_not_recorded_is_not_found_and_what_broke_off_is_not_kept(make_models, tmp_path):
    models = make_models(Turn(text="one two", faults=Faults(cut_after=2, reset=True)), record=str(tmp_path))
    with pytest.raises((openai.APIConnectionError, openai.APIError)):
        models.stream()
    models.close()

    played = make_models(replay=str(tmp_path))

    with pytest.raises(openai.NotFoundError, match="no answer to this request"):
        played.stream()


def test_pieces_that_cut_a_character_come_back_as_they_were(tmp_path):
    cut = tuple((0.0, bytes([byte])) for byte in "🌳".encode())
    recordings = ModelRecordings(str(tmp_path))
    name = recordings.write(Recording("/chat/completions", {"b": 1, "a": [2]}, "fake/x", 200, "text/event-stream", cut))

    assert name.endswith("-1.json")
    assert ModelRecordings(str(tmp_path)).read("/chat/completions", {"a": [2], "b": 1}).pieces == cut
    assert ModelRecordings(str(tmp_path)).read("/responses", {"a": [2], "b": 1}) is None
    (tmp_path / name).write_text("{}")
    with pytest.raises(ValueError, match="no recording"):
        ModelRecordings(str(tmp_path)).read("/chat/completions", {"a": [2], "b": 1})
