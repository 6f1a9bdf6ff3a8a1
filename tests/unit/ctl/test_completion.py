"""Completion: the bash script in a real bash, with the real program behind it; the others by what they contain."""

import subprocess
import sys
from pathlib import Path

import pytest

from agentainerctl.cli import COMMANDS
from tests.unit.ctl.fake_api import agent

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def complete(api, run, tmp_path):
    """`complete("agentainerctl sto")`: what bash offers for the last word."""
    api.on("GET", "/agents", [agent(name="web"), agent(name="worker")])
    api.on("GET", "/agents/web/requests", {"requests": [{"id": "id-1"}, {"id": "id-2"}]})
    api.on("GET", "/api/v1/runs", [{"id": "run-1"}, {"id": "run-2"}])
    api.on("GET", "/api/v1/jobs", [{"id": "job-1"}, {"id": "job-2"}])
    api.on("GET", "/api/v1/sessions", sessions=[{"session_id": "talk-1"}])
    (tmp_path / "completion.bash").write_text(run("completion", "bash").out)
    program = tmp_path / "agentainerctl"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={Path.cwd()} exec {sys.executable} -m agentainerctl "$@"\n')
    program.chmod(0o755)
    (tmp_path / "Dockerfile").write_text("")

    def offered(line: str) -> list[str]:
        words = [str(program), *line.split(" ")[1:]]
        script = (
            f"source completion.bash; COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; "
            '_agentainerctl; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=tmp_path,
            env={"AGENTAINER_HOST": api.url, "PATH": "/usr/bin:/bin"},
            capture_output=True,
        )
        assert done.stderr == b""
        return done.stdout.decode().split()

    return offered


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("agentainerctl st", ["start", "stop"]),
        ("agentainerctl --host x re", ["restart", "resume", "remove", "requests"]),
        ("agentainerctl run w", ["web", "worker"]),
        ("agentainerctl run --on-busy r", ["reject"]),
        ("agentainerctl runs attach run", ["run-1", "run-2"]),
        ("agentainerctl runs list --status f", ["failed"]),
        ("agentainerctl jobs download job", ["job-1", "job-2"]),
        ("agentainerctl jobs submit --file Dock", ["Dockerfile"]),
        ("agentainerctl sessions history ta", ["talk-1"]),
        ("agentainerctl start w", ["web", "worker"]),
        ("agentainerctl bridge check w", ["web", "worker"]),
        ("agentainerctl start web wo", ["worker"]),
        ("agentainerctl start --ti", ["--timeout"]),
        ("agentainerctl start --timeout ", []),
        ("agentainerctl list -o ", ["table", "wide", "json", "yaml", "name"]),
        ("agentainerctl list -o json --fi", ["--filter"]),
        ("agentainerctl requests sh", ["show"]),
        ("agentainerctl requests w", ["web", "worker"]),
        ("agentainerctl requests list --state f", ["failed"]),
        ("agentainerctl requests list --state failed w", ["web", "worker"]),
        ("agentainerctl requests show w", ["web", "worker"]),
        ("agentainerctl requests show web id", ["id-1", "id-2"]),
        ("agentainerctl deploy --replay-policy a", ["auto", "at_least_once"]),
        ("agentainerctl deploy --image Dock", ["Dockerfile"]),
        ("agentainerctl completion z", ["zsh"]),
        ("agentainerctl system ", ["df", "info", "logs", "ping"]),
        ("agentainerctl version ", []),
    ],
)
def test_bash_offers(complete, line, expected):
    assert complete(line) == expected


def test_names_are_silent_when_the_daemon_is_away(run):
    assert run("__names") == (0, "", "")
    assert run("__names", "web") == (0, "", "")


@pytest.mark.parametrize("shell", SHELLS)
def test_every_command_is_in_every_script(run, shell):
    ran = run("completion", shell)

    assert (ran.code, ran.err) == (0, "")
    assert [name for name in COMMANDS if name not in ran.out] == []
    assert "__names" in ran.out.replace("__names)", "__names")
    assert "--replay-policy" in ran.out or "-l replay-policy" in ran.out


def test_the_scripts_need_no_daemon(run):
    assert run("completion", "bash", env={"AGENTAINER_HOST": "nonsense"}).code == 0


def test_another_shell_is_a_usage_error(run):
    ran = run("completion", "powershell")

    assert ran.code == 2
    assert "'powershell' is not one of 'bash', 'zsh', 'fish'" in ran.err
