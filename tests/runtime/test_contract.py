"""The runtime of agents against the contract that everybody's containers are held to: every rule of the native tier."""

from agentainerd.model.bridge_rules import Outcome, rules_of
from agentainerd.model.bridges import Bridge
from agentainerd.proxy.target import Target
from agentainerd.services.bridge_check import PAUSE_S, TASK, Examination
from agentainerd.services.bridge_trials import Trial
from agentainerd.supervisor import Supervisor
from tests.fakes.runtime import start_runtime  # noqa: F401 - a fixture

TURNS = [{"text": "one two three four five six seven eight nine ten eleven twelve", "pause_s": 0.05, "times": 0}]


def test_it_keeps_every_rule(start_runtime):  # noqa: F811
    runtime, supervisor = start_runtime(TURNS), Supervisor()
    trial = Trial(Target(("127.0.0.1", runtime.port)), supervisor.spawn, TASK, wall_s=20.0, pause_s=PAUSE_S)

    found = list(Examination(trial, Bridge.NATIVE))

    supervisor.stop(1)
    assert {finding.check: finding.seen for finding in found if finding.outcome is not Outcome.PASS} == {}
    assert len(found) == len(rules_of(Bridge.NATIVE))
