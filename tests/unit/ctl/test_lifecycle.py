"""start stop restart pause resume remove, as processes."""

import json
import signal

import pytest

from tests.unit.ctl.fake_api import agent, send

DONE = {"start": "started", "stop": "stopped", "restart": "restarted", "pause": "paused", "resume": "resumed"}


@pytest.mark.parametrize(("verb", "done"), DONE.items())
def test_each_verb_has_the_line_of_the_original(api, run, verb, done):
    api.on("POST", f"/agents/web/{verb}", agent())

    ran = run(verb, "web")

    assert ran == (0, f"Agent web {done} successfully\n", "")
    assert api.paths("POST") == [f"/agents/web/{verb}"]
    assert api.asked[0].query == {}


def test_the_result_line_has_the_reference_that_was_typed(api, run):
    api.on("POST", "/agents/agent-00000000000000a1/start", agent())

    assert run("start", "agent-00000000000000a1").out == "Agent agent-00000000000000a1 started successfully\n"


def test_a_daemon_that_returns_no_agent_will_do(api, run):
    api.on("POST", "/agents/web/start")

    assert run("start", "web").out == "Agent web started successfully\n"
    assert run("start", "-o", "name", "web").out == "web\n"


def test_several_agents_have_a_line_each_and_each_is_done_once(api, run):
    for name in ("one", "two"):
        api.on("POST", f"/agents/{name}/stop", agent(name=name))

    ran = run("stop", "one", "two", "one")

    assert ran == (0, "Agent one stopped successfully\nAgent two stopped successfully\n", "")
    assert api.paths("POST") == ["/agents/one/stop", "/agents/two/stop"]


def test_a_failure_does_not_stop_the_rest_and_the_exit_code_says_partly(api, run):
    api.on("GET", "/agents", [])
    api.on("POST", "/agents/one/pause", agent(name="one"))
    api.on(
        "POST",
        "/agents/two/pause",
        status=409,
        message="cannot pause 'two': it is stopped (exit 0)",
        code="AGENT_STOPPED",
        hint="agentainerctl start two",
    )
    api.on("POST", "/agents/three/pause", agent(name="three"))

    ran = run("pause", "one", "two", "three")

    assert ran == (
        8,
        "Agent one paused successfully\nAgent three paused successfully\n",
        "error: cannot pause 'two': it is stopped (exit 0)\nhint: agentainerctl start two\n",
    )


def test_where_all_fail_alike_the_exit_code_is_theirs(api, run):
    api.on("GET", "/agents", [])

    assert run("start", "one", "two").code == 3


def test_where_all_fail_differently_it_is_one(api, run):
    api.on("GET", "/agents", [])
    api.on("POST", "/agents/two/start", status=409, message="no", code="AGENT_PAUSED")

    ran = run("start", "one", "two")

    assert ran.code == 1
    assert ran.out == ""


def test_without_a_daemon_the_second_agent_is_not_tried(run):
    ran = run("start", "one", "two")

    assert ran.code == 5
    assert ran.err.count("error:") == 1


def test_results_for_programs_are_one_document(api, run):
    api.on("GET", "/agents", [])
    api.on("POST", "/agents/web/stop", agent(status="stopped"))

    ran = run("stop", "--json", "web", "nope")

    result = {"id": agent()["id"], "name": "web", "status": "stopped", "result": "stopped"}
    assert ran.code == 8
    assert json.loads(ran.out) == [result]
    assert json.loads(ran.err)["code"] == "AGENT_NOT_FOUND"


def test_stdout_is_empty_where_nothing_was_done(api, run):
    api.on("GET", "/agents", [])

    for form in ("table", "json", "yaml", "name"):
        ran = run("stop", "-o", form, "nope")
        assert (ran.code, ran.out) == (3, "")


def test_quiet_prints_ids(api, run):
    api.on("POST", "/agents/web/stop", agent())

    assert run("stop", "-q", "web").out == "agent-00000000000000a1\n"


