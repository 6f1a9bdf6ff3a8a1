"""`models` and `usage`, as a person reads them."""

import json

import pytest

USAGE = {
    "calls": 12345, "failed": 0, "input_tokens": 1_000_000, "cached_tokens": 10, "output_tokens": 5, "reasoning_tokens": 0,
    "estimated": 0, "unpriced": 0, "total_tokens": 1_000_005, "cost_usd": 1.25,
}  # fmt: skip


def report(*rows: dict, **total: object) -> dict:
    today = {"day": "2026-11-21", "cost_usd": 0.5, "budget_usd": None}
    return {"since": "2026-10-22", "by": "agent", "rows": list(rows), "total": {**USAGE, **total}, "today": today}


@pytest.fixture
def shown(api, run):
    def show(path: str, data: object, *words: str):
        api.on("GET", path, data)
        return run(*words)

    return show


def test_usage_is_a_table_with_a_total(shown):
    rows = [
        {"agent_id": "agent-1", "agent": "web", **USAGE},
        {"agent_id": "agent-2", "agent": "", **USAGE, "cost_usd": None},
    ]

    result = shown("/usage", report(*rows, unpriced=3, estimated=2), "usage")

    lines = result.out.splitlines()
    assert lines[0].split() == ["AGENT", "CALLS", "FAILED", "INPUT", "CACHED", "OUTPUT", "COST"]
    assert lines[1].split() == ["web", "12,345", "0", "1,000,000", "10", "5", "$1.2500"]
    assert lines[2].split()[0] == "agent-2"
    assert lines[2].split()[-1] == "-"
    assert lines[3].split()[-1] == "$1.2500+"
    assert "3 calls have no known price" in result.err
    assert "2 calls were cut off" in result.err


def test_no_usage_and_no_models_are_said_in_words(shown):
    assert shown("/usage", report(), "usage").out == "No model was used since 2026-10-22\n"
    assert "models.providers" in shown("/models", [], "models").out


def test_models_are_a_table_and_names(shown):
    found = [
        {"name": "small", "models": ["openai/a", "open/x"], "price": None},
        {"name": "openai/a", "models": [], "price": {"input": 0.25, "cached": None, "output": 2.0}},
    ]

    lines = shown("/models", found, "models").out.splitlines()

    assert lines[1].split(maxsplit=4) == ["small", "-", "-", "-", "openai/a, open/x"]
    assert lines[2].split() == ["openai/a", "0.25", "-", "2", "-"]
    assert shown("/models", found, "models", "-o", "name").out == "small\nopenai/a\n"
    assert json.loads(shown("/models", found, "models", "-o", "json").out) == found
