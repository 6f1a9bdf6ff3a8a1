"""`bridge check`: findings as they come, one line each, and the exit code that scripts go by."""

import json

PATH = "/api/v1/agents/web/bridge/check"


def finding(check, outcome, seen, contract="it must be so"):
    return {"finding": {"check": check, "outcome": outcome, "seen": seen, "contract": contract}}


KEPT = finding("ping", "pass", "3 ms")
BROKEN = finding("pairs", "fail", "event 4 has\x1b[31m no start")
UNSEEN = finding("usage", "skip", "none")


def result(failed):
    return {"result": {"bridge": "agui", "passed": 1, "failed": failed, "skipped": 1}}


def test_a_broken_rule_says_what_was_seen_and_what_the_contract_says(api, run):
    api.on_lines("POST", PATH, KEPT, BROKEN, UNSEEN, result(1))

    ran = run("bridge", "check", "web")

    assert ran.out.splitlines() == [
        "✓ ping            3 ms",
        "✗ pairs           event 4 has\\x1b[31m no start",
        "                  contract: it must be so",
        "- usage           none",
        "web does not keep the contract of tier agui: 1 kept, 1 broken, 1 not seen.",
    ]
    assert (ran.code, api.asked[-1].json) == (1, {"bridge": None, "task": None})


def test_a_container_that_keeps_the_contract(api, run):
    api.on_lines("POST", PATH, KEPT, UNSEEN, result(0))

    ran = run("bridge", "check", "web", "--bridge", "agui", "--task", "hello", "--timeout", "2m")

    assert ran.out.splitlines()[-1] == "web keeps the contract of tier agui: 1 kept, 0 broken, 1 not seen."
    assert (ran.code, api.asked[-1].json) == (0, {"bridge": "agui", "task": "hello", "timeout_s": 120.0})


def test_quietly_only_what_is_broken(api, run):
    api.on_lines("POST", PATH, KEPT, BROKEN, UNSEEN, result(1))

    ran = run("bridge", "check", "web", "-q")

    assert [line[0] for line in ran.out.splitlines()] == ["✗", " "]


def test_for_programs_it_is_one_document(api, run):
    api.on_lines("POST", PATH, KEPT, BROKEN, result(1))

    ran = run("bridge", "check", "web", "-o", "json")

    said = json.loads(ran.out)
    assert (said["bridge"], said["failed"], [one["check"] for one in said["findings"]]) == (
        "agui",
        1,
        ["ping", "pairs"],
    )
    assert ran.code == 1


def test_a_check_that_stops_in_the_middle_is_no_success(api, run):
    api.on_lines("POST", PATH, KEPT)

    ran = run("bridge", "check", "web")

    assert ran.code == 5
    assert "agentainerd stopped before it was done" in ran.err


def test_an_agent_that_is_not_ready(api, run):
    api.on("POST", PATH, status=409, message="no container is ready", code="AGENT_NOT_RUNNING")

    assert run("bridge", "check", "web").code == 4
