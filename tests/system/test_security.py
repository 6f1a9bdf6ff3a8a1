"""What a client on the network can do to a real daemon, and what it can't. Nothing here needs an engine."""

import json
import signal

import pytest

from tests.fakes.daemons import DaemonProcess


@pytest.fixture
def daemon(start_daemon) -> DaemonProcess:
    return start_daemon(engine=False)


REBOUND = [("evil.example", None, "HOST_NOT_ALLOWED"), ("localhost", "http://evil.example", "ORIGIN_NOT_ALLOWED")]


def fields_of(daemon, host, origin) -> dict[str, str]:
    token = {"Authorization": f"Bearer {daemon.token}"}
    return {**token, "Host": host, **({"Origin": origin} if origin else {})}


@pytest.mark.parametrize(("host", "origin", "code"), REBOUND)
def test_a_page_that_had_its_name_rebound_does_not_reach_the_api(daemon, host, origin, code):
    status, said, _ = daemon.http("GET", "/agents", headers=fields_of(daemon, host, origin))

    assert (status, said["code"]) == (403, code)


@pytest.mark.xfail(strict=True, reason="the data plane does not ask proxy/origins.py yet")
@pytest.mark.parametrize(("host", "origin", "code"), REBOUND)
def test_a_page_that_had_its_name_rebound_does_not_reach_an_agent(daemon, host, origin, code):
    fields = fields_of(daemon, host, origin)
    del fields["Authorization"]

    status, said, _ = daemon.http("GET", "/agent/web/", headers=fields)

    assert (status, said["code"]) == (403, code)


def test_names_that_are_allowed_are_taken_at_once_after_a_reload(daemon, eventually):
    fields = fields_of(daemon, "agents.example.com", "https://app.example.com")
    assert daemon.http("GET", "/agents", headers=fields)[0] == 403
    (daemon.folder / "config.yaml").write_text(
        'server:\n  allowed_hosts: ["*.example.com"]\n  allowed_origins: ["https://app.example.com"]\n'
    )

    daemon.signal(signal.SIGHUP)

    eventually(lambda: daemon.http("GET", "/agents", headers=fields)[0] == 200)
    other = fields_of(daemon, "agents.example.com", "https://other.example.net")
    assert daemon.http("GET", "/agents", headers=other)[1]["code"] == "ORIGIN_NOT_ALLOWED"


def test_probes_of_health_are_answered_under_any_name(daemon):
    assert daemon.http("GET", "/livez", headers={"Host": "evil.example"})[0] == 200


@pytest.mark.xfail(
    strict=True, reason="the data plane compares texts, and not addresses with networks (proxy/peers.py)"
)
def test_the_client_behind_a_trusted_proxy_is_the_one_that_is_told_of(start_daemon):
    daemon = start_daemon(engine=False, config="server:\n  trusted_proxies: [127.0.0.0/8]\n")

    daemon.http("GET", "/agents", headers={"Authorization": "Bearer wrong", "X-Forwarded-For": "203.0.113.5"})

    lines = [json.loads(line) for line in (daemon.state_dir / "audit.log").read_text().splitlines()]
    assert [line["source"] for line in lines if line["action"] == "log_in"] == ["203.0.113.5"]
