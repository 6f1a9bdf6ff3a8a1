"""What a command may import: a person waits for every module."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SLOW = frozenset(
    (
        "gevent",
        "docker",
        "redis",
        "werkzeug",
        "requests",
        "urllib3",
        "yaml",
        "msgspec",
        "psutil",
        "httptools",
        "logging",
    )
    + (
        "asyncio",
        "dataclasses",
        "subprocess",
        "tarfile",
        "shutil",
        "tempfile",
        "concurrent",
        "multiprocessing",
        "unittest",
    )
    + ("pdb", "xml", "csv", "zipfile", "ctypes", "importlib.metadata", "traceback")
)
"""Modules that no reading command needs. (`uuid` and `inspect` are click's.)"""
LOADED = (
    "import sys; before = set(sys.modules); sys.argv[1:] = {arguments!r}; from agentainerctl.cli import main; main(); "
    "print('\\n'.join(sorted(set(sys.modules) - before)), file=sys.stderr)"
)


def loaded_by(*arguments: str, env: dict[str, str]) -> set[str]:
    code = LOADED.format(arguments=list(arguments))
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import os; os.environ.update({env!r}); " + code], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [("list",), ("list", "-o", "json"), ("__names",), ("system", "ping")])
def test_a_reading_command_loads_nothing_slow(api, arguments):
    api.on("GET", "/agents", [])
    api.on("GET", "/system/ping", {})

    modules = loaded_by(*arguments, env={"AGENTAINER_HOST": api.url})

    assert {"click", "http.client", "json"} <= modules
    assert sorted(name for name in modules if name in SLOW or name.split(".")[0] in SLOW) == []
    ours = {name for name in modules if name.startswith("agentainerd.")}
    assert ours <= {"agentainerd.errors", "agentainerd.defaults", "agentainerd.units", "agentainerd.version"}


def test_only_the_commands_that_are_used_are_loaded(api):
    api.on("GET", "/agents", [])

    modules = loaded_by("list", env={"AGENTAINER_HOST": api.url})

    assert {name for name in modules if name.startswith("agentainerctl.commands.")} == {"agentainerctl.commands.agents"}


def test_yaml_is_loaded_for_yaml(api):
    api.on("GET", "/agents", [])

    assert "yaml" in loaded_by("list", "-o", "yaml", env={"AGENTAINER_HOST": api.url})


def test_help_loads_no_command():
    code = "import sys; sys.argv[1:] = ['--help']; from agentainerctl.cli import main; main(); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)

    assert "agentainerctl.commands" not in done.stderr
    assert "Commands:" in done.stdout


def test_no_module_of_ours_imports_a_slow_one_at_its_top():
    wrong = []
    for path in Path("agentainerctl").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [
                f"{path}: {name}" for name in names if name.split(".")[0] in SLOW | {"uuid", "inspect", "pathlib"}
            ]

    assert wrong == []
