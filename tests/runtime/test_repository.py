"""The repository of an agent: cloned once, from a real git server that asks for a credential, which stays out of sight."""

import base64
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agentainer_runtime.source import Source

from tests.fakes.git_server import TOKEN, GitServer


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@b", "-c", "protocol.file.allow=always", *arguments],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitServer]:
    """A server with shop.git (branches main and fix/one) and empty.git."""
    root = tmp_path_factory.mktemp("git-server")
    work = root / "work"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    (work / "README").write_text("main\n")
    (work / "src").mkdir()
    (work / "src" / "a.py").write_text("print(1)\n")
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", "first")
    git(work, "checkout", "-q", "-b", "fix/one")
    (work / "README").write_text("fix\n")
    git(work, "commit", "-q", "-a", "-m", "second")
    git(work, "checkout", "-q", "main")
    git(root, "clone", "-q", "--bare", str(work), "shop.git")
    git(root, "init", "-q", "--bare", "-b", "main", "empty.git")
    server = GitServer(root)
    yield server
    server.close()


@pytest.fixture
def prepare(tools, server, workspace):
    """`prepare(branch="main")` prepares the workspace as a container that starts does; it gives what came of it."""

    def prepared(repo: str = "", *, room_s: float = 30.0, **environment: str) -> dict:
        given = {"GITHUB_REPO": repo or f"{server.url}/shop.git", "GITHUB_TOKEN": TOKEN, **environment}
        server.seen.clear()
        return tools.ask(tools.call("repository", {}, environment=given, room_s=room_s))

    return prepared


def test_the_repository_is_cloned_with_its_branch_and_a_new_target_branch(prepare, server, workspace):
    (workspace / ".agentainer" / "runs").mkdir(parents=True)

    answer = prepare(GITHUB_BRANCH="main", GITHUB_TARGET_BRANCH="agent/fix-auth")

    assert answer["error"] == ""
    assert answer["before"] == "cloning"
    assert answer["status"] == {
        "state": "ready",
        "url": f"{server.url}/shop.git",
        "branch": "main",
        "target_branch": "agent/fix-auth",
    }
    assert git(workspace, "branch", "--show-current") == "agent/fix-auth"
    assert git(workspace, "log", "--format=%s") == "first"
    assert (workspace / "src" / "a.py").read_text() == "print(1)\n"
    assert git(workspace, "status", "--porcelain") == ""
    assert sorted(path.name for path in (workspace / ".agentainer").iterdir()) == [".gitignore", "outputs", "runs"]


def test_a_branch_that_is_not_the_default_is_checked_out(prepare, workspace):
    prepare(GITHUB_BRANCH="fix/one")

    assert git(workspace, "branch", "--show-current") == "fix/one"
    assert (workspace / "README").read_text() == "fix\n"


def test_a_target_branch_that_the_remote_has_is_gone_on_with(prepare, workspace):
    prepare(GITHUB_BRANCH="main", GITHUB_TARGET_BRANCH="fix/one")

    assert git(workspace, "branch", "--show-current") == "fix/one"
    assert git(workspace, "log", "-1", "--format=%s") == "second"
    assert git(workspace, "rev-parse", "--abbrev-ref", "fix/one@{upstream}") == "origin/fix/one"


def test_an_empty_repository_has_its_target_branch_too(prepare, server, workspace):
    answer = prepare(f"{server.url}/empty.git", GITHUB_TARGET_BRANCH="agent/first")

    assert answer["error"] == ""
    assert git(workspace, "symbolic-ref", "HEAD") == "refs/heads/agent/first"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to somebody else")
def test_a_mounted_repository_that_belongs_to_somebody_else_is_cloned(prepare, server, workspace, tmp_path):
    subprocess.run(["cp", "-r", str(server.root / "shop.git"), str(tmp_path)], check=True)
    subprocess.run(["chown", "-R", "12345:12345", str(tmp_path / "shop.git")], check=True)

    answer = prepare(f"file://{tmp_path}/shop.git")

    assert (answer["error"], answer["status"]["state"]) == ("", "ready")
    assert git(workspace, "log", "--format=%s") == "first"


