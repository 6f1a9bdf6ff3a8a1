"""One run of the program: how it reaches the daemon, how it prints, and how it will exit."""

import os
import sys
from typing import Any

from agentainerctl import exits, output
from agentainerctl.client import Client, path_of
from agentainerctl.endpoints import find_endpoint
from agentainerd import defaults
from agentainerd.errors import AgentainerError


class Session:
    """What the options say, filled in while they are parsed; commands get it as their first argument.

    Attributes:
        host, token, token_file: as given, "" where not.
        is_debug: errors come with a traceback.
        output: one of `output.FORMATS`.
        is_quiet: only ids on stdout, no progress.
        exit_code: what the program will exit with when the command returns.
    """

    def __init__(self) -> None:
        self.host = ""
        self.token = ""
        self.token_file = ""
        self.is_debug = False
        self.output = "table"
        self.is_quiet = False
        self.exit_code = exits.OK
        self._client: Client | None = None
        self._base_url = ""

    @property
    def client(self) -> Client:
        """The client of the daemon; made on first use, connects on each call.

        Raises:
            InvalidParameter: the endpoint or the token is not one.
        """
        if self._client is None:
            endpoint = find_endpoint(os.environ, host=self.host, token=self.token, token_file=self.token_file)
            self._client = Client(endpoint)
        return self._client

    @property
    def is_machine(self) -> bool:
        """The output is one JSON or YAML document."""
        return self.output in ("json", "yaml")

    @property
    def has_progress(self) -> bool:
        """Progress and notes may be shown on stderr."""
        return not self.is_quiet and not self.is_machine

    @property
    def is_interactive(self) -> bool:
        """There is a person who can be asked."""
        return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()

    def report(self, error: AgentainerError) -> int:
        """Print `error` on stderr and return its exit code."""
        code = exits.exit_code(error)
        output.report(error, output=self.output, code=code)
        return code

    def url_of(self, agent: dict[str, Any], kind: str = "endpoint") -> str:
        """Return the address of an agent for a client on this host: its proxy path, or with `kind` "api" its API's."""
        if kind == "api":
            return f"{self.base_url}{path_of('agents', str(agent.get('id', '')))}"
        return f"{self.base_url}{agent.get('endpoint', '')}"

    @property
    def base_url(self) -> str:
        """Where the daemon serves HTTP over TCP: the endpoint itself, or what the daemon says, or where it usually is."""
        endpoint = self.client.endpoint
        if not endpoint.socket_path:
            return endpoint.url
        if not self._base_url:
            try:
                listen = self.client.get(path_of("system", "info")).get("listen") or []
            except AgentainerError:
                listen = []
            port = str(listen[0]).rpartition(":")[2] if listen else defaults.LISTEN_PORT
            host = str(listen[0]).rpartition(":")[0] if listen else ""
            shown = "localhost" if host in ("", "0.0.0.0", "[::]", "::", "127.0.0.1") else host  # noqa: S104
            self._base_url = f"http://{shown}:{port}"
        return self._base_url

    def confirm(self, question: str, refusal: str, *, flag: str = "--force") -> None:
        """Ask a person; return if the answer is yes.

        Raises:
            AgentainerError: the answer is no, or there is nobody to ask (`refusal` says what is refused).
        """
        if not self.is_interactive:
            raise AgentainerError(refusal, code="CONFIRMATION_NEEDED", hint=f"add {flag}")
        import click

        if not click.confirm(output.plain(question), err=True):
            raise AgentainerError("not confirmed; nothing was done", code="CONFIRMATION_NEEDED")
