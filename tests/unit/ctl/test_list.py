"""`list` and `inspect` as a process."""

import json
import os

import pytest
import yaml
from gevent.socket import wait_read

from tests.unit.ctl.fake_api import agent

STOPPED = agent(
    id="agent-00000000000000b2",
    name="worker",
    status="stopped",
    ready=False,
    reason="exit 137, out of memory",
    endpoint="/agent/worker/",
    container_id="",
    last_exit={
        "exit_code": 137,
        "oom_killed": True,
        "finished_at": "2026-01-01T00:00:00.000Z",
        "error": "",
        "log": ["allocating \x1b[31mall\x1b[0m", "Killed"],
    },
)


def test_table_has_id_name_image_and_status_with_reason(api, run):
    api.on("GET", "/agents", [agent(), STOPPED])

    ran = run("list")

    head, *rows = ran.out.splitlines()
    assert ran.code == 0
    assert ran.err == ""
    assert head.split() == ["ID", "NAME", "IMAGE", "STATUS", "CREATED", "ENDPOINT"]
    assert rows[0].split()[:3] == ["agent-00000000000000a1", "web", "nginx:alpine"]
    assert "running (ready)" in rows[0]
    assert "stopped (exit 137, out of memory)" in rows[1]
    assert " days ago " in rows[0]
    assert rows[0].endswith("/agent/web/")
    assert len({row.index("nginx") for row in rows}) == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ready": False}, "running (starting)"),
        ({"health": "unhealthy"}, "running (unhealthy)"),
        ({"status": "created", "ready": False}, "created"),
        ({"status": "paused", "ready": False}, "paused"),
        (
            {"status": "failed", "ready": False, "reason": "crash loop: 5 crashes in a row"},
            "failed (crash loop: 5 crashes in a row)",
        ),
        (
            {"status": "stopped", "reason": "exit 1", "next_restart_at": "2026-01-01T00:00:00Z"},
            "stopped (exit 1, restarts now)",
        ),
        (
            {"status": "stopped", "reason": "exit 1", "next_restart_at": "2999-01-01T00:00:00Z"},
            "stopped (exit 1, restarts in ",
        ),
    ],
)
def test_status_says_why(api, run, changes, expected):
    api.on("GET", "/agents", [agent(**changes)])

    assert expected in run("list").out


def test_no_agents_is_said_in_words_to_people_and_as_an_empty_list_to_programs(api, run):
    api.on("GET", "/agents", [])

    assert run("list").out == "No agents found\n"
    assert json.loads(run("list", "--json").out) == []
    assert run("list", "-q").out == ""


def test_wide_shows_limits_queue_and_the_whole_address(api, run):
    api.on("GET", "/agents", [agent()])

    api.on("GET", "/system/info", {"listen": ["127.0.0.1:9000", "172.18.0.1:9000"]})

    row = run("list", "-o", "wide").out.splitlines()[1]

    assert "http://localhost:9000/agent/web/" in row
    assert "512 MiB" in row
    assert row.endswith("c0ffee00c0ff")


def test_json_yaml_name_and_quiet_are_for_programs(api, run):
    api.on("GET", "/agents", [agent(), STOPPED])

    assert json.loads(run("list", "--json").out) == [agent(), STOPPED]
    assert json.loads(run("list", "-o", "json").out) == [agent(), STOPPED]
    assert yaml.safe_load(run("list", "-o", "yaml").out)[1]["name"] == "worker"
    assert run("list", "-o", "name").out == "web\nworker\n"
    assert run("list", "-q").out == "agent-00000000000000a1\nagent-00000000000000b2\n"


def test_ps_and_ls_are_list(api, run):
    api.on("GET", "/agents", [agent()])

    assert run("ps").out == run("list").out == run("ls").out


def test_filters_are_the_daemons_business(api, run):
    api.on("GET", "/agents", [])

    run(
        "list",
        "--filter",
        "status=running",
        "-f",
        "status=paused",
        "-f",
        "name=w",
        "-f",
        "label=team=search",
        "-f",
        "label=tier=a b",
    )

    assert api.asked[0].query == {"status": ["running,paused"], "name": ["w"], "label": ["team=search", "tier=a b"]}


