"""The audit log: one line for each mutation, one and a count for failures."""

import json
import os
import threading

import pytest

from agentainerd.errors import NotFound
from agentainerd.services.audit import MAX_SOURCES, MAX_TEXT_CHARS, SUMMARY_S, Actor, AuditService

ALICE = Actor("unix:1000(alice)/pid 7", "unix")


@pytest.fixture
def audit(tmp_path):
    service = AuditService(str(tmp_path / "audit.log"))
    yield service
    service.close()


@pytest.fixture
def lines(tmp_path):
    return lambda: [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]


def test_a_mutation_is_one_line_when_it_has_ended(audit, lines, tmp_path):
    with audit.mutation(ALICE, "start_agent", "web") as entry:
        assert not (tmp_path / "audit.log").exists()
        entry.target = "agent-1"

    (line,) = lines()
    assert line.pop("time").endswith("Z")
    assert line == {
        "actor": "unix:1000(alice)/pid 7", "source": "unix", "action": "start_agent", "target": "agent-1", "result": "ok",
    }  # fmt: skip
    assert oct((tmp_path / "audit.log").stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize(
    ("error", "result"), [(NotFound("agent", "web"), "AGENT_NOT_FOUND"), (RuntimeError("secret"), "INTERNAL")]
)
def test_one_that_fails_has_the_code_and_goes_on_failing(audit, lines, error, result):
    with pytest.raises(type(error)), audit.mutation(ALICE, "start_agent", "web"):
        raise error

    assert [line["result"] for line in lines()] == [result]
    assert "secret" not in str(lines())


def test_texts_are_cut_and_lines_stay_lines(audit, lines):
    audit.record(Actor("x" * 1000, "s\nforged"), "deploy_agent", "a\n{}" + "y" * 1000)

    (line,) = lines()
    assert (len(line["actor"]), len(line["target"])) == (MAX_TEXT_CHARS, MAX_TEXT_CHARS)
    assert line["source"] == "s\nforged"


def test_the_first_refusal_of_a_source_is_a_line_and_the_rest_a_count(audit, lines):
    nobody = Actor("anonymous", "192.0.2.1")
    for _ in range(100):
        audit.refuse(nobody, "log_in", now=1000.0)
    audit.refuse(Actor("anonymous", "192.0.2.2"), "log_in", now=1000.0)
    assert [line["source"] for line in lines()] == ["192.0.2.1", "192.0.2.2"]

    assert audit.flush(1000.0 + SUMMARY_S - 1) == 0
    assert audit.flush(1000.0 + SUMMARY_S) == 1

    assert lines()[-1]["target"] == "99 more"
    assert lines()[-1]["result"] == "refused"
    assert audit.flush(1000.0 + 3 * SUMMARY_S) == 0  # nothing came since
    audit.refuse(nobody, "log_in", now=2000.0)
    assert len(lines()) == 4


def test_many_sources_share_one_count(audit, lines):
    for number in range(MAX_SOURCES + 50):
        audit.refuse(Actor("anonymous", f"10.0.{number // 250}.{number % 250}"), "log_in", now=1000.0)

    assert len(lines()) == MAX_SOURCES + 1
    assert lines()[-1]["source"] != "others"  # the first of them is told with its own address
    assert audit.flush(1000.0 + SUMMARY_S) == 1
    assert (lines()[-1]["source"], lines()[-1]["target"]) == ("others", "49 more")


def test_a_log_that_cannot_be_written_is_said_once_and_stops_nothing(audit, tmp_path, caplog):
    (tmp_path / "audit.log").mkdir()
    for _ in range(3):
        with audit.mutation(ALICE, "start_agent", "web"):
            pass
    assert caplog.text.count("the audit log cannot be written") == 1
    assert "cannot be written" in audit.trouble

    (tmp_path / "audit.log").rmdir()
    audit.record(ALICE, "start_agent", "web")
    assert audit.trouble == ""


def test_a_link_in_its_place_is_not_followed(audit, tmp_path):
    (tmp_path / "passwd").write_text("root")
    (tmp_path / "audit.log").symlink_to(tmp_path / "passwd")

    audit.record(ALICE, "start_agent", "web")

    assert (tmp_path / "passwd").read_text() == "root"
    assert audit.trouble


def test_after_close_it_opens_again_so_that_it_can_be_moved_away(audit, lines, tmp_path):
    audit.record(ALICE, "one", "")
    audit.close()
    os.rename(tmp_path / "audit.log", tmp_path / "audit.log.1")

    audit.record(ALICE, "two", "")

    assert [line["action"] for line in lines()] == ["two"]


def test_lines_of_many_at_once_are_whole(audit, lines):
    workers = [
        threading.Thread(target=lambda: [audit.record(ALICE, "x", "y" * 200) for _ in range(50)]) for _ in range(8)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    assert len(lines()) == 400
