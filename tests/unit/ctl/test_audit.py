"""`audit` as a process."""

import json

from agentainerctl import exits

ENTRY = {
    "seq": 7, "time": "2026-11-20T10:00:00.000Z", "actor": "token:ci", "action": "stop_agent", "resource": "web",
    "result": "ok", "address": "192.0.2.1", "request_id": "r-1",
}  # fmt: skip
OLDER = {**ENTRY, "seq": 6, "action": "log_in", "actor": "anonymous", "resource": "", "result": "refused"}
WHOLE = {
    "intact": True, "entries": 7, "first_seq": 1, "last_seq": 7, "last_mac": "ab" * 16, "torn_lines": 0, "fault_count": 0,
    "faults": [],
}  # fmt: skip


def page(*entries, cursor=""):
    return {"entries": list(entries), "next_cursor": cursor}


def test_the_newest_entry_is_the_last_line(api, run):
    api.on("GET", "/audit", page(ENTRY, OLDER))

    said = run(
        "audit",
        "-u",
        "ci",
        "-a",
        "stop_agent",
        "--action",
        "log_in",
        "-r",
        "web",
        "--result",
        "ok",
        "-d",
        "24h",
        "-l",
        "5",
    )

    assert [line.split() for line in said.out.splitlines()] == [
        ["TIME", "ACTOR", "ACTION", "RESOURCE", "RESULT", "ADDRESS"],
        ["2026-11-20T10:00:00.000Z", "anonymous", "log_in", "refused", "192.0.2.1"],
        ["2026-11-20T10:00:00.000Z", "token:ci", "stop_agent", "web", "ok", "192.0.2.1"],
    ]
    assert api.asked[0].query == {
        "user": ["ci"], "action": ["stop_agent", "log_in"], "resource": ["web"], "result": ["ok"], "duration": ["24h"],
        "limit": ["5"],
    }  # fmt: skip


def test_more_than_a_page_is_fetched_page_by_page(api, run):
    api.on("GET", "/audit", page(*[{**ENTRY, "seq": 2000 - number} for number in range(1000)], cursor="1.5"))
    api.on("GET", "/audit", page(*[{**ENTRY, "seq": 1000 - number} for number in range(200)], cursor="1.2"))

    said = run("audit", "--limit", "1200", "-q")

    assert said.out.split()[0] == "801"
    assert len(said.out.split()) == 1200
    assert [asked.query["limit"] for asked in api.asked] == [["1000"], ["200"]]
    assert api.asked[1].query["cursor"] == ["1.5"]


def test_as_json_it_is_a_list(api, run):
    api.on("GET", "/audit", page(ENTRY, OLDER))

    assert json.loads(run("audit", "-o", "json").out) == [OLDER, ENTRY]


def test_wide_has_numbers_and_requests(api, run):
    api.on("GET", "/audit", page(ENTRY))

    assert run("audit", "-o", "wide").out.splitlines()[1].split() == [
        "7", "2026-11-20T10:00:00.000Z", "token:ci", "stop_agent", "web", "ok", "192.0.2.1", "r-1",
    ]  # fmt: skip


def test_nothing_is_said_so(api, run):
    api.on("GET", "/audit", page())

    assert run("audit") == (0, "No entries.\n", "")
    assert run("audit", "--user", "x") == (0, "No entries match.\n", "")
    assert run("audit", "-o", "json").out == "[]\n"


def test_a_log_that_is_whole(api, run):
    api.on("GET", "/audit/verify", WHOLE)

    said = run("audit", "--verify")

    assert said.code == 0
    assert said.out.splitlines() == ["The audit log is whole: entries 1 to 7.", f"Last entry: 7, seal {'ab' * 16}"]


def test_one_that_a_crash_tore_is_whole_and_says_so(api, run):
    api.on("GET", "/audit/verify", {**WHOLE, "torn_lines": 1})

    said = run("audit", "--verify")

    assert said.code == 0
    assert "1 line was torn by a crash, and noted at once; nothing is missing." in said.out


def test_one_that_is_broken_names_the_places_and_exits_1(api, run):
    fault = {"file": "audit.log", "line": 3, "seq": 5, "reason": "entry 4 is missing before this one"}
    api.on("GET", "/audit/verify", {**WHOLE, "intact": False, "fault_count": 3, "faults": [fault, {**fault, "seq": 0}]})

    said = run("audit", "--verify")

    assert said.code == exits.FAILED
    assert said.out.splitlines()[:5] == [
        "The audit log is broken in 3 places (entries 1 to 7):",
        "FILE        LINE   ENTRY   WHAT IS WRONG",
        "audit.log   3      5       entry 4 is missing before this one",
        "audit.log   3      -       entry 4 is missing before this one",
        "... and 1 more",
    ]
    assert run("audit", "--verify", "--json").code == exits.FAILED


def test_what_is_verified_is_the_whole_log(api, run):
    said = run("audit", "--verify", "--user", "ci")

    assert said.code == 2
    assert "--verify: is of the whole log" in said.err
    assert api.asked == []