@pytest.mark.parametrize("text", ["colour=red", "status", "=x"])
def test_an_unknown_filter_names_those_that_there_are(api, run, text):
    ran = run("list", "--filter", text)

    assert ran.code == 2
    assert ran.out == ""
    assert ran.err == f"error: filter: {text!r} is not a filter\nhint: KEY=VALUE with status, name, label\n"
    assert api.asked == []


def test_pages_are_put_together(api, run):
    api.on("GET", "/agents", [agent(name="one")], next_cursor="c 1")
    api.on("GET", "/agents", [agent(name="two")])

    assert run("list", "-o", "name").out == "one\ntwo\n"
    assert api.asked[1].query == {"cursor": ["c 1"]}


def test_a_narrow_terminal_gets_lines_that_do_not_wrap(api, run_on_terminal):
    api.on("GET", "/agents", [agent(image="registry.example.com/some/very/long/name:tag"), STOPPED])

    seen = run_on_terminal("list", columns=100, env={"NO_COLOR": "1"}).out
    whole = run_on_terminal("list", "--no-trunc", columns=100, env={"NO_COLOR": "1"}).out

    assert all(len(line) <= 100 for line in seen.splitlines())
    assert "..." in seen
    assert "registry.example.com/some/very/long/name:tag" in whole


def test_forty_columns_still_have_id_and_name(api, run_on_terminal):
    api.on("GET", "/agents", [agent()])

    rows = run_on_terminal("list", columns=40, env={"NO_COLOR": "1"}).out.splitlines()

    assert rows[1].split()[:2] == ["agent-00000000000000a1", "web"]
    assert len(rows) == 2


def test_a_pipe_is_never_cut_nor_coloured(api, run):
    api.on("GET", "/agents", [agent(image="x" * 200)])

    out = run("list", env={"COLUMNS": "40", "TERM": "xterm"}).out

    assert "x" * 200 in out
    assert "\x1b" not in out


def test_colours_are_for_terminals_without_no_color(api, run_on_terminal):
    api.on("GET", "/agents", [agent()])

    assert "\x1b[32mrunning (ready)\x1b[0m" in run_on_terminal("list", columns=200).out
    assert "\x1b" not in run_on_terminal("list", columns=200, env={"NO_COLOR": "1"}).out
    assert "\x1b" not in run_on_terminal("list", columns=200, env={"TERM": "dumb"}).out


def test_wide_characters_keep_the_columns_straight(api, run):
    api.on("GET", "/agents", [agent(image="東京"), agent(image="café"), agent(image="plain")])

    rows = run("list").out.splitlines()[1:]

    def cells_before_status(row: str) -> int:
        return sum(2 if ord(char) > 0x2E80 else 1 for char in row[: row.index("running")])

    assert len({cells_before_status(row) for row in rows}) == 1


def test_what_an_agent_chooses_cannot_steer_the_terminal(api, run):
    evil = "x\x1b[2J\x07\r\n\x9b31m\u202ey"
    api.on("GET", "/agents", [agent(image=evil, reason=evil, status="stopped")])

    for form in ("table", "wide"):
        out = run("list", "-o", form).out
        assert r"x\x1b[2J\x07\r\n\x9b31m\u202ey" in out
        assert len(out.splitlines()) == 2
    text = run("list", "--json").out
    assert json.loads(text)[0]["image"] == evil
    assert all(char.isprintable() or char == "\n" for char in text)
    text = run("list", "-o", "yaml").out
    assert yaml.safe_load(text)[0]["image"] == evil
    assert all(char.isprintable() or char == "\n" for char in text)


def test_an_encoding_that_lacks_characters_is_no_error(api, run):
    api.on("GET", "/agents", [agent(image="東京")])

    ran = run("list", env={"PYTHONIOENCODING": "ascii"})

    assert ran.code == 0
    assert r"\u6771\u4eac" in ran.out


