import re
from importlib.resources import files

from agentainerd.store import keys

SCRIPTS = "".join(path.read_text() for path in (files("agentainerd.store") / "lua").iterdir())


def test_scripts_spell_the_same_names():
    documented = set(
        re.findall(r"^    ([a-z_]+):?(?:\{\w+\})?  +(?:string|hash|set|zset|list|stream) ", keys.__doc__, re.MULTILINE)
    )
    used = set(re.findall(r"P \.\. '([a-z_]+):?'", SCRIPTS)) | set(re.findall(r"'(q|d|lease|dead|done):'", SCRIPTS))
    used |= set(re.findall(r"trim\(\w+\.\w+, '(\w+)'", SCRIPTS))

    assert used == documented


def test_functions_make_the_names_that_scripts_use():
    for name, kind in (
        (keys.live("agent"), "live"), (keys.history("agent"), "hist"), (keys.queued("agent"), "q"),
        (keys.delayed("agent"), "d"), (keys.leased("agent"), "lease"), (keys.dead("agent"), "dead"),
        (keys.record("agent"), "r"), (keys.metrics("agent"), "usage"),
    ):  # fmt: skip
        assert name == f"agentainer:{kind}:agent"
    assert {keys.EPOCH, keys.KNOWN, keys.DEADLINES} == {"agentainer:epoch", "agentainer:known", "agentainer:x"}
