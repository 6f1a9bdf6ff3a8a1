"""Imports point down only: this test reads them all and fails otherwise (docs/architecture.md has the table)."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
EDGE = {
    "agentainerd.version",
    "agentainerd.clock",
    "agentainerd.log_context",
    "agentainerd.defaults",
    "agentainerd.errors",
    "agentainerd.units",
}
LEAVES = {
    "agentainerd.version": set(),
    "agentainerd.clock": set(),
    "agentainerd.log_context": set(),
    "agentainerd.defaults": set(),
    "agentainerd.errors": set(),
    "agentainerd.units": {"agentainerd.errors"},
}
ALLOWED = {
    "agentainerd.model": {"agentainerd.model", "msgspec", *EDGE},
    "agentainerd.store": {
        "agentainerd.store", "agentainerd.model", "agentainerd.offload", "agentainerd.strict_yaml", "redis", "msgspec", "gevent",
        "psutil", "yaml", *EDGE,
    },
    # requests and urllib3 are docker's own: their errors come out of its client, and engine/ is where they end.
    "agentainerd.engine": {
        "agentainerd.engine", "agentainerd.model", "docker", "requests", "urllib3", "psutil", "gevent",
        "agentainerd.offload", *EDGE,
    },
    "agentainerd.proxy": {"agentainerd.proxy", "agentainerd.model", "agentainerd.offload", "gevent", "httptools", "msgspec", *EDGE},
    "agentainerd.archives": {"agentainerd.archives", "agentainerd.offload", "gevent", "msgspec", *EDGE},
    "agentainerd.services": {
        "agentainerd.services", "agentainerd.store", "agentainerd.engine", "agentainerd.archives", "agentainerd.model", "cryptography",
        "agentainerd.proxy.routing", "agentainerd.proxy.target", "agentainerd.proxy.replay",
        "agentainerd.proxy.model_gate", "agentainerd.proxy.providers", "agentainerd.proxy.port_access",
        "agentainerd.supervisor", "agentainerd.offload", "agentainerd.config", "msgspec", "gevent", "psutil", *EDGE,
    },
    "agentainerd.loops": {"agentainerd.loops", "agentainerd.services", "agentainerd.model", *EDGE},
    "agentainerd.api": {
        "agentainerd.api", "agentainerd.services", "agentainerd.model", "agentainerd.offload", "werkzeug", "msgspec", "gevent",
        "prometheus_client", *EDGE,
    },
    # A program of its own, in the image of agents: it shares nothing with the daemon but the contract of decision 0014.
    "agentainerd.runtime": {"agentainer_runtime", "starlette", "uvicorn", "httpx2", "yaml"},
    "agentainerctl": {"agentainerctl", "click", "yaml", *EDGE - {"agentainerd.clock", "agentainerd.log_context"}},
}  # fmt: skip
PROXY_ONLY_MODEL = {"agentainerd.model.requests", "agentainerd.model.tallies"}
STANDARD = __import__("sys").stdlib_module_names


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            if module in ("agentainerd", "agentainerctl") or is_package(module):
                names |= {f"{module}.{alias.name}" for alias in node.names}
            else:
                names.add(module)
    return names


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/")).is_dir()


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def allowed(name: str, rules: set[str]) -> bool:
    return name.split(".")[0] in STANDARD or any(name == rule or name.startswith(rule + ".") for rule in rules)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package.replace(".", "/")).rglob("*.py"))


def test_every_layer_imports_only_what_lies_below_it():
    wrong = []
    for package, rules in ALLOWED.items():
        found = sources(package)
        assert found, f"no module in {package}: the table is out of date"
        for path in found:
            wrong += [f"{module_of(path)} imports {name}" for name in imports_of(path) if not allowed(name, rules)]

    assert not wrong, "\n".join(wrong)


def test_the_proxy_knows_of_the_model_only_requests_and_how_they_are_counted():
    wrong = [
        f"{module_of(path)} imports {name}"
        for path in sources("agentainerd.proxy")
        for name in imports_of(path)
        if name.startswith("agentainerd.model") and not allowed(name, PROXY_ONLY_MODEL)
    ]

    assert not wrong, "\n".join(wrong)


def test_the_leaves_import_nothing_else_of_ours():
    wrong = [
        f"{module} imports {name}"
        for module, rules in LEAVES.items()
        for name in imports_of(ROOT / (module.replace(".", "/") + ".py"))
        if not allowed(name, rules)
    ]

    assert not wrong, "\n".join(wrong)


def test_no_module_is_longer_than_500_lines():
    long = [
        f"{module_of(path)}: {lines} lines"
        for package in ("agentainerd", "agentainerctl")
        for path in sources(package)
        if (lines := len(path.read_text().splitlines())) > 500
    ]

    assert not long, "\n".join(long)


def test_no_module_has_a_name_that_says_nothing():
    banned = {"utils.py", "helpers.py", "common.py", "base.py", "manager.py", "util.py", "misc.py"}
    wrong = [
        module_of(path)
        for package in ("agentainerd", "agentainerctl")
        for path in sources(package)
        if path.name in banned
    ]

    assert not wrong, wrong
