"""Decisions are found by their numbers, so no two have the same one, and each says its own."""

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs/decisions"


def test_each_decision_has_a_number_of_its_own():
    numbers = [path.name[:4] for path in FOLDER.glob("*.md")]

    assert sorted(numbers) == sorted(set(numbers))
    for path in FOLDER.glob("*.md"):
        assert re.match(rf"# {path.name[:4]}: \S", path.read_text()), path.name
