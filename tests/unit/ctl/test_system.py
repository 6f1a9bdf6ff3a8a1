"""`system`, `token`, `version` as processes."""

import json
import re

import pytest
import yaml

from agentainerd.version import VERSION

INFO = {
    "version": "9.9.9",
    "uptime_s": 61.5,
    "started_at": "2026-01-01T00:00:00Z",
    "agents": {"running": 2, "stopped": 1},
    "engine": {"reachable": True, "version": "20.10", "memory_bytes": 5_000_000},
    "loops": [
        {"name": "replay", "failures": 0, "last_error": ""},
        {"name": "sync", "failures": 3, "last_error": "boom\x1b"},
    ],
    "orphans": [],
    "warnings": ["be careful"],
}


def test_info_is_for_people(api, run):
    api.on("GET", "/system/info", INFO)

    out = run("system", "info").out

    assert out.startswith(f"Endpoint: {api.url} (from AGENTAINER_HOST)\n")
    assert "Version: 9.9.9\n" in out
    assert "Uptime:  61.5 s\n" in out
    assert re.search(r"Started: \d+ days ago\n", out)
    assert "Orphans: none\n" in out
    assert "Agents:\n  Running: 2\n  Stopped: 1\n" in out
    assert "  Reachable: yes\n" in out
    assert "  Memory:    5 MB\n" in out
    assert "Loops:\n  - name replay, failures 0\n  - name sync, failures 3, last error boom\\x1b\n" in out
    assert "  - be careful\n" in out


@pytest.mark.parametrize("command", ["info", "df"])
def test_info_and_df_are_for_programs(api, run, command):
    api.on("GET", f"/system/{command}", INFO)

    assert json.loads(run("system", command, "--json").out) == INFO
    assert yaml.safe_load(run("system", command, "-o", "yaml").out) == INFO


def test_df_is_for_people(api, run):
    api.on("GET", "/system/df", {"images": {"count": 2, "size_bytes": 1_500_000_000}})

    assert run("system", "df").out == "Images:\n  Count: 2\n  Size:  1.5 GB\n"


def test_ping_says_where_and_how_fast(api, run):
    api.on("GET", "/system/ping", {"version": "1"})

    assert re.fullmatch(
        rf"agentainerd answers at {api.url} \(from AGENTAINER_HOST\) in \d+ ms\n", run("system", "ping").out
    )
    assert run("system", "ping", "-q") == (0, "", "")
    assert json.loads(run("system", "ping", "--json").out)["endpoint"] == api.url


def test_ping_without_a_daemon_is_five(run):
    ran = run("system", "ping", "-q")

    assert (ran.code, ran.out) == (5, "")


def test_the_token_alone_is_on_stdout(api, run):
    api.on("GET", "/token", {"token": "agt_secret"})
    api.on("POST", "/token/rotate", {"token": "agt_new"})

    assert run("token", "show") == (0, "agt_secret\n", "")
    assert run("token", "rotate") == (0, "agt_new\n", "The old token is refused from now on.\n")
    assert json.loads(run("token", "show", "--json").out) == {"token": "agt_secret"}


def test_a_token_that_may_not_be_shown(api, run):
    api.on("GET", "/token", status=403, message="only over the Unix socket", code="FORBIDDEN")

    assert run("token", "show") == (6, "", "error: only over the Unix socket\n")


def test_version_of_both_sides(api, run):
    api.on("GET", "/version", {"version": VERSION, "api_version": "1"})

    ran = run("version")

    assert ran.out == f"Client:   {VERSION}\nServer:   {VERSION}\nEndpoint: {api.url}\n"
    assert ran.err == ""
    assert json.loads(run("version", "--json").out)["client"] == {"version": VERSION}


def test_versions_that_differ_are_pointed_out(api, run):
    api.on("GET", "/version", {"version": "99.0"})

    assert run("version").err == f"warning: client {VERSION} and server 99.0 differ\n"


def test_the_version_of_the_program_needs_no_daemon(run):
    assert run("--version") == (0, f"agentainerctl {VERSION}\n", "")


ENTRY = {
    "time": "2026-11-20T10:00:00.000001Z", "level": "warning", "component": "store.journal", "message": "slow\x1b[2J",
    "agent": "web",
}  # fmt: skip
BUG = {**ENTRY, "time": "2026-11-20T10:00:00.000002Z", "level": "error", "traceback": "Traceback\n  ValueError: no\x1b"}


def test_logs_are_a_line_each_with_what_they_are_about(api, run):
    api.on("GET", "/system/logs", [ENTRY, BUG])

    said = run("system", "logs", "--level", "warning", "--component", "store", "--component", "proxy", "-n", "2")

    assert said.code == 0
    assert said.out.splitlines() == [
        "2026-11-20T10:00:00.000001Z  warning   store.journal         slow\\x1b[2J  agent=web",
        "2026-11-20T10:00:00.000002Z  error     store.journal         slow\\x1b[2J  agent=web",
        "    Traceback",
        "      ValueError: no\\x1b",
    ]
    assert api.asked[0].query == {"level": ["warning"], "component": ["store", "proxy"], "limit": ["2"]}


def test_logs_since_a_time_are_all_of_them(api, run):
    api.on_lines("GET", "/system/logs", ENTRY, BUG)

    said = run("system", "logs", "--since", "1h", "-o", "json")

    assert [json.loads(line) for line in said.out.splitlines()] == [ENTRY, BUG]
    assert api.asked[0].headers["Accept"] == "application/x-ndjson"


def test_no_entries_are_said_on_stderr(api, run):
    api.on("GET", "/system/logs", [])

    assert run("system", "logs") == (0, "", "No entries.\n")


def test_a_follower_of_logs_sees_each_once_across_a_break(api, start):
    same = {**ENTRY, "message": "at the same time"}
    last = {**BUG, "time": "2026-11-20T10:00:00.000003Z"}
    api.on_lines("GET", "/system/logs", {}, ENTRY, same, ConnectionError())
    api.on("GET", "/system/ping", {})
    api.on_lines("GET", "/system/logs", ENTRY, same, same, last, ConnectionError())
    process = start("system", "logs", "--follow", "-o", "json")

    assert [json.loads(process.stdout.readline()) for _ in range(4)] == [ENTRY, same, same, last]

    process.kill()
    first, again = [asked for asked in api.asked if asked.path == "/system/logs"][:2]
    assert first.query == {"follow": ["true"]}
    assert again.query == {"follow": ["true"], "since": [ENTRY["time"]]}
