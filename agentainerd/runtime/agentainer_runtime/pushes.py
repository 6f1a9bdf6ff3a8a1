"""The workspace's last commit becomes a branch of the remote, with a credential that nothing in the workspace gets to see.

Git reads the objects of the workspace's repository, and nothing else of it: it runs in an empty repository that is made for it
and has no settings, hooks or helpers. So what a tool wrote to `.git/config` leads the credential nowhere.
"""

import re
import secrets
import shutil
from typing import Any

from agentainer_runtime import processes
from agentainer_runtime.built_in import in_thread
from agentainer_runtime.credentialed_git import DENIED, NO_HOOKS, CredentialedGit
from agentainer_runtime.source import is_branch
from agentainer_runtime.tool import STATE_FOLDER

PUSH_LIMIT_S = 180.0
LOCAL_LIMIT_S = 30.0
STATUSES = {"*": "created", " ": "updated", "=": "unchanged"}
"""How git push --porcelain tells what became of a branch."""
_PUSH = 'place=$1; shift; git init --quiet --bare --template= "$place" && exec git --git-dir="$place" "$@"'


class PushFailed(Exception):
    """Nothing was pushed; the text says why, and has no secrets in it."""


async def push(git: CredentialedGit, branch: str = "") -> dict[str, Any]:
    """Push the last commit to `branch`, by default the target branch, else the one that is checked out; see `Repository.push`.

    Raises:
        PushFailed: there is nothing to push, or the remote does not take it. OSError: git can't be started.
    """
    commit = await _asked(git, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    branch = branch or git.source.target or await _asked(git, "symbolic-ref", "--quiet", "--short", "HEAD")
    if not is_branch(branch):  # what is checked out is what a tool wrote there
        raise PushFailed(f"{branch[:100]!r} can't be the name of a branch")
    if not commit:
        raise PushFailed("there is nothing to push: the repository has no commit yet")
    if not branch:
        raise PushFailed("no branch is checked out: name the one to push to")
    objects = git.workspace / await _asked(git, "rev-parse", "--git-path", "objects")
    place = git.workspace / STATE_FOLDER / f"push-{secrets.token_hex(8)}"
    try:
        with git.credential() as (settings, descriptors):
            what = ("push", "--porcelain", "--", git.source.url, f"{commit}:refs/heads/{branch}")
            argv = ("sh", "-c", _PUSH, "sh", str(place), *NO_HOOKS, *settings, *what)
            outcome = await git.run(
                argv, git.workspace, limit_s=PUSH_LIMIT_S, secret_files=descriptors, objects=str(objects)
            )
    finally:
        await in_thread(shutil.rmtree, place, True)
    if outcome.ended or outcome.exit_code:
        raise PushFailed(_reason(git, outcome, branch))
    await _asked(git, "update-ref", f"refs/remotes/origin/{branch}", commit)
    told = re.search(r"^(.)\t", outcome.stdout.text, re.MULTILINE)
    status = STATUSES.get(told[1], "updated") if told else "updated"
    return {"branch": branch, "hash": commit, "url": git.source.url, "status": status}


async def _asked(git: CredentialedGit, *arguments: str) -> str:
    """Return what git says of the workspace, without the credential; "" where it says nothing."""
    outcome = await git.run(("git", *NO_HOOKS, *arguments), git.workspace, limit_s=LOCAL_LIMIT_S)
    return "" if outcome.ended or outcome.exit_code else outcome.stdout.text.strip()


def _reason(git: CredentialedGit, outcome: processes.Outcome, branch: str) -> str:
    url = git.source.url
    if outcome.ended:
        return f"{url} did not take {branch} within {PUSH_LIMIT_S:g} s"
    said = git.source.redacted(f"{outcome.stdout.text}\n{outcome.stderr.text}").strip()[-1000:]
    if any(sign in said.lower() for sign in DENIED):
        return f"{url} can't be pushed to, the credential {git.denial()} ({said})"
    if "[rejected]" in said:
        return f"{branch} of {url} has commits that are not here: push to another branch ({said})"
    return f"{url} did not take {branch}: {said or f'git ended with code {outcome.exit_code}'}"