@pytest.mark.parametrize(
    ("verb", "chosen"),
    [
        ("start", ["made", "down", "broken"]),
        ("stop", ["up", "frozen", "returning"]),
        ("restart", ["up"]),
        ("pause", ["up"]),
        ("resume", ["made", "down", "broken", "frozen", "returning"]),
    ],
)
def test_all_means_those_that_are_in_a_state_for_it(api, run, verb, chosen):
    states = {"made": "created", "up": "running", "down": "stopped", "broken": "failed", "frozen": "paused"}
    agents = [agent(name=name, status=status) for name, status in states.items()]
    agents.append(agent(name="returning", status="stopped", next_restart_at="2999-01-01T00:00:00Z"))
    api.on("GET", "/agents", agents)
    for name in [*states, "returning"]:
        api.on("POST", f"/agents/{name}/{verb}", agent(name=name))

    ran = run(verb, "--all", "-o", "name")

    expected = [*chosen, "returning"] if verb == "start" else chosen
    assert sorted(ran.out.split()) == sorted(expected)


def test_all_of_none_is_done(api, run):
    api.on("GET", "/agents", [])

    assert run("stop", "--all") == (0, "", "There is no agent in a state for that.\n")
    assert run("stop", "--all", "--json") == (0, "[]\n", "")


@pytest.mark.parametrize("arguments", [(), ("--all", "web")])
def test_agents_or_all_but_not_both_and_not_neither(run, arguments):
    ran = run("stop", *arguments)

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.endswith("hint: agentainerctl stop --help\n")


def test_grace_is_sent_in_seconds(api, run):
    api.on("POST", "/agents/web/stop", agent())

    run("stop", "--grace", "1m30s", "web")

    assert api.asked[0].query == {"grace": ["90.0"]}


def test_a_duration_that_is_none_is_a_usage_error(run):
    ran = run("stop", "--grace", "soon", "web")

    assert ran.code == 2
    assert ran.err == (
        "error: Invalid value for '--grace': 'soon' is not a duration; write it as 30s, 1m30s, 500ms, 24h or 7d\n"
        "hint: agentainerctl stop --help\n"
    )


@pytest.mark.parametrize("verb", ["start", "restart", "resume"])
def test_wait_is_sent_in_seconds_and_said(api, run, verb):
    api.on("POST", f"/agents/web/{verb}", agent())

    ran = run(verb, "--wait", "--timeout", "2m", "web")

    assert ran.out == f"Agent web {DONE[verb]} successfully and is ready\n"
    assert api.asked[0].query == {"wait": ["120.0"]}


def test_a_start_that_fails_shows_exit_code_memory_and_the_last_lines(api, run):
    api.on(
        "POST",
        "/agents/web/start",
        status=500,
        message="agent 'web' exited 1.2 s after start (exit 137)",
        code="AGENT_EXITED",
        hint="agentainerctl logs web",
        details={"exit_code": 137, "oom_killed": True, "log": ["loading the model", "\x1b[1mKilled\x1b[0m"]},
    )

    ran = run("start", "--wait", "web")

    assert ran == (
        1,
        "",
        "error: agent 'web' exited 1.2 s after start (exit 137)\n"
        "  exit code 137, out of memory\n"
        "  last lines of its output:\n"
        "    | loading the model\n"
        "    | Killed\n"
        "hint: agentainerctl logs web\n",
    )


def test_a_wait_that_is_over_before_the_agent_is_ready_has_its_own_exit_code(api, run):
    api.on("POST", "/agents/web/start", status=504, message="not ready", code="AGENT_NOT_READY", details={"log": ["x"]})

    assert run("start", "--wait", "web").code == 7


