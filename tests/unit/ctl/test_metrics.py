"""`metrics` as a process."""

import json
import time
from datetime import UTC, datetime

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
REQUESTS = {
    "total": 0, "errors": 0, "outcomes": {"answered_2xx": 0, "queued": 0}, "in_flight": 0, "pending": 0, "pending_bytes": 0,
    "oldest_pending_s": 0.0, "dead_letters": 0, "latency_ms": {"count": 0, "mean": 0.0, "p50": 0.0, "p90": 0.0, "p99": 0.0},
    "replays": {"delivered": 0, "failed": 0, "retried": 0},
}  # fmt: skip
BUSY = {
    **REQUESTS, "total": 12, "errors": 1, "outcomes": {"answered_2xx": 10, "client_left": 2, "queued": 0}, "in_flight": 3,
    "pending": 4, "oldest_pending_s": 125.0, "dead_letters": 2,
    "latency_ms": {"count": 10, "mean": 1500.0, "p50": 12.34, "p90": 50.0, "p99": 99.9},
    "replays": {"delivered": 5, "failed": 0, "retried": 1},
}  # fmt: skip
ONE = {
    "agent_id": AGENT["id"],
    "agent_name": "web",
    "container_id": "c0ffee",
    "status": "running",
    "timestamp": "2026-01-01T00:00:00.000Z",
    **USE,
    "restarts": 2,
    "requests": REQUESTS,
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
        "Requests:  0",
    ]


def test_its_requests_queue_and_replays(api, run):
    api.on("GET", "/agents/web/metrics", {**ONE, "requests": BUSY})

    assert run("metrics", "web").out.splitlines()[9:] == [
        "Requests:  12: 10 answered 2xx, 2 client left",
        "In flight: 3",
        "Latency:   mean 1.5 s, half within 12.3 ms, 99 % within 99.9 ms",
        "Queue:     4 waiting, the oldest for 2 minutes",
        "Failed:    2 kept; see: agentainerctl requests",
        "Replays:   5 delivered, 1 retried",
    ]


def test_one_that_does_not_run_has_no_use(api, run):
    api.on("GET", "/agents/idle/metrics", STOPPED)

    assert run("metrics", "idle").out.splitlines()[1:] == ["Status:   stopped", "Restarts: 0", "Requests: 0"]


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


def test_a_narrow_terminal_goes_without_some_columns_and_a_pipe_without_none(api, run, run_on_terminal):
    api.on("GET", "/metrics/agents", {"b": ONE, "a": STOPPED})

    lines = run_on_terminal("metrics", columns=60, env={"NO_COLOR": "1"}).out.splitlines()

    assert all(len(line) <= 60 for line in lines)
    assert lines[0].split()[:4] == ["NAME", "STATUS", "CPU", "MEMORY"]
    assert "RESTARTS" not in lines[0]
    assert "RESTARTS" in run("metrics", env={"COLUMNS": "60"}).out


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


def point(ago_s, **changed):
    at = datetime.fromtimestamp(time.time() - ago_s, UTC).isoformat(timespec="milliseconds")
    return {
        "agent_id": AGENT["id"], "timestamp": at, **USE, "containers": 1.0, "pids": 5.0,
        "requests": {"per_s": 2.0, "errors_per_s": 0.0, "latency_ms": 31.5, "in_flight": 0.0, "pending": 0.0}, **changed,
    }  # fmt: skip


def history(*points):
    return {
        "agent_id": AGENT["id"], "agent_name": "web", "duration": "6h0m0s", "step": "1m0s", "metrics": list(points),
    }  # fmt: skip


def test_a_history_in_a_pipe_is_a_table(api, run):
    api.on("GET", "/agents/web/metrics/history", history(point(600), point(60)))

    head, first, _ = run("metrics", "web", "--history", "--duration", "6h", "--step", "1m").out.splitlines()

    assert head.split() == [
        "TIMESTAMP",
        "CPU",
        "MEMORY",
        "NET",
        "RX",
        "NET",
        "TX",
        "REQ/S",
        "ERR/S",
        "LATENCY",
        "QUEUE",
    ]
    assert first.split()[1:] == ["12.3", "%", "52.4", "MB", "2.5", "kB/s", "80", "B/s", "2.0", "0.0", "31.5", "ms", "0"]
    assert api.asked[-1].query == {"duration": ["21600.0"], "step": ["60.0"]}


def test_a_history_on_a_terminal_is_drawn(api, run_on_terminal):
    low = {**USE["cpu"], "usage_percent": 1.0}
    api.on("GET", "/agents/web/metrics/history", history(point(3000, cpu=low), point(10)))

    ran = run_on_terminal("metrics", "web", "-H", columns=80, env={"PYTHONIOENCODING": "utf-8"})

    lines = ran.out.splitlines()
    assert lines[0].startswith("web, the last 1 hour; a column is ")
    cpu = next(line for line in lines if line.startswith("CPU"))
    assert "▁" not in cpu[:11] and "█" in cpu and cpu.endswith("12.3 % (up to 12.3 %)")
    titles = [line.split("  ")[0] for line in lines[2:-1]]
    assert titles == ["CPU", "Memory", "Net in", "Net out", "Requests", "Latency"]
    assert all(len(line) <= 80 for line in lines)
    assert lines[-1].count(":") == 3


def test_a_history_that_is_empty_says_so(api, run):
    api.on("GET", "/agents/web/metrics/history", history())

    assert run("metrics", "web", "--history", "--duration", "2h").out == "Nothing is known of web in the last 2 hours\n"


def test_a_history_as_json_is_what_the_api_says(api, run):
    told = history(point(60))
    api.on("GET", "/agents/web/metrics/history", told)

    assert json.loads(run("metrics", "web", "-H", "-o", "json").out) == told


def test_a_history_of_all_agents_is_a_usage_error(api, run):
    ran = run("metrics", "--history")

    assert ran.code == 2
    assert "name it" in ran.err


def test_a_history_that_is_too_long_is_a_usage_error(api, run):
    ran = run("metrics", "web", "--history", "--duration", "2d")

    assert ran.code == 2
    assert "kept for 24h" in ran.err
