"""Which pages may use the API, and what they are told."""

import pytest

from agentainerd.api.access import AccessOptions, Door
from agentainerd.proxy.origins import Names, Origins
from tests.fakes.world import ApiClient, App

PAGE = "https://app.example.com"
OURS = {"Host": "localhost:8081", "Origin": PAGE}


@pytest.fixture
def gateway(world):
    options = AccessOptions(Origins(Names(origins=(PAGE,))).judge)
    return ApiClient(App(world.services, door=Door.GATEWAY, options=options), Door.GATEWAY)


@pytest.mark.parametrize(
    "path", ["/api/v1/agents", "/api/v1/runs/none/events", "/api/agents/web/start", "/api/nothing"]
)
def test_a_page_of_ours_is_told_what_it_may_ask_without_a_token(gateway, path):
    answer = gateway.open(path, method="OPTIONS", headers=OURS)

    assert (answer.status_code, answer.get_data()) == (204, b"")
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, POST, PUT, DELETE, OPTIONS"
    assert answer.headers["Access-Control-Allow-Headers"].startswith("Content-Type, Authorization")
    assert "Origin" in answer.headers["Vary"]


def test_what_is_no_page_is_told_too_and_given_no_origin(gateway):
    answer = gateway.open("/api/v1/agents", method="OPTIONS", headers={"Host": "localhost"})

    assert answer.status_code == 204
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_another_page_is_told_nothing(gateway):
    answer = gateway.open("/api/v1/agents", method="OPTIONS", headers={**OURS, "Origin": "https://evil.example"})

    assert (answer.status_code, answer.get_json()["code"]) == (403, "ORIGIN_NOT_ALLOWED")
    assert "Access-Control-Allow-Origin" not in answer.headers


def test_errors_can_be_read_by_the_page_too(gateway):
    answer = gateway.get("/api/v1/runs", headers=OURS)

    assert answer.status_code in (401, 404)
    assert ("Access-Control-Allow-Origin" in answer.headers) == (answer.status_code == 401)


def test_outside_of_the_prefix_pages_read_nothing(gateway):
    answer = gateway.get("/health", headers=OURS)
    refused = gateway.open("/agents", method="OPTIONS", headers=OURS)

    assert "Access-Control-Allow-Origin" not in answer.headers
    assert refused.status_code == 405
    assert "Access-Control-Allow-Origin" not in refused.headers
