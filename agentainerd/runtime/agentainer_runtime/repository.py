"""The repository that an agent works on: cloned into the workspace once, its branch checked out, the target branch made.

The clone is made aside and moved into place when it is whole, `.git` last: a container that is killed in the middle goes on, or
begins again.
"""

import asyncio
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentainer_runtime import processes, pushes
from agentainer_runtime.built_in import describe, in_thread
from agentainer_runtime.credentialed_git import DENIED, NO_HOOKS, CredentialedGit
from agentainer_runtime.git import hide_state
from agentainer_runtime.settings import Settings
from agentainer_runtime.source import Source
from agentainer_runtime.tool import STATE_FOLDER

log = logging.getLogger(__name__)
CLONE_LIMIT_S = 180.0
LOCAL_LIMIT_S = 60.0
PAUSES_S = (1.0, 3.0)  # before another attempt, where the network may have been at fault
FOR_GOOD = (
    "authentication failed",
    "could not read username",
    "could not read password",
    "remote branch",
    "not found",
    "returned error: 403",
    "permission denied",
    "transport",
    "does not appear to be a git repository",
    "dubious ownership",
)


class RepositoryFailed(Exception):
    """There is no repository to work on; the text says why, and has no secrets in it."""


class Repository:
    """The repository of this container. Its methods belong to one event loop."""

    def __init__(
        self, source: Source, *, workspace: Path, environment: Mapping[str, str], clone_limit_s: float = CLONE_LIMIT_S
    ) -> None:
        """Take what tools' programs have as environment: git gets no more of it, but for the credential."""
        self._source = source
        self._workspace = workspace
        self._with_credential = CredentialedGit(source, workspace, environment)
        self._clone_limit_s = clone_limit_s
        self._state = workspace / STATE_FOLDER
        self._attempt: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, settings: Settings) -> "Repository | None":
        """Make the one that the settings ask for."""
        if settings.source is None:
            return None
        return cls(
            settings.source,
            workspace=settings.workspace,
            environment=settings.tool_environment(),
            clone_limit_s=settings.clone_timeout_s,
        )

    def begin(self) -> None:
        """Begin to clone, in the background, unless that was done before."""
        if self._attempt is None or self._has_failed():
            self._attempt = asyncio.create_task(self._prepare())
            self._attempt.add_done_callback(_log_failure)

    async def ready(self) -> None:
        """Return when the repository is there. After a failure it is tried again.

        Raises:
            RepositoryFailed: it can't be had.
        """
        self.begin()
        assert self._attempt is not None
        await asyncio.shield(self._attempt)

    async def push(self, branch: str = "") -> dict[str, Any]:
        """Have a branch of the remote be what the workspace has as its last commit; by default the target branch, else the one
        that is checked out.

        Returns `branch`, `hash`, `url` and `status` (created, updated, unchanged).

        Raises:
            RepositoryFailed: there is no repository, nothing to push, or the remote does not take it.
        """
        await self.ready()
        try:
            return await pushes.push(self._with_credential, branch)
        except (pushes.PushFailed, OSError) as exc:
            raise RepositoryFailed(describe(exc) if isinstance(exc, OSError) else str(exc)) from exc

    def status(self) -> dict[str, Any]:
        """Return `state` (cloning, ready, failed), `url`, `branch`, `target_branch`, and where it failed the `error`."""
        told: dict[str, Any] = {
            "url": self._source.url,
            "branch": self._source.branch,
            "target_branch": self._source.target,
        }
        if self._attempt is None or not self._attempt.done():
            return {"state": "cloning", **told}
        if self._has_failed():
            return {"state": "failed", **told, "error": str(_failure(self._attempt))}
        return {"state": "ready", **told}

    def _has_failed(self) -> bool:
        return self._attempt is not None and self._attempt.done() and _failure(self._attempt) is not None

    async def _prepare(self) -> None:
        try:
            await in_thread(hide_state, self._workspace)
            if (self._workspace / ".git").exists():
                await self._check_origin()
                return
            stage, whole = self._state / "clone", self._state / "clone-is-whole"
            if not whole.exists():
                await in_thread(_remove, stage)
                await self._clone(stage)
                await self._check_out(stage)
                await in_thread(_check_room, stage, self._workspace)
                whole.touch()
            await in_thread(_move, stage, self._workspace)
            whole.unlink()
            log.info("the repository is there: %s", self._source.url)
        except OSError as exc:
            raise RepositoryFailed(f"the repository can't be cloned: {describe(exc)}") from exc

    async def _check_origin(self) -> None:
        """A workspace that was cloned before is taken as it is: whatever the agent did to it is its work."""
        found = await self._git(("config", "--get", "remote.origin.url"), self._workspace, good=(0, 1))
        origin = found.stdout.text.strip()
        if origin != self._source.url:
            has = f"the repository {Source.without_credentials(origin)}" if origin else "another repository"
            raise RepositoryFailed(
                f"the workspace has {has} already, not {self._source.url}: give the agent another volume, or remove what is in it"
            )

    async def _clone(self, stage: Path) -> None:
        branch = ("--branch", self._source.branch) if self._source.branch else ()
        for pause_s in (*PAUSES_S, None):
            with self._with_credential.credential() as (settings, descriptors):
                outcome = await self._run(
                    (*settings, "clone", "--quiet", "--template=", *branch, "--", self._source.url, str(stage)),
                    self._workspace,
                    limit_s=self._clone_limit_s,
                    secret_files=descriptors,
                )
            if outcome.exit_code == 0 and not outcome.ended:
                return
            failure = self._reason(outcome)
            said = outcome.stderr.text.lower()
            if pause_s is None or outcome.ended or any(sign in said for sign in FOR_GOOD):
                raise RepositoryFailed(failure)
            log.warning("the clone is tried again: %s", failure)
            await in_thread(_remove, stage)
            await asyncio.sleep(pause_s)

    async def _check_out(self, stage: Path) -> None:
        """Have the target branch checked out: the remote's where it has one, else a new one from the branch."""
        target = self._source.target
        if not target:
            return
        has = await self._git(("rev-parse", "--verify", "--quiet", f"refs/remotes/origin/{target}"), stage, good=(0, 1))
        is_empty = (await self._git(("rev-parse", "--verify", "--quiet", "HEAD"), stage, good=(0, 1))).exit_code == 1
        if is_empty:
            await self._git(("symbolic-ref", "HEAD", f"refs/heads/{target}"), stage)
        elif has.exit_code == 0:
            await self._git(("checkout", "--quiet", "-B", target, "--track", f"origin/{target}"), stage)
        else:
            await self._git(("checkout", "--quiet", "--no-track", "-B", target), stage)

    async def _git(self, arguments: tuple[str, ...], folder: Path, good: tuple[int, ...] = (0,)) -> processes.Outcome:
        outcome = await self._run(arguments, folder, limit_s=LOCAL_LIMIT_S)
        if outcome.ended or outcome.exit_code not in good:
            raise RepositoryFailed(self._reason(outcome))
        return outcome

    async def _run(
        self, arguments: tuple[str, ...], folder: Path, *, limit_s: float, secret_files: tuple[int, ...] = ()
    ) -> processes.Outcome:
        argv = ("git", *NO_HOOKS, *arguments)
        try:
            return await self._with_credential.run(argv, folder, limit_s=limit_s, secret_files=secret_files)
        except FileNotFoundError as exc:
            raise RepositoryFailed("git is not installed in this image") from exc

    def _reason(self, outcome: processes.Outcome) -> str:
        """Say what git said, and what to do about it."""
        url = self._source.url
        if outcome.ended:
            return f"{url} was not cloned within {self._clone_limit_s:g} s: AGENT_CLONE_TIMEOUT_S gives it more"
        said = self._with_credential.said(outcome)
        lower = said.lower()
        if "remote branch" in lower and "not found" in lower:
            return f"{url} has no branch {self._source.branch}"
        if any(sign in lower for sign in DENIED):
            return f"{url} can't be read, the credential {self._with_credential.denial()} ({said})"
        if "not found" in lower:
            return f"{url} is not there, or the credential may not see it ({said})"
        return f"{url} can't be cloned: {said or f'git ended with code {outcome.exit_code}'}"


def _check_room(stage: Path, workspace: Path) -> None:
    taken = sorted(name for name in os.listdir(stage) if os.path.lexists(workspace / name))
    if taken:
        raise RepositoryFailed(
            f"the workspace has {', '.join(taken[:5])} already, which the repository has too: remove it"
        )


def _move(stage: Path, workspace: Path) -> None:
    """Move what is in the clone into the workspace; what an earlier attempt moved is not there any more."""
    if stage.exists():
        for name in sorted(os.listdir(stage), key=lambda name: (name == ".git", name)):
            os.rename(stage / name, workspace / name)
        stage.rmdir()


def _remove(stage: Path) -> None:
    if stage.exists():
        shutil.rmtree(stage)


def _failure(attempt: "asyncio.Task[None]") -> BaseException | None:
    if attempt.cancelled():
        return RepositoryFailed("the clone was interrupted")
    return attempt.exception()


def _log_failure(attempt: "asyncio.Task[None]") -> None:
    if failure := _failure(attempt):
        log.error("%s", failure)
