"""The contract of containers, on real ones: whoever breaks a rule is found out by it. That the examples keep theirs is shown in
examples/bridges/README.md, whose commands are run by test_documentation.py.

SOAK_BRIDGE=1 has every rule broken in a container; else those that are about time and connections. All of them are tried without
containers in tests/unit/services/test_bridge_check.py.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agentainerd.model.bridge_rules import RULES, rules_of
from agentainerd.model.bridges import Bridge
from tests.fakes.docker import context, docker_api
from tests.system.test_agents_real import host  # noqa: F401 - a fixture

pytestmark = [pytest.mark.docker, pytest.mark.redis]
ROOT = Path(__file__).parents[2]
AGENTS = 6  # that many checks go on at once: they mostly wait
UNSEEN = {"usage", "streamed", "models"}  # only recommended
FEW = {"last_update", "ping_busy", "disconnect", "rejoin", "cancel", "end"}


def breakable():
    """One tier for each rule that can be broken: the first that has it and listens (tests/unit/services has those of commands)."""
    tiers = [bridge for bridge in Bridge if not bridge.is_command]
    having = {name: next((tier for tier in tiers if name in rules_of(tier)), None) for name in RULES}
    wanted = set(RULES) - UNSEEN if os.environ.get("SOAK_BRIDGE") else FEW
    return {name: tier for name, tier in having.items() if tier and name in wanted}


def at_once(function, arguments):
    with ThreadPoolExecutor(AGENTS) as pool:
        return list(pool.map(function, arguments))


@pytest.fixture
def contract_image(docker_host, base_image):
    tag = f"agentainer-test-{os.getpid()}:contract"
    recipe = (
        f'FROM {base_image}\nCOPY agent.py /agent.py\nEXPOSE 8080\nCMD ["/usr/bin/python3", "/agent.py"]\n'.encode()
    )
    files = {"Dockerfile": recipe, "agent.py": (ROOT / "tests/fakes/contract_agent.py").read_bytes()}
    with docker_api(docker_host) as client:
        list(client.build(fileobj=context(files), custom_context=True, tag=tag, rm=True, decode=True))
        yield tag
        client.remove_image(tag, force=True)


def test_whoever_breaks_a_rule_is_found_out_by_that_rule(host, contract_image):  # noqa: F811
    host.image = contract_image
    cases = breakable()
    agents = [f"contract-{number}" for number in range(AGENTS)]
    at_once(host.up, agents)

    def examine(number):
        name, found = agents[number], {}
        for rule in list(cases)[number::AGENTS]:
            become = {
                "tier": cases[rule],
                "breaks": rule,
                "whole_seconds": True,
                "pieces": 60 if rule == "ping_busy" else 8,
            }
            assert host.daemon.http("POST", f"/agent/{name}/become", become)[0] == 200
            path, token = f"/api/v1/agents/{name}/bridge/check", {"Authorization": f"Bearer {host.daemon.token}"}
            lines = host.daemon.http("POST", path, {"bridge": cases[rule]}, token)[1]["raw"].splitlines()
            findings = [json.loads(line).get("finding", {}) for line in lines if line]
            found[rule] = {one["check"] for one in findings if one.get("outcome") == "fail"}
        assert host.ask("DELETE", f"/agents/{name}?force=true")[0] == 200
        return found

    failed = {rule: found for part in at_once(examine, range(AGENTS)) for rule, found in part.items()}

    assert set(failed) == set(cases)
    assert [rule for rule, found in failed.items() if rule not in found] == []
    assert max(map(len, failed.values())) <= 4, "and by little else"
