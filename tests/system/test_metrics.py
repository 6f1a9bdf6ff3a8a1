"""Metrics of real agents through the real daemon: what they use, what the proxy counted, and a history that outlives both."""

import json
import os
import subprocess
import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

pytestmark = [pytest.mark.docker, pytest.mark.redis]
MANY = int(os.environ.get("SOAK_METRICS_AGENTS", "4"))
BURN = """
import http.server as h, threading, time
def burn():
    while True:
        until = time.perf_counter() + 0.03
        while time.perf_counter() < until:
            pass
        time.sleep(0.03)
threading.Thread(target=burn, daemon=True).start()
h.ThreadingHTTPServer(("", 8000), h.SimpleHTTPRequestHandler).serve_forever()
"""


class Host:
    """A daemon with the real engine."""

    def __init__(self, daemon, image):
        self.daemon = daemon
        self.image = image

    def must(self, method, path, body=None):
        status, said = self.daemon.control(method, path, body)
        assert status < 300, said
        return said["data"]

    def up(self, name, **fields):
        self.must("POST", "/agents", {"name": name, "image": self.image, **fields})
        return self.must("POST", f"/agents/{name}/start?wait=30")

    def metrics(self, name):
        return self.must("GET", f"/agents/{name}/metrics")

    def ctl(self, *words):
        command = [sys.executable, "-m", "agentainerctl", "--host", f"unix://{self.daemon.control_socket}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


@pytest.fixture
def host(start_daemon, docker_sandbox, agent_image):
    yield Host(start_daemon(sandbox=docker_sandbox), agent_image)
    docker_sandbox.remove_containers()


def test_what_agents_use_and_do_is_measured_told_and_kept(
    host, start_daemon, docker_sandbox, docker_client, eventually
):
    busy = host.up("busy", command=["python3", "-u", "-c", BURN], memory_limit=128 * 1024 * 1024)
    host.up("pair", replicas=2)
    for _ in range(5):
        assert host.daemon.http("GET", "/agent/pair/x")[0] == 200
    host.must("POST", "/agents/pair/stop?grace=0")
    assert host.daemon.http("POST", "/agent/pair/later", b"x")[0] == 202

    def is_burning():
        used = host.must("GET", "/metrics/agents?max_age=1s")[busy["id"]]
        return used if used["cpu"]["total_usage"] > 500_000_000 and used["cpu"]["usage_percent"] > 1 else None

    used = eventually(is_burning, limit_s=30)
    assert used["memory"]["limit"] == 128 * 1024 * 1024
    assert 3_000_000 < used["memory"]["usage"] < used["memory"]["limit"]
    assert used["network"]["rx_bytes"] > 0
    stopped = host.metrics("pair")
    assert (stopped["containers"], stopped["requests"]["pending"]) == ([], 1)
    assert stopped["requests"]["outcomes"]["answered_2xx"] == 5
    assert stopped["requests"]["outcomes"]["queued"] == 1

    shown = host.ctl("top")
    assert shown.splitlines()[1].split()[:2] == ["busy", "running"]
    assert json.loads(host.ctl("metrics", "busy", "-o", "json"))["agent_id"] == busy["id"]

    assert host.daemon.http("GET", "/metrics")[0] == 401
    status, page, fields = host.daemon.http("GET", "/metrics", headers={"Authorization": f"Bearer {host.daemon.token}"})
    assert (status, fields["content-type"].partition(";")[0]) == (200, "text/plain")
    served = {
        (sample.name, sample.labels.get("agent"), sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(page["raw"])
        for sample in family.samples
    }
    assert served["agentainer_requests_total", "pair", "answered_2xx"] == 5
    assert served["agentainer_queue_requests", "pair", None] == 1
    assert served["agentainer_container_cpu_seconds_total", "busy", None] > 0

    def history():
        return host.must("GET", "/agents/busy/metrics/history")["metrics"]

    before = eventually(history, limit_s=30, what="the first round")
    assert host.daemon.stop() == 0
    host.daemon = start_daemon(like=host.daemon, sandbox=docker_sandbox)
    assert history()[: len(before)] == before
    assert host.metrics("pair")["requests"]["pending"] == 1


def test_a_round_over_many_agents_reads_them_all(host, eventually):
    for number in range(MANY):
        host.up(f"agent-number-{number}")

    def all_of_them():
        found = host.must("GET", "/metrics/agents?max_age=1s").values()
        return len(found) == MANY and all(each["memory"]["usage"] and each["pids"] for each in found)

    eventually(all_of_them, limit_s=30)
    eventually(lambda: host.must("GET", "/metrics/daemon")["metrics_round_ms"] > 0, limit_s=30)