def test_the_token_is_nowhere_that_a_tool_can_look(prepare, tools, server, workspace):
    assert prepare(GITHUB_TARGET_BRANCH="agent/x")["error"] == ""

    assert any(TOKEN in base64.b64decode(given.partition(" ")[2]).decode() for _, given in server.seen)
    found = subprocess.run(
        ["grep", "-r", "-l", TOKEN, str(workspace.parent), os.path.expanduser("~/.git-credentials")],
        capture_output=True,
        check=False,
    )
    assert found.stdout == b""
    environment = {"GITHUB_TOKEN": TOKEN}
    for command in (
        "env",
        "git config --list",
        "cat .git/config",
        "git credential fill < /dev/null",
        f"git fetch {server.url}/shop.git",
    ):
        result = tools.full("run_command", {"command": command}, environment=environment)["result"]
        assert TOKEN not in str(result)
    assert "could not read Username" in result["stderr"]


def test_a_token_in_the_address_is_taken_out_of_it(prepare, server, workspace):
    address = server.url.replace("http://", f"http://someone:{TOKEN}@")

    answer = prepare(f"{address}/shop.git", GITHUB_TOKEN="")

    assert answer["error"] == ""
    assert answer["status"]["url"] == f"{server.url}/shop.git"
    assert git(workspace, "config", "remote.origin.url") == f"{server.url}/shop.git"


def test_a_container_that_starts_again_leaves_the_agents_work_alone(prepare, server, workspace):
    prepare(GITHUB_TARGET_BRANCH="agent/x")
    (workspace / "README").write_text("work of the agent\n")
    git(workspace, "checkout", "-q", "-b", "its-own")

    answer = prepare(GITHUB_TARGET_BRANCH="agent/x")

    assert answer["status"]["state"] == "ready"
    assert (workspace / "README").read_text() == "work of the agent\n"
    assert git(workspace, "branch", "--show-current") == "its-own"
    assert server.seen == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"GITHUB_TOKEN": "ghp_wrong"}, "the credential is not accepted"),
        ({"GITHUB_TOKEN": ""}, "there is none: set GITHUB_TOKEN"),
        ({"GITHUB_BRANCH": "nowhere"}, "has no branch nowhere"),
        ({"repo": "{url}/none.git"}, "is not there, or the credential may not see it"),
        ({"repo": "file:///nowhere/at/all"}, "can't be cloned"),
    ],
)
def test_a_repository_that_can_not_be_had_says_why_and_never_the_token(prepare, server, workspace, given, said):
    repo = given.pop("repo", "").replace("{url}", server.url)

    answer = prepare(repo, **given)

    assert said in answer["error"]
    assert answer["status"]["state"] == "failed"
    assert answer["status"]["error"] == answer["error"]
    assert TOKEN not in str(answer)
    assert "ghp_wrong" not in str(answer)
    assert not (workspace / ".git").exists()
    assert answer["children"] == 0


def test_a_server_that_fails_once_is_asked_again(prepare, server, workspace):
    server.failures = 1

    assert prepare()["error"] == ""
    assert (workspace / "README").exists()


def test_a_server_that_says_nothing_is_given_up(prepare, workspace):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        answer = prepare(f"http://127.0.0.1:{silent.getsockname()[1]}/shop.git", room_s=1.0)

    assert "was not cloned within 1 s" in answer["error"]
    assert answer["children"] == 0


def test_no_program_of_a_tool_runs_while_git_has_the_credential(tools, workspace):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        given = {"GITHUB_REPO": f"http://127.0.0.1:{silent.getsockname()[1]}/shop.git", "GITHUB_TOKEN": TOKEN}
        clone = tools.call("repository", {}, environment=given, room_s=1.0)
        look = tools.call("run_command", {"command": "true"}, begin_when=workspace / ".agentainer" / "clone")

        cloned, looked = tools.ask([clone, look])

    assert "was not cloned within 1 s" in cloned["error"]
    assert looked["took_s"] > 0.5
    assert looked["result"]["success"] is True


def test_files_that_are_in_the_way_are_named_and_kept(prepare, workspace):
    (workspace / "README").write_text("mine")

    assert "the workspace has README already" in prepare()["error"]
    assert (workspace / "README").read_text() == "mine"
    (workspace / "README").unlink()
    assert prepare()["error"] == ""


def test_another_repository_in_the_workspace_is_not_touched(prepare, server, workspace):
    git(workspace, "init", "-q")
    git(workspace, "remote", "add", "origin", f"http://someone:{TOKEN}@other.example/x.git")

    error = prepare()["error"]

    assert "has the repository http://other.example/x.git already" in error
    assert TOKEN not in error