def test_a_reader_that_leaves_early_is_no_error(api, start):
    api.on("GET", "/agents", [agent()] * 2000)
    ours, theirs = os.pipe()

    process = start("list", stdout=theirs)
    os.close(theirs)
    wait_read(ours)
    os.read(ours, 10)
    os.close(ours)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 0
    assert err == b""


def test_streams_that_are_closed_are_no_bug(api, start):
    api.on("GET", "/agents", [agent()])
    shell = "import os, sys; os.close(0); os.close(1); os.close(2); os.execv(sys.executable, [sys.executable, '-m', 'agentainerctl', *sys.argv[1:]])"

    assert start("list", program=("-c", shell)).wait(30) == 0
    assert start("remove", "web", program=("-c", shell)).wait(30) == 3


def test_a_full_disk_under_stdout_is_an_error(api, start):
    api.on("GET", "/agents", [agent()])

    with open("/dev/full", "w") as full:
        process = start("list", stdout=full)
        _, err = process.communicate(timeout=30)

    assert process.returncode == 1
    assert err == b"error: cannot write the output: No space left on device\n"


def test_inspect_tells_people_what_happened(api, run):
    api.on("GET", "/agents/worker", STOPPED)

    out = run("inspect", "worker").out

    for text in (
        "stopped (exit 137, out of memory)",
        "http://localhost:8081/agent/worker/",
        "2 pending, 0 in flight, 1 failed",
        "137, out of memory",
        "    | allocating all\n    | Killed",
        "/srv/data -> /data (ro)",
        "API_KEY=***",
        "team=search",
        "512 MiB",
    ):
        assert text in out
    assert "\x1b" not in out


def test_inspect_shows_a_command_as_one_would_type_it(api, run):
    api.on("GET", "/agents/web", agent(command=["sh", "-c", "echo a b"]))

    assert "Command:        sh -c 'echo a b'\n" in run("inspect", "web").out


def test_inspect_gives_programs_one_object_or_an_array(api, run):
    api.on("GET", "/agents/web", agent())
    api.on("GET", "/agents/worker", STOPPED)

    assert json.loads(run("inspect", "--json", "web").out) == agent()
    assert json.loads(run("inspect", "-o", "json", "web", "worker").out) == [agent(), STOPPED]
    assert run("inspect", "-q", "web", "worker").out == f"{agent()['id']}\n{STOPPED['id']}\n"


def test_the_unique_beginning_of_an_id_will_do(api, run):
    api.on("GET", "/agents", [agent(), STOPPED])
    api.on("GET", "/agents/agent-00000000000000b2", STOPPED)

    assert run("inspect", "-o", "name", "agent-00000000000000b").out == "worker\n"
    assert run("inspect", "-o", "name", "00000000000000b2").out == "worker\n"


def test_a_beginning_of_several_ids_lists_them(api, run):
    api.on("GET", "/agents", [agent(), STOPPED])

    ran = run("inspect", "agent-00")

    assert ran.code == 1
    assert ran.err == "error: 'agent-00' is the beginning of 2 ids: agent-00000000000000a1, agent-00000000000000b2\n"


def test_a_name_that_was_nearly_typed_is_named(api, run):
    api.on("GET", "/agents", [agent(), STOPPED])

    ran = run("inspect", "wbe")

    assert ran == (3, "", "error: no agent 'wbe'\nhint: did you mean 'web'? see: agentainerctl list\n")


@pytest.mark.parametrize("ref", ["..", ".", "", "a/b", "../../system/info", "x" * 300, "Ünï", "a b", "%2e%2e"])
def test_odd_references_are_unknown_agents_and_no_other_paths(api, run, ref):
    api.on("GET", "/agents", [])

    ran = run("inspect", "--", ref)

    assert ran.code == 3
    assert ran.err.startswith("error: no agent '")
    assert {asked.path.count("/") for asked in api.asked} <= {1, 2}
    assert all(asked.path.startswith("/agents") for asked in api.asked)
