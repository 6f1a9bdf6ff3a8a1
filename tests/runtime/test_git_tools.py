"""git_status, git_diff, git_log and git_commit on a real repository, also a hostile one."""

import subprocess

import pytest


def test_a_status_names_the_branch_and_what_differs(tools, workspace, repository):
    assert tools("git_status") == {"branch": "main", "files": [], "count": 0}
    (workspace / "a.txt").write_text("changed\n")
    (workspace / "new file\n.txt").write_text("x")
    repository("mv", "a.txt", "b.txt")

    assert tools("git_status") == {
        "branch": "main",
        "files": [{"status": "RM", "file": "b.txt", "from": "a.txt"}, {"status": "??", "file": "new file\n.txt"}],
        "count": 2,
    }


def test_a_diff_shows_what_changed_and_what_is_staged(tools, workspace, repository):
    assert tools("git_diff") == {"diff": "", "hasChanges": False}
    (workspace / "a.txt").write_text("one\nzwei\n")

    result = tools("git_diff")
    assert result["hasChanges"] is True
    assert "-two\n+zwei\n" in result["diff"]
    assert tools("git_diff", path="none.txt")["hasChanges"] is False
    assert tools("git_diff", staged=True)["hasChanges"] is False
    repository("add", ".")
    assert tools("git_diff", staged=True, path="a.txt")["hasChanges"] is True
    assert "outside" in tools("git_diff", path="/etc/passwd")["error"]
    assert "outside" in tools("git_diff", path="../x")["error"]


def test_a_long_diff_is_cut_and_kept(tools, workspace, repository):
    (workspace / "a.txt").write_text("".join(f"{number}\n" for number in range(20_000)))

    result = tools("git_diff")

    assert list(result)[0] == "notice"
    assert "read_file reads on" in result["notice"]
    assert len(result["diff"]) < 31_000


def test_the_log_lists_commits_newest_first(tools, workspace, repository):
    repository("commit", "-q", "--allow-empty", "-m", "second: with | signs\n\nand a body")

    result = tools("git_log")
    assert [commit["message"] for commit in result["commits"]] == ["second: with | signs", "first"]
    assert result["commits"][0]["hash"] == repository("rev-parse", "HEAD").strip()
    assert result["commits"][0]["author"] == "A"
    assert tools("git_log", limit=1)["count"] == 1
    assert [commit["message"] for commit in tools("git_log", path="a.txt")["commits"]] == ["first"]
    assert "from 1 to 200" in tools("git_log", limit=0)["error"]


def test_changes_are_committed_in_the_name_of_the_agent(tools, workspace, repository):
    (workspace / "a.txt").unlink()
    (workspace / "b.txt").write_text("new")
    who = {"GIT_USER_NAME": "Bug Fixer", "GIT_USER_EMAIL": "fixer@example.com"}

    result = tools.full("git_commit", {"message": "$(touch evil)\n\nwhy"}, environment=who)["result"]

    assert result == {
        "success": True,
        "hash": repository("rev-parse", "HEAD").strip(),
        "files": ["a.txt", "b.txt"],
        "count": 2,
    }
    assert (
        repository("log", "-1", "--format=%an <%ae>|%cn|%s")
        == "Bug Fixer <fixer@example.com>|Bug Fixer|$(touch evil)\n"
    )
    assert repository("status", "--porcelain") == ""
    assert not (workspace / "evil").exists()


def test_only_some_paths_are_committed_where_they_are_given(tools, workspace, repository):
    (workspace / "a.txt").write_text("changed")
    (workspace / "b.txt").write_text("new")

    assert tools("git_commit", message="b", paths=["b.txt"])["files"] == ["b.txt"]
    assert tools("git_status")["files"] == [{"status": "M", "file": "a.txt"}]
    assert "git's own" in tools("git_commit", message="x", paths=[".git/config"])["error"]
    assert "outside" in tools("git_commit", message="x", paths=["../x"])["error"]
    assert "did not match" in tools("git_commit", message="x", paths=["--all"])["error"]


def test_the_runtimes_own_folder_is_never_committed(tools, workspace, repository):
    (workspace / ".agentainer" / "runs").mkdir(parents=True)
    (workspace / ".agentainer" / "runs" / "x").write_text("x")
    (workspace / "b.txt").touch()

    assert tools("git_commit", message="b")["files"] == ["b.txt"]
    assert tools("git_status")["count"] == 0


def test_what_can_not_be_committed_is_said(tools, workspace, repository):
    assert "nothing to commit" in tools("git_commit", message="x")["error"]
    assert "message is empty" in tools("git_commit", message=" ")["error"]
    (workspace / "a.txt").write_text("x")
    hook = workspace / ".git" / "hooks" / "pre-commit"
    hook.write_text("#!/bin/sh\necho the tests fail\nexit 1\n")
    hook.chmod(0o755)
    assert "the tests fail" in tools("git_commit", message="x")["error"]


def test_a_workspace_that_is_no_repository_says_so(tools):
    for tool, arguments in (("git_status", {}), ("git_diff", {}), ("git_commit", {"message": "x"})):
        assert "not a git repository" in tools(tool, **arguments)["error"]


def test_a_repository_without_a_commit_has_an_empty_log(tools, workspace):
    subprocess.run(["git", "init", "-q", "-b", "main", str(workspace)], check=True)

    assert tools("git_log") == {"commits": [], "count": 0}
    assert tools("git_status")["branch"] == "main"
    (workspace / "a").touch()
    assert tools("git_commit", message="first")["success"] is True


@pytest.mark.parametrize(
    "setting", ["core.fsmonitor", "core.pager", "diff.external", "pager.log", "pager.diff", "gpg.program"]
)
def test_programs_that_a_repositorys_settings_name_are_not_run_by_looking(tools, workspace, repository, setting):
    evil = workspace.parent / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {workspace.parent}/ran\n")
    evil.chmod(0o755)
    repository("config", setting, str(evil))
    repository("config", "log.showSignature", "true")
    repository("config", "commit.gpgSign", "true")
    (workspace / "a.txt").write_text("x")

    tools("git_status")
    tools("git_diff")
    tools("git_log")
    tools("git_commit", message="x")

    assert not (workspace.parent / "ran").exists()
