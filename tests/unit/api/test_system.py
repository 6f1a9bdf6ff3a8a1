"""Health, version and `/system` as their handlers are."""

import time
from datetime import datetime

import pytest

from agentainerd.api.access import Door
from agentainerd.services import system as module
from agentainerd.version import VERSION


@pytest.fixture
def client(world, monkeypatch):
    monkeypatch.setattr(module, "READINESS_TTL_S", 0.0)
    return world.client()


@pytest.mark.parametrize("path", ["/health", "/livez"])
def test_it_is_alive_whatever_is_missing(client, world, path):
    world.engine.go_down()

    assert client.call("GET", path)[1]["data"]["status"] == "ok"


@pytest.mark.parametrize("word", ["always", "everysec", "off"])
def test_health_says_what_a_202_is_worth(client, world, word):
    world.facts["durability"] = word

    assert client.call("GET", "/health")[1]["data"] == {"status": "ok", "durability": word}


def test_health_is_what_both_documents_have(client):
    said = client.call("GET", "/health")[1]

    assert said["success"] is True
    assert said["message"] == "Service is healthy"
    assert (said["status"], said["service"]) == ("healthy", "agentos")
    assert isinstance(said["time"], int)
    assert abs(said["time"] - time.time()) < 60
    assert said["uptime_seconds"] >= 0
    assert datetime.fromisoformat(said["instantiated_at"]).timestamp() <= time.time()


def test_it_is_ready_or_says_what_is_missing(client, world):
    assert client.call("GET", "/readyz")[1]["data"] == {"status": "ok"}
    assert client.call("GET", "/readyz?verbose")[1]["data"]["checks"]["engine"] == "ok"

    world.engine.go_down("the engine was stopped")

    status, said = client.call("GET", "/readyz")
    assert (status, said["code"], said["details"]) == (503, "NOT_READY", {"failing": ["engine"]})
    assert "stopped" in client.call("GET", "/readyz?verbose")[1]["details"]["checks"]["engine"]
    assert client.open("/readyz").headers["Retry-After"] == "5"


def test_who_asks_for_readiness_over_tcp_needs_no_token(world):
    assert world.client(Door.GATEWAY).call("GET", "/readyz")[0] == 200


@pytest.mark.parametrize(
    ("path", "field"),
    [("/version", "version"), ("/system/ping", "started_at"), ("/system/info", "agents"), ("/system/df", "spool")],
)
def test_the_rest_is_for_administrators(client, world, path, field):
    status, said = client.call("GET", path)
    assert status == 200
    assert field in said["data"]

    assert world.client(Door.GATEWAY).call("GET", path)[0] == 401


def test_the_version_is_the_programs(client):
    assert client.call("GET", "/version")[1]["data"] == {"version": VERSION}
