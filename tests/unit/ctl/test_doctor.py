"""`doctor` as a process: what the daemon found, and what can be seen where there is none."""

import json

from agentainerd.version import VERSION

FOUND = [
    {"check": "engine", "level": "ok", "message": "Docker Engine 28", "hint": ""},
    {"check": "disk", "level": "warning", "message": "1 GB free\x1b[31m", "hint": "make room"},
    {"check": "redis", "level": "error", "message": "its last write failed", "hint": ""},
]


def test_findings_are_lines_with_what_to_do(tcp_api, run):
    tcp_api.on("GET", "/version", {"version": VERSION})
    tcp_api.on("GET", "/system/doctor", FOUND)

    result = run("doctor", env={"AGENTAINER_HOST": tcp_api.url})

    assert result.out.splitlines() == [
        f"✓ daemon  answers at {tcp_api.url} (from AGENTAINER_HOST)",
        "✓ engine  Docker Engine 28",
        "! disk    1 GB free\\x1b[31m",
        "          hint: make room",
        "✗ redis   its last write failed",
        "1 error, 1 warning.",
    ]
    assert result.code == 1


def test_quietly_only_what_is_wrong(tcp_api, run):
    tcp_api.on("GET", "/version", {"version": VERSION})
    tcp_api.on("GET", "/system/doctor", FOUND[:2])

    result = run("doctor", "-q", env={"AGENTAINER_HOST": tcp_api.url})

    assert result.out.splitlines() == ["! disk    1 GB free\\x1b[31m", "          hint: make room"]
    assert result.code == 0


def test_another_version_of_the_daemon_is_a_warning(tcp_api, run):
    tcp_api.on("GET", "/version", {"version": "99.0"})
    tcp_api.on("GET", "/system/doctor", FOUND[:1])

    found = json.loads(run("doctor", "-o", "json", env={"AGENTAINER_HOST": tcp_api.url}).out)

    assert (found[0]["level"], "it is 99.0" in found[0]["message"]) == ("warning", True)
    assert found[1] == FOUND[0]


def test_without_a_daemon_it_says_what_can_be_seen(run, tmp_path):
    result = run("doctor", "-o", "json", env={"AGENTAINER_HOST": f"unix://{tmp_path}/agentainer.sock"})

    found = {one["check"]: one for one in json.loads(result.out)}
    assert (found["daemon"]["level"], found["socket"]["level"]) == ("error", "error")
    assert "systemctl start agentainerd" in found["socket"]["hint"]
    assert {"port", "engine", "redis"} <= set(found)
    assert result.code == 5


def test_a_host_elsewhere_is_not_looked_for_here(run):
    result = run("doctor", "-o", "json", env={"AGENTAINER_HOST": "http://127.0.0.1:1"})

    assert [one["check"] for one in json.loads(result.out)] == ["daemon"]
    assert result.code == 5
