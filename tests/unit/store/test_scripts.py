from importlib.resources import files

import pytest

from agentainerd import defaults
from agentainerd.model.requests import Outcome, Reason, RequestState
from agentainerd.store import keys, operations, scripts
from tests.fakes.stores import Store


def test_limits_and_flags_are_in_front_of_each_script():
    text = scripts.load("batch", flags="allow-oom").source.decode()

    assert text.startswith("#!lua flags=allow-oom\n")
    assert f"local MAX_FAILED = {defaults.MAX_FAILED}\n" in text
    assert scripts.load("batch").source.startswith(b"#!lua\n")


def test_variants_of_a_script_have_names_of_their_own():
    assert scripts.load("batch").sha != scripts.load("batch", flags="allow-oom").sha


def test_operations_have_as_many_arguments_as_the_script_expects():
    record = Store.record(None, key="k", body=b"x")
    outcome = Outcome(RequestState.FAILED, Reason.ATTEMPTS, error="it's over")
    made = [
        operations.begin(record),
        operations.end(record, outcome, 1.0),
        operations.accept(record, Reason.QUEUED, 0.0),
        operations.reserve(record, 1.0),
        operations.claim("agent", limit=1, now=1.0, until=2.0, ordered=True),
        operations.bury_live(record, outcome, 1.0),
        operations.finish(record, 1, outcome, now=1.0, key_ttl_s=1.0),
        operations.bury(record, 1, outcome, 1.0),
        operations.retry(record, 1, attempts=1, due_at=1.0, error="x"),
        operations.renew(record, 1, 2.0),
        operations.revoke("id"),
        operations.NOTHING,
    ]
    lua = (files("agentainerd.store") / "lua" / "batch.lua").read_text()

    assert {op[operations.LETTER] for op in made} == set(operations.ARGUMENTS)
    for op in made:
        letter = chr(op[operations.LETTER])
        assert count(op) == operations.ARGUMENTS[ord(letter)], letter
        assert f"{letter} = {operations.ARGUMENTS[ord(letter)]}," in lua, letter


def count(op):
    words = 0
    while op:
        head, _, rest = op.partition(b"\r\n")
        op = rest[int(head[1:]) + 2 :]
        words += 1
    return words


@pytest.mark.parametrize("value", ["plain", "ünï", "a\r\n$3\r\nb", "\udc80"])
def test_text_of_any_kind_is_one_argument(value):
    record = Store.record(None)

    assert count(operations.retry(record, 1, attempts=1, due_at=0.0, error=value)) == 9


def test_keys_are_documented_where_they_are_named():
    for name in (
        "install_id",
        "schema",
        "epoch",
        "batch",
        "agents",
        "names",
        "known",
        "gone",
        "live:",
        "hist:",
        "r:",
        "idem:",
        "x ",
    ):
        assert f"\n    {name}" in keys.__doc__
