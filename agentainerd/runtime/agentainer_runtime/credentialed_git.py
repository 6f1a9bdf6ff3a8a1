"""Git with the credential of the repository's source: for as long as it runs, no program of a tool does.

It goes from this process's memory to git through an open file without a name, for the source's own host only: it is in no file,
no argument, no environment and no setting.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from agentainer_runtime import processes
from agentainer_runtime.source import Source
from agentainer_runtime.tool import STATE_FOLDER

ALONE = {
    "GIT_CONFIG_GLOBAL": str(Path(__file__).with_name("clone.gitconfig")),
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_ALLOW_PROTOCOL": "https:http:ssh:file",
    "GIT_SSH_COMMAND": "ssh -o BatchMode=yes",
    "GIT_CONFIG_COUNT": "0",
}
"""What keeps settings that a tool may have left behind away from a git that has the credential."""
NO_HOOKS = ("-c", "core.hooksPath=/dev/null")
DENIED = ("authentication failed", "could not read username", "could not read password", "returned error: 403")


class CredentialedGit:
    """Runs git for one source. `environment`: what tools' programs have; git gets no more of it, but for the credential."""

    def __init__(self, source: Source, workspace: Path, environment: Mapping[str, str]) -> None:
        self.source = source
        self.workspace = workspace
        self._environment = environment

    async def run(
        self,
        argv: tuple[str, ...],
        folder: Path,
        *,
        limit_s: float,
        secret_files: tuple[int, ...] = (),
        objects: str = "",
    ) -> processes.Outcome:
        """Run a program, which is git or starts it. `objects`: a folder of objects that it may read beside its repository's.

        Raises:
            FileNotFoundError: it is not installed. TimeoutError: programs of tools did not end in time.
        """
        more = {"GIT_ALTERNATE_OBJECT_DIRECTORIES": objects} if objects else {}
        return await processes.run(
            argv,
            folder=folder,
            environment={**self._environment, **ALONE, **more},
            outputs=self.workspace / STATE_FOLDER / "outputs",
            until=time.monotonic() + limit_s,
            label="git",
            secret_files=secret_files,
        )

    @contextlib.contextmanager
    def credential(self) -> Iterator[tuple[tuple[str, ...], tuple[int, ...]]]:
        """Give the settings by which git asks for the credential, and the open file that has it; git asks more than once."""
        source = self.source
        if not source.secret or not source.origin:
            yield ("-c", "credential.helper="), ()
            return
        descriptor = os.memfd_create("credential", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, f"username={source.username}\npassword={source.secret}\n".encode())
            helper = f'!f() {{ test "$1" = get && cat /proc/self/fd/{descriptor}; }}; f'
            yield ("-c", "credential.helper=", "-c", f"credential.{source.origin}.helper={helper}"), (descriptor,)
        finally:
            os.close(descriptor)

    def said(self, outcome: processes.Outcome) -> str:
        """Return what git said, without secrets."""
        return self.source.redacted(outcome.stderr.text.strip() or outcome.stdout.text.strip())[-1000:]

    def denial(self) -> str:
        """Return what is wrong with the credential where the source denies."""
        return (
            "is not accepted" if self.source.secret else "is needed and there is none: set GITHUB_TOKEN, or GIT_TOKEN"
        )
