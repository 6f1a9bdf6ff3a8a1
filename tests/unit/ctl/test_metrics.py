"""`metrics` as a process."""

import json

from tests.unit.ctl.fake_api import AGENT

USE = {
    "cpu": {"usage_percent": 12.34, "system_cpu": 10**15, "total_usage": 45_600_000_000},
    "memory": {"usage": 52_400_000, "limit": 536_870_912, "usage_percent": 9.76, "cache": 3_000_000},
    "network": {
        "rx_bytes": 1_200_000, "tx_bytes": 340_000, "rx_packets": 10, "tx_packets": 9,
        "rx_bytes_per_s": 2500.4, "tx_bytes_per_s": 80.0,
    },
    "disk": {"read_bytes": 4096, "write_bytes": 0, "read_bytes_per_s": 0.0, "write_bytes_per_s": 0.0},
    "pids": 5,
}  # fmt: skip
ONE = {
    "agent_id": AGENT["id"],
    "agent_name": "web",
    "container_id": "c0ffee",
    "status": "running",
    "timestamp": "2026-01-01T00:00:00.000Z",
    **USE,
    "restarts": 2,
    "containers": [{"replica": 1, "name": "agentainer-x", "container_id": "c0ffee", "restarts": 2, **USE}],
}
NOTHING = {part: dict.fromkeys(USE[part], 0) for part in ("cpu", "memory", "network", "disk")}
STOPPED = {**ONE, **NOTHING, "agent_name": "idle", "status": "stopped", "pids": 0, "restarts": 0, "containers": []}


def test_one_agent(api, run):
    api.on("GET", "/agents/web/metrics", ONE)

    lines = run("metrics", "web").out.splitlines()

    assert lines[0] == f"Agent:     web ({AGENT['id']})"
    assert lines[3:] == [
        "CPU:       12.3 % of one core; 45.6 s since its start",
        "Memory:    52.4 MB (9.8 % of 537 MB); page cache 3 MB",
        "Network:   received 1.2 MB (2.5 kB/s); sent 340 kB (80 B/s)",
        "Disk:      read 4.1 kB (0 B/s); written 0 B (0 B/s)",
        "Processes: 5",
        "Restarts:  2",
    ]


def test_replicas_are_in_a_table(api, run):
    part = ONE["containers"][0]
    api.on("GET", "/agents/web/metrics", {**ONE, "containers": [part, {**part, "replica": 2}]})

    said = run("metrics", "web").out

    assert "Status:    running, 2 containers" in said
    assert [line.split()[:3] for line in said.splitlines()[-2:]] == [
        ["replica", "1", "running"],
        ["replica", "2", "running"],
    ]


def test_all_agents_in_a_table(api, run):
    api.on("GET", "/metrics/agents", {"b": ONE, "a": STOPPED})

    head, first, second = run("metrics").out.splitlines()

    assert head.split()[:4] == ["NAME", "STATUS", "CPU", "MEMORY"]
    assert first.split() == ["idle", "stopped", *["-"] * 8, "0"]
    assert second.split()[:7] == ["web", "running", "12.3", "%", "52.4", "MB", "537"]


def test_none_at_all(api, run):
    api.on("GET", "/metrics/agents", {})

    assert run("metrics") == (0, "No agents found\n", "")


def test_json_is_what_the_api_says(api, run):
    api.on("GET", "/agents/web/metrics", ONE)
    api.on("GET", "/metrics/agents", {AGENT["id"]: ONE})

    assert json.loads(run("metrics", "-o", "json", "web").out) == ONE
    assert json.loads(run("metrics", "--json").out) == {AGENT["id"]: ONE}
    assert run("metrics", "-q").out == f"{AGENT['id']}\n"


def test_an_unknown_agent_is_exit_3(api, run):
    api.on("GET", "/agents", [])

    assert run("metrics", "nobody").code == 3
