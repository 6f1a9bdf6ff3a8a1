"""`requests` as a process."""

import base64
import json

import pytest

ID = "5b1f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f"
OTHER = "6c2f6a0e-8a57-4a34-9d8e-1f0c2b3d4e5f"
RECORD = {
    "id": ID,
    "agent_id": "agent-00000000000000a1",
    "method": "POST",
    "path": "/agent/web/api/data?x=1",
    "status": "pending",
    "reason": "retry_wait",
    "retry_count": 1,
    "max_retries": 7,
    "attempt": 2,
    "maybe_duplicate": True,
    "request_bytes": 20,
    "response_bytes": 0,
    "status_code": 503,
    "duration_s": 0.0123,
    "created_at": "2026-01-01T00:00:00.000Z",
    "processed_at": None,
    "expires_at": "2999-01-01T00:00:00.000Z",
    "next_attempt_at": "2999-01-01T00:00:00.000Z",
    "error": "the agent answered 503",
}
PATH = "/agents/web/requests"


def page(*records, **more):
    return {
        "agent_id": "a",
        "requests": list(records),
        "pending": list(records),
        "count": len(records),
        "next_cursor": None,
        **more,
    }


@pytest.mark.parametrize("arguments", [("web",), ("list", "web"), ("list", "--state", "pending", "web")])
def test_pending_requests_are_listed(api, run, arguments):
    api.on("GET", PATH, page(RECORD))

    ran = run("requests", *arguments)

    title, head, row = ran.out.splitlines()
    assert ran.code == 0
    assert title == "Pending requests for agent web:"
    assert head.split() == ["ID", "METHOD", "PATH", "STATE", "ATTEMPTS", "RECEIVED"]
    assert row.split()[:3] == [ID, "POST", "/agent/web/api/data?x=1"]
    assert "pending (retry wait)" in row
    assert " 2/8 " in row
    assert api.asked[0].query == {"state": ["pending"]}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("web",), "No pending requests\n"),
        (("--state", "failed", "web"), "No failed requests\n"),
        (("list", "--state", "all", "web"), "No requests\n"),
    ],
)
def test_none_is_said_in_words(api, run, arguments, text):
    api.on("GET", PATH, page(pending=None))

    assert run("requests", *arguments) == (0, text, "")


def test_all_states_ask_without_one(api, run):
    api.on("GET", PATH, page())

    run("requests", "list", "--state", "all", "--limit", "5", "--cursor", "c", "web")

    assert api.asked[0].query == {"limit": ["5"], "cursor": ["c"]}


def test_a_further_page_is_pointed_to(api, run):
    api.on("GET", PATH, page(RECORD, next_cursor="c2"))

    assert run("requests", "web").err == "There are more: agentainerctl requests list --cursor c2 web\n"
    assert run("requests", "--state", "failed", "web").err.endswith("requests list --state failed --cursor c2 web\n")
    assert run("requests", "--json", "web").err == ""


def test_for_programs(api, run):
    api.on("GET", PATH, page(RECORD))

    assert json.loads(run("requests", "web", "--json").out) == page(RECORD)
    assert run("requests", "-q", "web").out == f"{ID}\n"


def test_wide_says_why(api, run):
    api.on("GET", PATH, page(RECORD))

    row = run("requests", "web", "-o", "wide").out.splitlines()[2]

    assert "the agent answered 503" in row
    assert " 503 " in row
    assert " 12 ms " in row


def test_a_path_cannot_steer_the_terminal(api, run):
    api.on("GET", PATH, page({**RECORD, "path": "/\x1b[2J\x9b\n", "error": "\x1b]0;x\x07"}))

    out = run("requests", "-o", "wide", "web").out

    assert r"/\x1b[2J\x9b\n" in out
    assert "\x1b" not in out
    assert len(out.splitlines()) == 3


def test_one_request_whole(api, run):
    detail = {
        **RECORD,
        "headers": {"Content-Type": "application/json", "Authorization": "***"},
        "header_list": [
            ["Content-Type", "application/json"],
            ["X-Many", "1"],
            ["X-Many", "2"],
            ["Authorization", "***"],
        ],
        "body": base64.b64encode(b'{"a": "\x1b[31m"}\nsecond').decode(),
        "response": {
            "status_code": 200,
            "headers": {"Server": "x"},
            "body": base64.b64encode(b"\xff\xfe").decode(),
            "truncated": True,
        },
    }
    api.on("GET", f"{PATH}/{ID}", detail)

    out = run("requests", "show", "web", ID).out

    assert "POST /agent/web/api/data?x=1" in out
    assert "pending (retry wait)" in out
    assert "  X-Many: 1\n  X-Many: 2\n" in out
    assert '  {"a": "\\x1b[31m"}\n  second\n' in out
    assert "What the agent answered (only its beginning is kept):\n  Server: x\n  (2 B of binary data)\n" in out
    assert json.loads(run("requests", "show", "web", ID, "--json").out) == detail


