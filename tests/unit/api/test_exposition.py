"""`GET /metrics`, read as Prometheus reads it."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agentainerd.api.access import Door
from agentainerd.model.model_usage import Usage
from agentainerd.store.model_usage import Spent
from tests.fakes.world import ADMIN

OPENMETRICS = "application/openmetrics-text;version=1.0.0"


class Scrape:
    def __init__(self, world, accept=""):
        response = world.client().open("/metrics", headers={"Accept": accept})
        assert response.status_code == 200
        self.media_type = response.headers["Content-Type"]
        self.text = response.get_data(as_text=True)

    def samples(self):
        return [sample for family in text_string_to_metric_families(self.text) for sample in family.samples]

    def value(self, name, **labels):
        (found,) = [
            each.value for each in self.samples() if each.name == name and labels.items() <= each.labels.items()
        ]
        return found

    def names(self):
        return {each.name for each in self.samples()}


def test_agents_containers_requests_and_queues_are_there(world):
    agent = world.up()
    world.engine.use(agent.id, cpu_s=1.0, memory_bytes=5_000_000, rx_bytes=77, write_bytes=9)
    world.route().tally.answered(200, 0.02)
    world.route().tally.answered(200, 400.0)
    world.route().tally.queued = 3
    world.route().tally.retried = 2
    other = world.deploy("other")
    world.queue(other)

    scrape = Scrape(world)

    assert scrape.media_type.startswith("text/plain; version=0.0.4")
    container = {"agent": "web", "replica": "1"}
    assert scrape.value("agentainer_container_cpu_seconds_total", **container) == pytest.approx(1.01)
    assert scrape.value("agentainer_container_memory_working_set_bytes", **container) == 5_000_000
    assert scrape.value("agentainer_container_network_receive_bytes_total", **container) == 77
    assert scrape.value("agentainer_container_disk_written_bytes_total", **container) == 9
    assert scrape.value("agentainer_agent_state", agent="web", state="running") == 1
    assert scrape.value("agentainer_agent_state", agent="other", state="running") == 0
    assert scrape.value("agentainer_agent_ready", agent="web") == 1
    assert scrape.value("agentainer_requests_total", agent="web", outcome="answered_2xx") == 2
    assert scrape.value("agentainer_requests_total", agent="web", outcome="queued") == 3
    assert scrape.value("agentainer_replays_total", agent="web", result="retried") == 2
    assert scrape.value("agentainer_queue_requests", agent="other") == 1
    assert 0 <= scrape.value("agentainer_queue_oldest_seconds", agent="other") < 60
    assert scrape.value("agentainer_request_duration_seconds_count", agent="web") == 2
    assert scrape.value("agentainer_request_duration_seconds_bucket", agent="web", le="0.025") == 1
    assert scrape.value("agentainer_request_duration_seconds_bucket", agent="web", le="+Inf") == 2
    assert scrape.value("agentainer_request_duration_seconds_sum", agent="web") == pytest.approx(400.02)


def test_the_daemon_is_there(world):
    world.facts |= {"loop_lag": {"last_ms": 1.5, "largest_of_last_minute_ms": 20.0}, "connections": 7}
    world.supervisor.loop("duty", lambda now: 0, 1000.0)

    scrape = Scrape(world)

    assert scrape.value("agentainer_connections") == 7
    assert scrape.value("agentainer_loop_lag_seconds") == 0.0015
    assert scrape.value("agentainer_loop_lag_max_seconds") == 0.02
    assert scrape.value("agentainer_journal_available") == 1
    assert scrape.value("agentainer_journal_batch_seconds_count") >= 1
    assert scrape.value("agentainer_redis_memory_bytes") > 100_000
    assert scrape.value("process_open_fds") > 3
    assert scrape.value("process_resident_memory_bytes") > 10_000_000
    assert scrape.value("agentainer_loop_failures", loop="duty") == 0
    assert scrape.value("process_cpu_seconds_total") > 0


def test_openmetrics_for_those_who_prefer_it(world):
    world.up()

    scrape = Scrape(world, OPENMETRICS)

    assert scrape.media_type.startswith("application/openmetrics-text")
    assert scrape.text.endswith("# EOF\n")


def test_a_removed_agent_has_no_series_any_more(world):
    world.up()
    assert 'agent="web"' in Scrape(world).text

    world.services.agents.remove("web", ADMIN)

    assert 'agent="web"' not in Scrape(world).text


def test_while_redis_is_away_the_daemon_still_tells_of_itself(world, monkeypatch):
    from agentainerd.errors import Unavailable

    def away(*_):
        raise Unavailable("away", code="REDIS_UNAVAILABLE")

    world.up()
    for method in ("call", "run"):
        monkeypatch.setattr(world.redis, method, away)

    scrape = Scrape(world)

    assert scrape.value("agentainer_redis_up") == 0
    assert "agentainer_redis_memory_bytes" not in scrape.names()


def test_a_token_is_needed_over_tcp(world):
    assert world.client(Door.GATEWAY).open("/metrics").status_code == 401


def test_every_series_is_described(world):
    world.up()

    for family in text_string_to_metric_families(Scrape(world).text):
        assert family.documentation, family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name


def test_every_series_is_in_the_documentation(world):
    world.up()
    world.supervisor.loop("duty", lambda now: 0, 1000.0)
    world.services.models.usage.add(Spent("2026-11-21", world.agent().id, "openai/x", Usage(calls=1)))

    served = {re.sub(r"_(bucket|count|sum)$", "", name) for name in Scrape(world).names()}

    page = (Path(__file__).parents[3] / "docs/metrics.md").read_text()
    rows = re.findall(r"^\| (`(?:agentainer|process)_.*?) \|", page, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == served
