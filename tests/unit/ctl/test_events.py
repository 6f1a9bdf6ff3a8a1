"""`events` as a process."""

import json
import signal

import gevent
import pytest

from tests.unit.ctl.fake_api import begin_stream, end_stream, send_line

DIED = {
    "id": "5-0", "time": "2026-11-20T10:00:00.000Z", "action": "die", "agent_id": "agent-00000000000000aa", "agent": "web",
    "message": "exit 137", "details": {"exit_code": 137, "oom_killed": False},
}  # fmt: skip
READY = {**DIED, "id": "6-0", "action": "ready", "message": "", "details": {}}


def test_events_are_a_line_each(api, run):
    api.on("GET", "/events", [DIED, READY])

    said = run("events", "--since", "1h", "--agent", "web", "--action", "die", "--action", "ready", "-n", "5")

    assert said.code == 0
    assert [line.split() for line in said.out.splitlines()] == [
        ["2026-11-20T10:00:00.000Z", "die", "web", "exit", "137", "exit_code=137", "oom_killed=False"],
        ["2026-11-20T10:00:00.000Z", "ready", "web"],
    ]
    assert api.asked[0].query == {"since": ["1h"], "agent": ["web"], "action": ["die", "ready"], "limit": ["5"]}


def test_what_an_agent_is_called_cannot_move_the_cursor(api, run):
    api.on("GET", "/events", [{**DIED, "message": "\x1b[2Jgone"}])

    assert "\\x1b[2Jgone" in run("events").out


def test_as_json_each_event_is_a_line(api, run):
    api.on("GET", "/events", [DIED, READY])

    assert [json.loads(line) for line in run("events", "-o", "json").out.splitlines()] == [DIED, READY]


def test_nothing_is_said_on_stderr(api, run):
    api.on("GET", "/events", [])

    assert run("events") == (0, "", "No events yet.\n")
    assert run("events", "--agent", "web") == (0, "", "No events.\n")


def test_a_follower_goes_on_after_a_break_where_it_was(api, start):
    api.on_lines("GET", "/events", {}, DIED, ConnectionError())
    api.on("GET", "/system/ping", {})
    api.on_raw("GET", "/events", endless)
    process = start("events", "--follow", "-o", "json")

    assert [json.loads(process.stdout.readline())["id"] for _ in range(2)] == ["5-0", "6-0"]

    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    first, again = [asked for asked in api.asked if asked.path == "/events"]
    assert first.headers["Accept"] == "application/x-ndjson"
    assert (first.query, again.query) == ({"follow": ["true"]}, {"follow": ["true"], "since": ["5-0"]})


def endless(handler, _):
    begin_stream(handler)
    send_line(handler, READY)
    gevent.sleep(20)
    end_stream(handler)


@pytest.mark.parametrize("arguments", [("-n", "0"), ("-o", "yaml")])
def test_what_can_never_be_right_is_refused(api, run, arguments):
    assert run("events", *arguments).code == 2
    assert not api.asked
