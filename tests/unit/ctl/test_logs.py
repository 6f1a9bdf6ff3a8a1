"""`logs` as a process, and the resumption of a follow."""

import signal
import time

import gevent
import gevent.event
import pytest

from agentainerctl.client import Client
from agentainerctl.endpoints import find_endpoint
from agentainerctl.failures import ApiError
from agentainerctl.logstream import follow_log
from tests.unit.ctl.fake_api import Asked, begin_stream, end_stream, send_line

STAMPS = [f"2026-11-20T10:00:0{number}" for number in range(10)]


def out(data, stream="stdout"):
    return {"stream": stream, "data": data}


def test_stdout_and_stderr_go_where_the_agent_sent_them(api, run):
    api.on_lines("GET", "/agents/web/logs", out("one\n"), out("two\n", "stderr"), out("three"))

    assert run("logs", "web") == (0, "one\nthree", "two\n")
    assert api.asked[0].query == {}
    assert api.asked[0].headers["Accept"] == "application/x-ndjson"


def test_what_an_agent_writes_is_not_changed(api, run):
    api.on_lines("GET", "/agents/web/logs", out("\x1b[31mred\x1b[0m\ttab ünï\r\n"))

    assert run("logs", "web").out == "\x1b[31mred\x1b[0m\ttab ünï\r\n"


def test_options_are_the_daemons_business(api, run):
    api.on_lines("GET", "/agents/web/logs")

    run("logs", "-n", "50", "-t", "--stderr", "web")
    run("logs", "--tail", "all", "--stdout", "--stderr", "web")

    assert api.asked[0].query == {"tail": ["50"], "timestamps": ["true"], "stream": ["stderr"]}
    assert api.asked[1].query == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2026-11-20T10:00:02Z", 1795168802.0), ("2026-11-20T10:00:02.5+01:00", 1795165202.5)],
)
def test_since_a_time(api, run, text, expected):
    api.on_lines("GET", "/agents/web/logs")

    run("logs", "--since", text, "web")

    assert float(api.asked[0].query["since"][0]) == expected


def test_since_a_while_ago(api, run):
    api.on_lines("GET", "/agents/web/logs")

    run("logs", "--since", "1h30m", "web")

    assert float(api.asked[0].query["since"][0]) == pytest.approx(time.time() - 5400, abs=30)


@pytest.mark.parametrize(
    "arguments", [("--since", "yesterday"), ("--since", "2026-13-99"), ("--tail", "-1"), ("--tail", "many"), ()]
)
def test_what_can_never_be_right_is_refused(api, run, arguments):
    agent = ("web",) if arguments else ()

    ran = run("logs", *arguments, *agent)

    assert (ran.code, ran.out) == (2, "")
    assert api.asked == []


def test_an_unknown_agent(api, run):
    api.on("GET", "/agents", [])

    assert run("logs", "nope") == (3, "", "error: no agent 'nope'\nhint: agentainerctl list\n")


def test_an_error_in_the_middle(api, run):
    api.on_lines(
        "GET", "/agents/web/logs", out("one\n"), {"error": {"code": "ENGINE_UNAVAILABLE", "message": "engine away"}}
    )

    assert run("logs", "web") == (1, "one\n", "error: engine away\n")


def test_following_hides_the_times_that_nobody_asked_for(api, run):
    lines = [out(f"{STAMPS[1]}.5Z one\n"), out(f"{STAMPS[2]}Z two\n", "stderr"), out("no time\n")]
    api.on_lines("GET", "/agents/web/logs", *lines)

    assert run("logs", "-f", "web") == (0, "one\nno time\n", "two\n")
    assert run("logs", "-ft", "web").out == f"{STAMPS[1]}.5Z one\nno time\n"
    assert api.asked[0].query == {"follow": ["true"], "timestamps": ["true"]}


def test_following_shows_that_the_agent_was_started_again(api, run):
    api.on_lines("GET", "/agents/web/logs", {"notice": "the agent was started again"})

    assert run("logs", "-f", "web") == (0, "", "--- the agent was started again ---\n")


def test_following_goes_on_where_it_was_when_the_daemon_comes_back(api, run):
    api.on_lines(
        "GET",
        "/agents/web/logs",
        out(f"{STAMPS[1]}.000000001Z one\n"),
        out(f"{STAMPS[2]}.12Z two\n"),
        ConnectionError(),
    )
    api.on("GET", "/system/ping", status=503, message="not yet", code="UNAVAILABLE")
    api.on("GET", "/system/ping", {})
    api.on_lines(
        "GET",
        "/agents/web/logs",
        out(f"{STAMPS[2]}.1Z seen before two\n"),
        out(f"{STAMPS[2]}.12Z two\n"),
        out(f"{STAMPS[2]}.120000001Z three\n"),
        out(f"{STAMPS[3]}Z four\n"),
    )

    ran = run("logs", "-f", "--tail", "2", "web")

    assert ran.out == "one\ntwo\nthree\nfour\n"
    assert "--- the connection to agentainerd broke; reconnecting ---\n" in ran.err
    assert ran.code == 0
    again = [asked for asked in api.asked if asked.path == "/agents/web/logs"][1]
    assert again.query["since"] == ["1795168802.120000000"]
    assert "tail" not in again.query


def test_following_ends_when_the_agent_was_removed_meanwhile(api, run):
    api.on_lines("GET", "/agents/web/logs", out(f"{STAMPS[1]}Z one\n"), ConnectionError())
    api.on("GET", "/system/ping", {})
    api.on("GET", "/agents/web/logs", status=404, message="Agent not found: web", code="AGENT_NOT_FOUND")

    ran = run("logs", "-f", "web")

    assert (ran.code, ran.out) == (0, "one\n")


def test_following_gives_up_when_the_daemon_stays_away(api):
    api.on_lines("GET", "/agents/web/logs", out(f"{STAMPS[1]}Z one\n"), ConnectionError())
    api.on("GET", "/system/ping", status=503, message="no", code="UNAVAILABLE")
    pauses = []

    pieces = follow_log(
        Client(find_endpoint({"AGENTAINER_HOST": api.url})), "web", {}, with_times=False, sleep=pauses.append
    )
    with pytest.raises(ApiError):
        list(pieces)

    assert 60 <= sum(pauses) <= 63
    assert max(pauses) == 2.0


def test_ctrl_c_ends_a_follow_with_130(api, start, eventually):
    def endless(handler, _: Asked):
        begin_stream(handler)
        send_line(handler, out(f"{STAMPS[1]}Z one\n"))
        gevent.sleep(20)
        end_stream(handler)

    api.on_raw("GET", "/agents/web/logs", endless)
    process = start("logs", "-f", "web")
    first = process.stdout.readline()

    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=10)

    assert (first, rest) == (b"one\n", b"")
    assert process.returncode == 130
    assert b"Traceback" not in err


def test_a_piece_arrives_while_the_stream_goes_on(api, start):
    gate = gevent.event.Event()

    def held(handler, _: Asked):
        begin_stream(handler)
        send_line(handler, out("first\n"))
        gate.wait(20)
        end_stream(handler)

    api.on_raw("GET", "/agents/web/logs", held)
    process = start("logs", "web")

    assert process.stdout.readline() == b"first\n"
    gate.set()
    assert process.wait(10) == 0
