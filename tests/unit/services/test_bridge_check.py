"""Each rule of the contract: an agent that keeps them all, and one that breaks it and is found out."""

import threading
from contextlib import contextmanager

import pytest
from gevent.pool import Pool

from agentainerd.model.bridge_rules import Outcome, rules_of
from agentainerd.model.bridges import Bridge
from agentainerd.proxy.target import Target
from agentainerd.services import bridge_trials
from agentainerd.services.bridge_check import Examination
from agentainerd.services.bridge_trials import Trial
from agentainerd.supervisor import Supervisor
from tests.fakes.contract_agent import Agent, serve

# Rules of which a missing one is no failure, and what follows from another one.
SLOW_PING = {"pieces": 30, "ping_s": 0.3}  # a run that lasts longer than a ping may take
RECOMMENDED = {"usage", "models", "progress", "streamed"}
FOLLOWS = {
    "ping": {"ping_busy"},
    "answer": {"task", "text"},
    "last": {"task"},
    "fields": {"pairs"},
    "end": {"task", "history", "unknown_fields"},
    "done": {"task"},
    "frames": {"done"},
}
HTTP = [tier for tier in Bridge if not tier.is_command]
CASES = [(tier, rule) for tier in HTTP for rule in ("", *rules_of(tier))]


@contextmanager
def running(agent):
    server = serve(agent)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Target(("127.0.0.1", server.server_port))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def examine(tier, breaks="", *, pieces=8, ping_s=1.0):
    supervisor = Supervisor()
    with running(Agent(tier, breaks, pieces=pieces)) as target:
        trial = Trial(target, supervisor.spawn, "count", wall_s=10.0, pause_s=0.01, ping_s=ping_s)
        examination = Examination(trial, Bridge(tier))
        found = list(examination)
    supervisor.stop(1)
    assert sorted(finding.check for finding in found) == sorted(rules_of(examination.bridge)), "each rule once"
    assert all(finding.seen and finding.contract for finding in found)
    assert target.in_flight == 0
    return examination.bridge, {finding.check: finding for finding in found}


@pytest.fixture(scope="module")
def examined():
    """What is found of each tier's agent, and of each that breaks one of its rules: all at once, they mostly wait."""
    pool = Pool(16)
    waiting = {case: pool.spawn(examine, *case, **(SLOW_PING if case[1] == "ping_busy" else {})) for case in CASES}
    return {case: greenlet.get(timeout=60)[1] for case, greenlet in waiting.items()}


def failed(found):
    return {name for name, finding in found.items() if finding.outcome is Outcome.FAIL}


@pytest.mark.parametrize("tier", HTTP)
def test_an_agent_that_keeps_the_contract_passes_every_rule(examined, tier):
    found = examined[tier, ""]

    assert {name: finding.seen for name, finding in found.items() if finding.outcome is not Outcome.PASS} == {}


@pytest.mark.parametrize(("tier", "rule"), [case for case in CASES if case[1]])
def test_an_agent_that_breaks_a_rule_is_found_out_by_that_rule(examined, tier, rule):
    found = examined[tier, rule]

    is_recommended = rule in RECOMMENDED and (tier, rule) != (Bridge.NATIVE, "progress")
    print(found[rule])
    assert found[rule].outcome is (Outcome.SKIP if is_recommended else Outcome.FAIL)
    assert failed(found) - {rule} <= FOLLOWS.get(rule, set())


def test_an_answer_that_does_not_end_with_its_run_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(bridge_trials, "CLOSE_S", 0.05)

    _, found = examine("agui", "open")

    assert failed(found) == {"last"}
    assert found["last"].seen == "the answer does not end after RUN_FINISHED"


def test_what_is_over_too_soon_to_be_seen_is_not_held_against_it():
    _, found = examine("native", pieces=0)

    assert failed(found) == set()
    assert found["cancel"].outcome is Outcome.SKIP


def test_a_ping_that_comes_in_pieces_has_one_second_for_all_of_them():
    _, found = examine("agui", "drip", pieces=40, ping_s=0.3)

    assert failed(found) == {"ping", "ping_busy"}
    assert found["ping"].seen.startswith("it took ")