def test_bodies_come_out_byte_for_byte(api, start):
    sent, answered = bytes(range(256)), b"\x00answer\xff"
    response = {"status_code": 200, "headers": {}, "body": base64.b64encode(answered).decode()}
    api.on("GET", f"{PATH}/{ID}", {**RECORD, "body": base64.b64encode(sent).decode(), "response": response})

    assert start("requests", "show", "--body", "web", ID).communicate()[0] == sent
    assert start("requests", "show", "--response", "web", ID).communicate()[0] == answered


def test_an_answer_that_is_not_there_is_not_found(api, run):
    api.on("GET", f"{PATH}/{ID}", {**RECORD, "response": None})

    ran = run("requests", "show", "--response", "web", ID)

    assert ran == (3, "", f"error: request {ID} has no stored answer: it is pending (retry wait)\n")


def test_a_long_body_is_shown_in_its_beginning(api, run):
    api.on(
        "GET",
        f"{PATH}/{ID}",
        {**RECORD, "headers": {}, "body": base64.b64encode("ü".encode() * 5000).decode(), "response": None},
    )

    out = run("requests", "show", "web", ID).out

    assert "  ... (10 kB in all)" in out


def test_cancel_has_a_line_a_request(api, run):
    api.on("DELETE", f"{PATH}/{ID}", {"request_id": ID})
    api.on("DELETE", f"{PATH}/{OTHER}", status=404, message="Request not found", code="REQUEST_NOT_FOUND")

    ran = run("requests", "cancel", "web", ID, OTHER)

    assert ran == (8, f"Request {ID} cancelled successfully\n", "error: Request not found\n")
    assert json.loads(run("requests", "cancel", "--json", "web", ID).out) == [
        {"id": ID, "name": ID, "result": "cancelled"}
    ]


@pytest.mark.parametrize(
    ("status", "data", "expected"),
    [
        (
            200,
            {"status": "completed", "status_code": 201},
            (0, f"Request {ID} replayed successfully (status 201)\n", ""),
        ),
        (202, {"status": "pending", "status_code": 0}, (0, f"Request {ID} queued for replay\n", "")),
        (
            200,
            {"status": "failed", "status_code": 0},
            (
                1,
                "",
                f"error: request {ID} was delivered again and failed\nhint: agentainerctl requests show web {ID}\n",
            ),
        ),
    ],
)
def test_replay_says_what_became_of_it(api, run, status, data, expected):
    api.on("POST", f"{PATH}/{ID}/replay", {"request_id": ID, **data}, status=status)

    assert run("requests", "replay", "web", ID) == expected


def test_replaying_all_queues_them_page_by_page_without_waiting(api, run):
    api.on("GET", PATH, page({**RECORD, "id": "one"}, next_cursor="c2"))
    api.on("GET", PATH, page({**RECORD, "id": "two"}))
    for name in ("one", "two"):
        api.on("POST", f"{PATH}/{name}/replay", {"status": "pending", "status_code": 0}, status=202)

    ran = run("requests", "replay", "--all", "web", "-q")

    assert ran.out == "one\ntwo\n"
    assert [asked.query for asked in api.asked if asked.path == PATH] == [
        {"state": ["failed"], "limit": ["1000"]},
        {"state": ["failed"], "limit": ["1000"], "cursor": ["c2"]},
    ]
    assert {asked.query["wait"][0] for asked in api.asked if asked.method == "POST"} == {"0"}


def test_cancelling_all_means_the_pending_ones(api, run):
    api.on("GET", PATH, page({**RECORD, "id": "one"}))
    api.on("DELETE", f"{PATH}/one", {})

    assert run("requests", "cancel", "--all", "web", "-q").out == "one\n"
    assert api.asked[0].query == {"state": ["pending"], "limit": ["1000"]}


@pytest.mark.parametrize("arguments", [(), ("--all", ID)])
def test_requests_or_all_but_not_both_and_not_neither(run, arguments):
    assert run("requests", "replay", "web", *arguments).code == 2


def test_purge_asks_for_force(api, run, run_on_terminal):
    api.on("DELETE", PATH, {"removed": 3})

    assert run("requests", "purge", "web") == (
        2,
        "",
        "error: refusing to delete all failed requests of 'web'\nhint: add --force\n",
    )
    assert api.asked == []
    assert run("requests", "purge", "--force", "--state", "pending", "web").out == "3 pending requests removed\n"
    assert run("requests", "purge", "-f", "-o", "json", "web").out == '{\n  "removed": 3\n}\n'
    assert [asked.query for asked in api.asked] == [{"state": ["pending"]}, {"state": ["failed"]}]
    ran = run_on_terminal("requests", "purge", "web", typed=b"y\n")
    assert "Delete all failed requests of 'web' for good? [y/N]: " in ran.out
    assert "3 failed requests removed\n" in ran.out


def test_an_unknown_agent(api, run):
    api.on("GET", "/agents", [])

    assert run("requests", "nope").code == 3
    assert run("requests", "purge", "--force", "nope").code == 3


def test_a_typo_in_a_command_is_not_taken_for_an_agent(api, run):
    ran = run("requests", "shwo", "web", ID)

    assert ran.code == 2
    assert "Did you mean 'show'?" in ran.err
    assert api.asked == []


def test_help_without_a_command(run):
    ran = run("requests")

    assert ran.code == 0
    assert "Usage: agentainerctl requests" in ran.out
