"""A push of what was committed, over the WebSocket, to a git server that asks for a credential: only that server gets to see it."""

import subprocess
from pathlib import Path

import pytest

from tests.fakes.git_server import TOKEN, GitServer
from tests.fakes.runtime import runtimes
from tests.fakes.websockets import WebSocketClient


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", *arguments],
        cwd=folder, check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip


@pytest.fixture
def server(tmp_path):
    """A server with shop.git, which has one commit on main."""
    root = tmp_path / "server"
    (root / "work").mkdir(parents=True)
    git(root / "work", "init", "-q", "-b", "main")
    (root / "work" / "a.py").write_text("print(1)\n")
    git(root / "work", "add", ".")
    git(root / "work", "commit", "-q", "-m", "first")
    git(root, "clone", "-q", "--bare", "work", "shop.git")
    server = GitServer(root)
    yield server
    server.close()


@pytest.fixture
def deployed(tmp_path, server):
    """A runtime with shop.git in its workspace, and a client of it; the repository is there."""
    with runtimes(tmp_path) as start:
        environment = {
            "GITHUB_REPO": f"{server.url}/shop.git",
            "GITHUB_TARGET_BRANCH": "agent/work",
            "GITHUB_TOKEN": TOKEN,
        }
        runtime = start([{"text": "there", "times": 0}], **environment)
        runtime.run()  # it waits for the clone
        client = WebSocketClient(runtime.port)
        yield runtime, client
        client.close()


def commit(workspace, name="new.py"):
    (workspace / name).write_text("print(2)\n")
    git(workspace, "add", "--", name)
    git(workspace, "commit", "-q", "-m", f"add {name}")
    return git(workspace, "rev-parse", "HEAD")


def push(client, **payload):
    answer = client.ask(id=1, type="gitPush", payload=payload)
    return answer["data"] if answer["success"] else answer["error"]


def test_what_is_committed_becomes_the_branch_of_the_remote(deployed, server):
    runtime, client = deployed
    made = commit(runtime.workspace)

    told = push(client)
    again = push(client)
    more = commit(runtime.workspace, "more.py")
    updated, other = push(client), push(client, branch="release/1")

    assert told == {"branch": "agent/work", "hash": made, "url": f"{server.url}/shop.git", "status": "created"}
    assert (again["status"], updated["status"], updated["hash"], other["status"]) == (
        "unchanged",
        "updated",
        more,
        "created",
    )
    assert git(server.root / "shop.git", "rev-parse", "agent/work", "release/1").split() == [more, more]
    assert git(runtime.workspace, "rev-parse", "origin/agent/work") == more
    assert git(runtime.workspace, "status", "--porcelain") == ""
    assert [path.name for path in (runtime.workspace / ".agentainer").glob("push-*")] == []


def test_a_branch_that_went_on_elsewhere_is_not_overwritten(deployed, server):
    runtime, client = deployed
    commit(runtime.workspace)
    commit(server.root / "work", "theirs.py")
    git(server.root / "work", "push", "-q", str(server.root / "shop.git"), "HEAD:agent/work")
    theirs = git(server.root / "shop.git", "rev-parse", "agent/work")

    said = push(client)

    assert "has commits that are not here: push to another branch" in said
    assert git(server.root / "shop.git", "rev-parse", "agent/work") == theirs


def test_settings_that_a_tool_left_in_the_workspace_lead_the_credential_nowhere(deployed, server, tmp_path):
    runtime, client = deployed
    trap = GitServer(server.root, token="")
    caught = tmp_path / "caught"
    thief = tmp_path / "thief"
    thief.write_text(f"#!/bin/sh\n(cat; echo hook) >>{caught}\n")
    thief.chmod(0o755)
    commit(runtime.workspace)
    for name, value in (
        (f"url.{trap.url}/.insteadOf", f"{server.url}/"), ("remote.origin.pushurl", f"{trap.url}/shop.git"), ("http.proxy", trap.url),
        ("credential.helper", str(thief)), ("core.sshCommand", str(thief)), ("core.hooksPath", str(tmp_path)),
        (f"credential.{server.url}.helper", str(thief)), ("core.askPass", str(thief)), ("http.sslVerify", "false"),
    ):  # fmt: skip
        git(runtime.workspace, "config", name, value)
    (tmp_path / "pre-push").write_bytes(thief.read_bytes())
    (tmp_path / "pre-push").chmod(0o755)

    told = push(client)
    trap.close()

    assert told["status"] == "created"
    assert trap.seen == []
    assert not caught.exists()
    files = [path for path in runtime.workspace.rglob("*") if path.is_file()]
    assert [path for path in files if TOKEN.encode() in path.read_bytes()] == []
    assert TOKEN not in runtime.log


def test_what_can_not_be_pushed_is_said(deployed, server):
    runtime, client = deployed
    commit(runtime.workspace)
    wrong = [push(client, branch=name) for name in ("-x", "a..b", "a b")]
    server.token = "another"
    denied = push(client, branch="x")

    assert all("can't be the name of a branch" in said for said in wrong)
    assert "the credential is not accepted" in denied
    assert TOKEN not in denied
    assert git(server.root / "shop.git", "branch", "--format=%(refname:short)") == "main"


def test_without_a_target_branch_it_is_the_one_that_is_checked_out(tmp_path, server):
    with runtimes(tmp_path) as start:
        runtime = start([{"text": "there", "times": 0}], GITHUB_REPO=f"{server.url}/shop.git", GITHUB_TOKEN=TOKEN)
        runtime.run()
        client = WebSocketClient(runtime.port)
        git(runtime.workspace, "checkout", "-q", "-b", "mine")
        commit(runtime.workspace)

        assert push(client)["branch"] == "mine"
        git(runtime.workspace, "checkout", "-q", "--detach")
        assert push(client) == "no branch is checked out: name the one to push to"
        (runtime.workspace / ".git/HEAD").write_text("ref: refs/heads/a:refs/heads/main\n")
        assert "can't" in push(client) or "nothing to push" in push(client)
        client.close()

    assert git(server.root / "shop.git", "branch", "--format=%(refname:short)").split() == ["main", "mine"]


def test_a_target_branch_is_pushed_to_whatever_the_agent_has_checked_out(deployed, server):
    runtime, client = deployed
    git(runtime.workspace, "checkout", "-q", "main")
    made = commit(runtime.workspace)

    assert push(client)["branch"] == "agent/work"
    assert git(server.root / "shop.git", "rev-parse", "agent/work") == made
    assert git(server.root / "shop.git", "rev-parse", "main") != made


def test_an_agent_without_a_repository_says_so(start_runtime):
    client = WebSocketClient(start_runtime([]).port)

    assert "has no repository of its own: deploy it with --repo" in push(client)
    client.close()
