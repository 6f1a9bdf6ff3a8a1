"""Wake on request, on a real engine."""

import time

import pytest

from tests.system.test_agents_real import host  # noqa: F401 - a fixture

pytestmark = [pytest.mark.docker, pytest.mark.redis]


def test_an_idle_agent_is_stopped_and_the_next_request_starts_it_and_is_answered(host, docker_client, eventually):  # noqa: F811
    agent = host.up("web", idle_timeout_s=1)
    host.daemon.http("GET", "/agent/web/x")
    eventually(lambda: host.agent()["reason"] == "idle", limit_s=30)
    assert docker_client.inspect_container(agent["container_id"])["State"]["Status"] == "exited"
    assert "stopped (idle)" in host.ctl("list")[0]

    began = time.monotonic()
    status, _, _ = host.daemon.http("GET", "/agent/web/x")

    assert (status, time.monotonic() - began < 8) == (200, True)
    assert host.agent()["status"] == "running"


def test_beyond_the_hold_time_it_is_202_and_delivered_once_it_is_up(host, eventually):  # noqa: F811
    host.up("web", idle_timeout_s=1, hold_timeout_s=0)
    eventually(lambda: host.agent()["reason"] == "idle", limit_s=30)

    status, said, fields = host.daemon.http("POST", "/agent/web/x", b"later")

    assert status == 202
    eventually(lambda: host.daemon.http("GET", fields["location"])[1]["data"]["status"] == "completed", limit_s=30)