def test_a_clone_that_a_kill_broke_off_is_made_again_or_gone_on_with(prepare, server, workspace):
    stage = workspace / ".agentainer" / "clone"
    (stage / ".git").mkdir(parents=True)
    (stage / "half").touch()
    assert prepare()["error"] == ""
    assert not (workspace / "half").exists()
    for name in (".git", "README"):  # as if it had been killed in the middle of moving
        stage.mkdir(exist_ok=True)
        os.rename(workspace / name, stage / name)
    (workspace / ".agentainer" / "clone-is-whole").touch()

    assert prepare()["error"] == ""

    assert server.seen == []
    assert git(workspace, "status", "--porcelain") == ""
    assert not stage.exists()


def test_settings_and_hooks_that_a_tool_left_behind_do_not_get_the_token(prepare, workspace):
    home = workspace.parent / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[credential]\n\thelper = "!cat > {home}/stolen; true"\n[core]\n\tsshCommand = touch {home}/ran\n'
    )

    assert prepare(HOME=str(home))["error"] == ""

    assert sorted(path.name for path in home.iterdir()) == [".gitconfig"]


def test_a_run_waits_for_the_repository(start_runtime, server):
    runtime = start_runtime(
        [{"text": "done"}],
        GITHUB_REPO=f"{server.url}/shop.git",
        GITHUB_TOKEN=TOKEN,
        GITHUB_TARGET_BRANCH="agent/x",
    )

    events = runtime.run()

    assert events[-1]["type"] == "RUN_FINISHED"
    assert git(runtime.workspace, "branch", "--show-current") == "agent/x"
    _, status = runtime.ask("GET", "/agent/status")
    assert status["repository"]["state"] == "ready"


def test_a_run_without_its_repository_ends_with_the_reason_and_the_status_has_it(start_runtime, server):
    runtime = start_runtime([{"text": "done"}], GITHUB_REPO=f"{server.url}/shop.git", GITHUB_TOKEN="ghp_wrong")

    last = runtime.run()[-1]

    assert (last["type"], last["code"]) == ("RUN_ERROR", "error")
    assert "the credential is not accepted" in last["message"]
    _, status = runtime.ask("GET", "/agent/status")
    assert status["repository"]["state"] == "failed"
    assert status["repository"]["error"] == last["message"]
    assert "ghp_wrong" not in str(status) + runtime.log


def test_a_repository_that_can_not_be_one_is_said_at_the_start(start_runtime):
    with pytest.raises(pytest.fail.Exception, match="GITHUB_REPO: a repository is owner/name or an address"):
        start_runtime([], GITHUB_REPO="ext::sh -c evil")


@pytest.mark.parametrize(
    ("given", "url", "origin"),
    [
        ("acme/shop", "https://github.com/acme/shop.git", "https://github.com"),
        ("acme/shop.git", "https://github.com/acme/shop.git", "https://github.com"),
        ("https://git.example:8443/a/b.git", "https://git.example:8443/a/b.git", "https://git.example:8443"),
        ("https://t0ken@git.example/a", "https://git.example/a", "https://git.example"),
        ("git@github.com:acme/shop.git", "git@github.com:acme/shop.git", ""),
        ("ssh://git@host/x", "ssh://git@host/x", ""),
    ],
)
def test_an_address_is_read_as_people_write_it(given, url, origin):
    source = Source.from_environment({"GITHUB_REPO": given, "GITHUB_TOKEN": "t"})

    assert (source.url, source.origin) == (url, origin)
    assert "t0ken" not in repr(source)
    assert Source.from_environment({}) is None


@pytest.mark.parametrize(
    "environment",
    [
        {"GITHUB_REPO": "ext::sh -c evil"},
        {"GITHUB_REPO": "--upload-pack=evil"},
        {"GITHUB_REPO": "shop"},
        {"GITHUB_REPO": "https://"},
        {"GITHUB_REPO": "https://x/a b"},
        {"GITHUB_REPO": "a/b", "GITHUB_BRANCH": "--upload-pack=evil"},
        {"GITHUB_REPO": "a/b", "GITHUB_TARGET_BRANCH": "a..b"},
        {"GITHUB_REPO": "a/b", "GITHUB_TARGET_BRANCH": "a b"},
    ],
)
def test_an_address_or_branch_that_can_not_be_is_refused(environment):
    with pytest.raises(ValueError, match="GITHUB_"):
        Source.from_environment(environment)
