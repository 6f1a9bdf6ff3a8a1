"""The rules of the contract, and that docs/bridge.md has them as they are."""

import json
from pathlib import Path

import ag_ui.core
from pydantic import TypeAdapter

from agentainerctl.commands.bridges import _TIERS, _WIDTH
from agentainerd.model.bridge_rules import RULES, rules_of
from agentainerd.model.bridges import Bridge
from agentainerd.model.event_sequences import SequenceChecker

PAGE = Path(__file__).parents[3] / "docs" / "bridge.md"


def test_the_page_has_every_rule_with_its_tiers_and_its_words():
    shown = [line for line in PAGE.read_text().splitlines() if line.startswith("| `") and line.count("|") == 4]
    rows = [
        f"| `{rule.name}` | {'all' if rule.tiers == set(Bridge) else ', '.join(b for b in Bridge if b in rule.tiers)} | {rule.contract} |"
        for rule in RULES.values()
    ]

    assert [line for line in shown if line in rows] == rows
    assert len(shown) == len(rows) + len(Bridge), "and the table of tiers"


def test_the_run_that_the_page_shows_is_a_right_one():
    events = [
        json.loads(line.removeprefix("data: ")) for line in PAGE.read_text().splitlines() if line.startswith("data: ")
    ]
    checker = SequenceChecker(events[0]["runId"])

    assert [problem for event in events for problem in checker.feed(event)] + checker.end() == []
    for event in events:
        TypeAdapter(ag_ui.core.Event).validate_python(event)


def test_a_native_container_keeps_all_that_an_agui_one_does():
    assert set(rules_of(Bridge.AGUI)) < set(rules_of(Bridge.NATIVE))


def test_the_command_knows_the_tiers_and_has_room_for_the_names():
    assert set(_TIERS) == set(Bridge)
    assert max(map(len, RULES)) == _WIDTH
