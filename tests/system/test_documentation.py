"""Every command that README and docs show is run, in their order, against a real daemon; what they show of its output is there.

A command is a line that begins with `$ ` in a fenced block, or one of our programs, curl or docker at the beginning of a line of
another block. The lines after a `$ ` are its output: each must come, in this order, with ids, times and sizes of its own.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.fakes.docker import docker_api, only_user_of

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/README.md"))
)
NOT_RUN = {
    r"make (quickstart|test)\b": "what runs this test; and the quickstart that .ci/run does not need",
    r"make (install|deb|uninstall)": "tests/packages",
    r".*backup import": "needs another host",
    r"pip install \.": "tests/packages",
    r"agentainerctl (runtime build --desktop|deploy --runtime --image agentainer-desktop.*|open painter)$": "tests/runtime/test_desktop.py",
    r"agentainerctl runtime build$": "asks an index for packages, which containers may not reach: scripts/runtime-image makes the same",
    r"agentainerd( &|$| +#)": "the daemon that the other commands talk to",
    r"agentainerd .*--accept-journal-loss": "tests/system/test_daemon_start.py",
}
REFERENCE = "<!-- reference: begin"  # of the commands, written by the program itself
PROGRAMS = ("agentainerctl ", "agentainer ", "agentainerd ", "curl ", "docker ")
FOLLOWS = re.compile(r"--follow|follow=true|--watch|agentainerctl top\b|logs -f\b")
FOLLOW_S = "3"
WORKSPACE = "-workspace"  # the end of the names of volumes that `deploy --runtime` makes
KINDS = (
    r"agent-[0-9a-f]{16}", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", r"(?<=[?&]t=)[\w-]+",
    r"(?<=:)\d{8}-\d{6}\b", r"(?<=\bjob-)[0-9a-f]{8}\b",
)  # fmt: skip
"""What is another one each time: agents, requests, tickets, versions of images, files of jobs."""
CHANGES = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?Z?", "<time>"), (r"just now|\d+ \w+ ago", "<age>"), (r"(?<=in )[\d.]+ m?s\b", "<span>"), (r"\d+(\.\d+)?", "<n>"),
    (r"\s+", " "), (r"[-─]{3,}", "---"),
)  # fmt: skip


@dataclass
class Command:
    """One command of a page, and the lines that are shown as its output."""

    line: str
    output: list[str] = field(default_factory=list)


def commands_of(text: str) -> list[Command]:
    found: list[Command] = []
    is_fenced = has_prompts = False
    for raw in text.partition(REFERENCE)[0].splitlines():
        if raw.startswith("```"):
            is_fenced, has_prompts = not is_fenced, False
            continue
        line = raw[4:] if not is_fenced and raw.startswith("    ") else raw
        if is_fenced and line.startswith("$ "):
            has_prompts = True
            found.append(Command(line[2:]))
        elif is_fenced and has_prompts:
            found[-1].output.append(line)
        elif (is_fenced or raw.startswith("    ")) and line.startswith(PROGRAMS):
            found.append(Command(line))
    return found


class Reader:
    """Somebody who does what the page says."""

    def __init__(self, daemon, folder: Path) -> None:
        self.daemon, self.folder = daemon, folder
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "secret.txt").write_text("correct horse battery staple\n")
        self.known: dict[str, str] = {}  # what the page calls something: what it is called here

    def run(self, command: Command) -> None:
        line = command.line
        for there, here in self.known.items():
            line = line.replace(there, here)
        for there, here in (
            ("localhost:8081", f"127.0.0.1:{self.daemon.port}"), ("127.0.0.1:8081", f"127.0.0.1:{self.daemon.port}"),
            ("/run/agentainer/agentainer.sock", str(self.daemon.control_socket)),
            ("/var/lib/agentainer", str(self.daemon.state_dir)),
        ):  # fmt: skip
            line = line.replace(there, here)
        environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(self.folder), "COLUMNS": "200",
            "AGENTAINER_HOST": f"unix://{self.daemon.control_socket}", "AGENTAINER_TOKEN": self.daemon.token,
        }  # fmt: skip
        follows = FOLLOWS.search(line)
        shell = ["timeout", FOLLOW_S, "bash", "-c", line] if follows else ["bash", "-o", "pipefail", "-c", line]
        done = subprocess.run(
            shell, cwd=self.folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        said = done.stdout
        assert done.returncode in ((0, 124) if follows else (0,)), f"{command.line}\nexit {done.returncode}\n{said}"
        shown = "\n".join(command.output)
        for kind in KINDS:
            self.known |= dict(zip(distinct(kind, shown), distinct(kind, said), strict=False))
        lines = iter([alike(one) for one in said.splitlines()])
        for expected in filter(None, map(alike, command.output)):
            assert expected == "..." or expected in lines, f"{command.line}\nhas no line\n  {expected}\nin\n{said}"


def distinct(kind: str, text: str) -> list[str]:
    return list(dict.fromkeys(re.findall(kind, text)))


def alike(line: str) -> str:
    """Return a line without what differs from run to run."""
    for kind in KINDS:
        line = re.sub(kind, "<id>", line)
    for pattern, sign in CHANGES:
        line = re.sub(pattern, sign, line)
    return line.strip()


@pytest.fixture
def named_images(docker_host, base_image, agent_image, runtime_image):
    """The images that pages speak of, under the names that they have there, but for those that are somebody's already. Each has
    another name beside that one, by which it is known for ours where this session is killed.
    """
    names = {"my-agent:1.0": agent_image, "python:3.12-slim": base_image, "agentainer-runtime:latest": runtime_image}
    with only_user_of("images of the documentation"), docker_api(docker_host) as client:
        there = {tag: image["Id"] for image in client.images() for tag in image.get("RepoTags") or ()}
        beside = {name: f"agentainer-test-named:{name.replace(':', '-')}" for name in names}
        ours = [name for name in names if name not in there or there[name] == there.get(beside[name])]
        for name in ours:
            for tag in (beside[name], name):
                client.tag(names[name], *tag.split(":"))
        yield
        for name in ours:
            for tag in (name, beside[name]):
                client.remove_image(tag, force=True, noprune=True)


@pytest.fixture
def reader(start_daemon, docker_sandbox, named_images, tmp_path):
    """A daemon on which the agents `web` and `worker` run, where a page speaks of them and does not deploy them itself; in the
    folder are the examples and a file with a passphrase.
    """
    yield Reader(start_daemon(sandbox=docker_sandbox), tmp_path)
    with docker_api(docker_sandbox.host) as client:
        containers = client.containers(all=True, filters={"network": docker_sandbox.network})
        workspaces = {
            mount["Name"]
            for found in containers
            for mount in found["Mounts"]
            if mount.get("Name", "").endswith(WORKSPACE)
        }
        docker_sandbox.remove_containers()
        for name in workspaces:  # the next page, or session, is to begin with an empty one
            client.remove_volume(name)


@pytest.mark.parametrize("page", [page for page in PAGES if commands_of((ROOT / page).read_text())])
def test_what_a_page_shows_is_what_happens(page, reader):
    commands = [
        one
        for one in commands_of((ROOT / page).read_text())
        if not any(re.match(skipped, one.line) for skipped in NOT_RUN)
    ]
    text = "\n".join(one.line for one in commands)
    for name in ("web", "worker"):
        if re.search(rf"\b{name}\b", text) and f"--name {name}" not in text:
            spec = {"name": name, "image": "my-agent:1.0", "auto_restart": True}
            assert reader.daemon.control("POST", "/agents", spec)[0] == 201
            assert reader.daemon.control("POST", f"/agents/{name}/start?wait=30")[0] == 200
    for command in commands:
        reader.run(command)


def test_nothing_is_left_out_without_a_reason_that_still_holds():
    lines = [one.line for page in PAGES for one in commands_of((ROOT / page).read_text())]
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, line) for line in lines)] == []


def test_the_deployment_that_is_shown_is_the_one_that_is_applied():
    shown = (ROOT / "docs/deployments.md").read_text().partition("```yaml\n")[2].partition("```")[0]
    applied = (ROOT / "examples/deployments/hello.yaml").read_text()
    assert yaml.safe_load(shown)["spec"] == yaml.safe_load(applied)["spec"]
