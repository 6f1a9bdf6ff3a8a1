import re
from importlib.resources import files

from agentainerd.store import keys

SCRIPTS = "".join(path.read_text() for path in (files("agentainerd.store") / "lua").iterdir())


TOLD = ("write_runs.lua", "add_usage.lua")
"""Scripts that are told the names of their keys; all others spell them."""


def documented(*, told: bool) -> set[str]:
    """The kinds of keys of the table, whose scripts are told their names, or spell them."""
    found = set()
    for line in re.findall(r"^    (\S.*? +(?:string|hash|set|zset|list|stream) .*)$", keys.__doc__, re.MULTILINE):
        names = re.match(r"(.*?) +(?:string|hash|set|zset|list|stream) ", line)[1]
        if line.endswith(TOLD) == told:
            found |= {re.sub(r":\{\w+\}$", "", name) for name in names.split(", ")}
    return found


def test_scripts_that_are_told_their_keys_are_told_those_of_the_table():
    made = {
        keys.run("x"), keys.run_events("x"), keys.agent_runs("x"), keys.run_key("x"), keys.session("x"),
        keys.session_messages("x"), keys.session_runs("x"), keys.spent("x"), keys.spent_run("x"), keys.spent_session("x"),
        keys.RUNS, keys.RUNS_ACTIVE, keys.RUNS_ENDED, keys.RUNS_SIZES, keys.SESSIONS, keys.job("x"), keys.JOBS, keys.JOBS_ENDED,
    }  # fmt: skip

    assert {name.removeprefix("agentainer:").removesuffix(":x") for name in made} == documented(told=True) - {
        "spent-batch"
    }


def test_scripts_spell_the_same_names():
    used = set(re.findall(r"P \.\. '([a-z_]+):?'", SCRIPTS)) | set(re.findall(r"'(q|d|lease|dead|done):'", SCRIPTS))
    used |= set(re.findall(r"trim\(\w+\.\w+, '(\w+)'", SCRIPTS))

    assert used == documented(told=False)


def test_functions_make_the_names_that_scripts_use():
    for name, kind in (
        (keys.live("agent"), "live"), (keys.history("agent"), "hist"), (keys.queued("agent"), "q"),
        (keys.delayed("agent"), "d"), (keys.leased("agent"), "lease"), (keys.dead("agent"), "dead"),
        (keys.record("agent"), "r"), (keys.metrics("agent"), "usage"),
    ):  # fmt: skip
        assert name == f"agentainer:{kind}:agent"
    assert {keys.EPOCH, keys.KNOWN, keys.DEADLINES} == {"agentainer:epoch", "agentainer:known", "agentainer:x"}
