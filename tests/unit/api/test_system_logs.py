"""`/system/logs` as its handler is."""

import json
import time

import pytest

from agentainerd.model.system_logs import stamp
from agentainerd.store.system_logs import LOG_FOLDER, Limits, LogWriter


@pytest.fixture
def client(world):
    writer = LogWriter(world.state_dir / LOG_FOLDER, Limits(10**6, 3600, 5))
    for number in range(150):
        entry = {
            "time": stamp(time.time()), "level": "error" if number == 149 else "info", "component": "store.journal",
            "message": str(number),
        }  # fmt: skip
        writer.write(json.dumps(entry, separators=(",", ":")).encode() + b"\n")
    writer.close()
    return world.client()


def messages(entries):
    return [entry["message"] for entry in entries]


def test_the_last_entries(client):
    assert messages(client.call("GET", "/system/logs")[1]["data"]) == list(map(str, range(50, 150)))
    assert messages(client.call("GET", "/system/logs?limit=2")[1]["data"]) == ["148", "149"]
    assert messages(client.call("GET", "/system/logs?level=warning")[1]["data"]) == ["149"]
    assert client.call("GET", "/system/logs?component=proxy,api&component=loops")[1]["data"] == []
    assert messages(client.call("GET", "/system/logs?since=1h&limit=1")[1]["data"]) == ["149"]


def test_all_since_a_time_are_lines(client):
    answered = client.get("/system/logs?since=1h", headers={"Accept": "application/x-ndjson"})

    assert messages(map(json.loads, answered.get_data().split(b"\n")[1:-1])) == list(map(str, range(150)))


@pytest.mark.parametrize(
    ("accept", "lead", "read"),
    [
        ("text/event-stream", b"id: ", lambda text: json.loads(text.split(b"data: ")[1])),
        ("application/x-ndjson", b"{", json.loads),
    ],
)
def test_streams(client, accept, lead, read):
    answered = client.get("/system/logs?follow=true&limit=1", headers={"Accept": accept}, buffered=False)

    first = next(piece for piece in answered.iter_encoded() if piece.startswith(lead))

    assert answered.mimetype == accept
    assert read(first)["message"] == "149"
    answered.close()


def test_a_stream_goes_on_from_the_last_entry_that_was_seen(client):
    last = client.call("GET", "/system/logs?limit=3")[1]["data"][0]
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last["time"]}
    answered = client.get("/system/logs", headers=headers, buffered=False)

    pieces = (piece for piece in answered.iter_encoded() if piece.startswith(b"id: "))
    seen = [json.loads(next(pieces).split(b"data: ")[1])["message"] for _ in range(3)]

    assert seen == ["147", "148", "149"]
    answered.close()
    assert client.call("GET", "/system/logs", headers={"Last-Event-ID": "x"})[0] == 400


@pytest.mark.parametrize("query", ["level=loud", "since=yesterday", "limit=0", "what=1"])
def test_what_can_never_be_right_is_400(client, query):
    assert client.call("GET", f"/system/logs?{query}")[0] == 400


def test_an_answer_has_the_id_that_the_log_has(client):
    assert client.get("/agents", headers={"X-Agentainer-Request-ID": "r-1"}).headers["X-Agentainer-Request-ID"] == "r-1"
    assert len(client.get("/agents").headers["X-Agentainer-Request-ID"]) == 36
    assert client.get("/agents", headers={"X-Agentainer-Request-ID": "a b"}).headers["X-Agentainer-Request-ID"] != "a b"