def test_a_long_wait_shows_on_a_terminal_that_it_waits(api, run_on_terminal):
    import gevent

    def slowly(handler, _):
        gevent.sleep(0.9)
        send(handler, 200, json.dumps({"success": True, "data": agent()}).encode())

    api.on_raw("POST", "/agents/web/start", slowly)

    ran = run_on_terminal("start", "--wait", "web")

    assert "start web, waiting until it is ready ... " in ran.out
    assert ran.out.endswith("\x1b[1A\r\x1b[JAgent web started successfully and is ready\n")


def test_ctrl_c_ends_a_wait_with_130(api, start, eventually):
    import gevent

    api.on_raw("POST", "/agents/web/start", lambda handler, _: gevent.sleep(20))
    process = start("start", "--wait", "web")
    eventually(lambda: api.asked)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)

    assert process.returncode == 130
    assert out == b""
    assert b"Traceback" not in err


def test_remove_prints_the_lines_of_the_original(api, run):
    api.on("GET", "/agents/web", agent(status="stopped", ready=False))
    api.on("DELETE", "/agents/agent-00000000000000a1", {"agent_id": "agent-00000000000000a1", "agent_name": "web"})

    ran = run("remove", "web")

    assert ran == (
        0,
        "Removing agent 'web' (ID: agent-00000000000000a1, Status: stopped)\nAgent web removed successfully\n",
        "",
    )


@pytest.mark.parametrize("status", ["running", "paused"])
def test_a_live_agent_is_not_removed_without_force(api, run, status):
    api.on("GET", "/agents/web", agent(status=status))

    ran = run("rm", "web")

    assert ran == (2, "", f"error: refusing to remove 'web': it is {status}\nhint: add --force\n")
    assert api.paths("DELETE") == []


def test_force_removes_it(api, run):
    api.on("GET", "/agents/web", agent())
    api.on("DELETE", "/agents/agent-00000000000000a1")

    ran = run("rm", "-f", "-q", "web")

    assert ran == (0, "agent-00000000000000a1\n", "")


@pytest.mark.parametrize(("typed", "code", "removed"), [(b"y\n", 0, 1), (b"n\n", 2, 0), (b"\n", 2, 0)])
def test_on_a_terminal_it_asks(api, run_on_terminal, typed, code, removed):
    api.on("GET", "/agents/web", agent())
    api.on("DELETE", "/agents/agent-00000000000000a1")

    ran = run_on_terminal("remove", "web", typed=typed)

    assert "Agent 'web' is running. Remove it with its 2 pending requests? [y/N]: " in ran.out
    assert ran.code == code
    assert len(api.paths("DELETE")) == removed


def test_ctrl_c_at_the_question_removes_nothing(api, run_on_terminal):
    api.on("GET", "/agents/web", agent())

    ran = run_on_terminal("remove", "web", typed=b"\x03")

    assert ran.code == 130
    assert api.paths("DELETE") == []


def test_removing_all_needs_a_yes_or_force(api, run):
    api.on("GET", "/agents", [agent(status="stopped")])
    api.on("GET", "/agents/web", agent(status="stopped"))
    api.on("DELETE", "/agents/agent-00000000000000a1")

    assert run("remove", "--all") == (2, "", "error: refusing to remove all 1 agents\nhint: add --force\n")
    assert run("remove", "--all", "--force").code == 0
    assert api.paths("DELETE") == ["/agents/agent-00000000000000a1"]


def test_an_unknown_agent_stays_unknown_when_removed(api, run):
    api.on("GET", "/agents", [])

    assert run("remove", "nope") == (3, "", "error: no agent 'nope'\nhint: agentainerctl list\n")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("strat", "start"), ("lits", "list"), ("deplyo", "deploy"), ("resme", "resume")],
)
def test_a_typo_in_a_command_names_the_one_that_was_meant(run, typed, meant):
    ran = run(typed, "web")

    assert ran.code == 2
    assert f"Did you mean '{meant}'?" in ran.err
    assert ran.err.endswith("hint: agentainerctl --help\n")


def test_a_typo_in_an_option_too(run):
    assert "Did you mean '--grace'?" in run("stop", "--grase", "1s", "web").err
