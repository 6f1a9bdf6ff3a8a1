"""`sessions list show history export delete` as a process."""

import json
import stat

import pytest

from tests.unit.ctl.fake_api import agent, send
from tests.unit.ctl.run_records import AGENT_ID, MESSAGES, SESSION_ID, session

SESSIONS = "/api/v1/sessions"
ONE = f"{SESSIONS}/{SESSION_ID}"
NOT_THERE = {"error": "session not found", "message": "no session 'x'", "code": "SESSION_NOT_FOUND"}


def flat(api, method, path, body, status=200):
    """Answer without an envelope, as the routes of sessions do."""
    api.on_raw(method, path, lambda handler, _: send(handler, status, json.dumps(body).encode()))


def test_sessions_are_listed_with_their_agents_name(api, run):
    found = [session(), session(agent_id="gone", name="\x1b[2J")]
    flat(api, "GET", SESSIONS, {"sessions": found, "count": 2, "total": 9})
    api.on("GET", "/agents", [agent(id=AGENT_ID)])

    said = run("sessions", "list", "--user", "u", "-n", "2", "--offset", "1")

    head, first, second = said.out.splitlines()
    assert head.split() == ["ID", "AGENT", "NAME", "RUNS", "UPDATED"]
    assert first.split()[:2] == [SESSION_ID, "web"]
    assert "gone" in second
    assert "\\x1b[2J" in second
    assert said.err == "There are 9; the next ones: --offset 3\n"
    assert api.asked[0].query == {"user_id": ["u"], "limit": ["2"], "offset": ["1"]}
    assert run("sessions", "list", "-q").out.split() == [SESSION_ID, SESSION_ID]


def test_sessions_of_an_agent_are_found_whatever_their_maker_called_it(api, run):
    flat(api, "GET", SESSIONS, {"sessions": [session(session_id="by-name", created_at=5)], "count": 1, "total": 1})
    flat(api, "GET", SESSIONS, {"sessions": [session(session_id="by-id", created_at=9)], "count": 1, "total": 2})
    flat(api, "GET", SESSIONS, {"sessions": [session(session_id="older", created_at=1)], "count": 1, "total": 2})
    api.on("GET", "/agents", [agent(id=AGENT_ID)])

    assert run("sessions", "list", "--agent", "web", "-q", "-n", "2").out.split() == ["by-id", "by-name"]
    asked = [each.query for each in api.asked if each.path == SESSIONS]
    assert [(each["agent_id"], each["offset"]) for each in asked] == [
        (["web"], ["0"]),
        ([AGENT_ID], ["0"]),
        ([AGENT_ID], ["1"]),
    ]


def test_no_sessions(api, run):
    flat(api, "GET", SESSIONS, {"sessions": [], "count": 0, "total": 0})
    api.on("GET", "/agents", [])

    assert run("sessions", "list").out == "No sessions yet. Begin one: agentainerctl chat AGENT\n"
    assert run("sessions", "list", "--agent", "web").out == "No such sessions.\n"
    assert run("sessions", "list", "-o", "json").out == "[]\n"


def test_a_session_is_shown(api, run):
    summary = {"content": "A test\nfailed.", "run_count": 2, "total_tokens": 9, "created_at": "2026-01-01T00:00:00Z"}
    flat(api, "GET", ONE, session(state={"step": 1}, summary=summary))

    said = run("sessions", "show", SESSION_ID)

    assert 'State:   {"step": 1}' in said.out
    assert said.out.endswith("Summary:\n  A test\n  failed.\n")
    assert json.loads(run("sessions", "show", SESSION_ID, "-o", "json").out)["run_count"] == 2


def test_history_is_a_conversation(api, run):
    flat(api, "GET", f"{ONE}/history", {"session_id": SESSION_ID, "messages": MESSAGES, "runs": []})

    said = run("sessions", "history", SESSION_ID, "-n", "4")

    assert said.out.splitlines() == [
        "you:",
        "  Which tests fail?",
        "agent:",
        "  > run_command pytest -q",
        "  | F.",
        "  | 1 failed",
        "agent:",
        "  One:",
        "  test_add.",
    ]
    assert api.asked[0].query == {"num_messages": ["4"]}


def test_history_is_harmless_and_cut(api, run):
    long = {"id": "m", "role": "tool", "content": "\x1b[31mred\x1b[0m\n" + "line\n" * 50}
    hostile = {"id": "n", "role": "\x1b[2J", "content": "\x1b[2Jgone\r"}
    flat(api, "GET", f"{ONE}/history", {"messages": [long, hostile]})

    said = run("sessions", "history", SESSION_ID)

    assert said.out.splitlines()[0] == "  | red"
    assert "  | ... 45 more lines ..." in said.out
    assert "\x1b" not in said.out
    assert len(run("sessions", "history", "--full", SESSION_ID).out.splitlines()) == 53


def test_no_messages(api, run):
    flat(api, "GET", f"{ONE}/history", {"messages": []})

    assert run("sessions", "history", SESSION_ID).out == "No messages yet.\n"


def test_an_export_is_one_document(api, run, tmp_path):
    document = {"session": session(), "messages": MESSAGES, "runs": []}
    flat(api, "GET", f"{ONE}/export", document)

    assert json.loads(run("sessions", "export", SESSION_ID).out) == document
    assert run("sessions", "export", SESSION_ID, "talk.json").out == ""
    assert json.loads((tmp_path / "talk.json").read_text()) == document
    assert stat.S_IMODE((tmp_path / "talk.json").stat().st_mode) == 0o600


def test_an_export_writes_over_nothing_unasked(api, run, tmp_path):
    flat(api, "GET", f"{ONE}/export", {"messages": []})
    (tmp_path / "talk.json").write_text("mine, and longer than the other one")

    said = run("sessions", "export", SESSION_ID, "talk.json")

    assert said.code == 4
    assert "hint: --force writes over it" in said.err
    assert (tmp_path / "talk.json").read_text().startswith("mine")
    assert run("sessions", "export", "--force", SESSION_ID, "talk.json").code == 0
    assert json.loads((tmp_path / "talk.json").read_text()) == {"messages": []}


def test_sessions_are_deleted_when_it_is_confirmed(api, run, run_on_terminal):
    flat(api, "DELETE", ONE, {"message": "session deleted successfully"})

    refused = run("sessions", "delete", SESSION_ID)
    assert refused.code == 2
    assert f"refusing to delete session {SESSION_ID}" in refused.err
    assert run_on_terminal("sessions", "delete", SESSION_ID, typed=b"n\n").code == 2
    assert not api.asked
    assert run_on_terminal("sessions", "delete", SESSION_ID, typed=b"y\n").code == 0
    assert run("sessions", "delete", "-f", SESSION_ID).out == f"Session {SESSION_ID} deleted\n"


@pytest.mark.parametrize("command", ["show", "history", "export"])
def test_a_session_that_is_not_there(api, run, command):
    for path in ("", "/history", "/export"):
        flat(api, "GET", ONE + path, NOT_THERE, 404)

    done = run("sessions", command, SESSION_ID)

    assert (done.code, done.out) == (3, "")
    assert "no session 'x'" in done.err
