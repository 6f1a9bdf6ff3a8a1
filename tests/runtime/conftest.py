"""A process that runs the runtime's tools, and a workspace for them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
SECRETS = {name: f"secret-{name.lower()}-value" for name in ("OPENAI_API_KEY", "GITHUB_TOKEN", "SOME_PASSWORD")}


class Tools:
    """Calls tools in their own process; what it started is gone afterwards."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "tool_driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **SECRETS, "PYTHONPATH": str(ROOT / "agentainerd" / "runtime")},
        )

    def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The tool's answer to these arguments."""
        return self.full(tool, arguments)["result"]

    def full(self, tool: str, arguments: dict[str, Any], **how: Any) -> dict[str, Any]:
        """The answer, the edits that were reported, how long it took, and the processes that were left."""
        return self.ask(self.call(tool, arguments, **how))

    def call(
        self,
        tool: str,
        arguments: dict[str, Any],
        *,
        mode: str = "off",
        room_s: float = 60.0,
        cancel_when: Path | None = None,
        begin_when: Path | None = None,
        cancel_after: int = 0,
        environment: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        return {
            "tool": tool,
            "arguments": arguments,
            "mode": mode,
            "room_s": room_s,
            "cancel_when": str(cancel_when or ""),
            "cancel_after": cancel_after,
            "begin_when": str(begin_when or ""),
            "environment": environment or {},
            "workspace": str(self.workspace),
        }

    def ask(self, asked: Any) -> Any:
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def driver() -> Iterator[Tools]:
    tools = Tools(Path("/"))
    yield tools
    tools.close()


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def tools(driver: Tools, workspace: Path) -> Tools:
    driver.workspace = workspace
    return driver


@pytest.fixture
def repository(workspace: Path) -> Callable[..., str]:
    """`repository("status")`: git in the workspace, which is a repository with one commit."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-c", "user.name=A", "-c", "user.email=a@b", *arguments],
            cwd=workspace,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    git("init", "-q", "-b", "main")
    (workspace / "a.txt").write_text("one\ntwo\n")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return git
