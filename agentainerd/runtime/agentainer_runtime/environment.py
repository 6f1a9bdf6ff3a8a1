"""The environment of the programs that tools start: made from a list of what they may have, never from what they may not.

So a key that nobody thought of is not in it. The operator adds names with AGENT_TOOL_ENVIRONMENT; the keys of models and the
token of the repository are not given on even then.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

ALSO_GIVEN = "AGENT_TOOL_ENVIRONMENT"
GIVEN = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "HOSTNAME", "AGENT_ID", "AGENT_NAME",
     "DISPLAY", "XAUTHORITY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "GIT_SSL_CAINFO")
)  # fmt: skip
NEVER_GIVEN = frozenset(
    ("OPENROUTER_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "GITHUB_TOKEN", "GIT_TOKEN")
)  # fmt: skip
SETTLED = {
    "PYTHONDONTWRITEBYTECODE": "1",  # an edit within a second of the last run, of the same size, would not be seen
    "PAGER": "cat",
    "GIT_PAGER": "cat",
    "GIT_EDITOR": "true",
    "GIT_TERMINAL_PROMPT": "0",
    "CI": "1",
    "PIP_PROGRESS_BAR": "off",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "TERM": "dumb",
    "LC_ALL": "C.UTF-8",
}
"""What keeps programs from waiting for a person, their output plain, and what they leave behind out of commits."""
AUTHOR = ("agent", "agent@localhost")


def for_tools(environment: Mapping[str, str], workspace: Path) -> dict[str, str]:
    """Return the whole environment of a tool's programs, from the runtime's own.

    Git takes its author from GIT_USER_NAME and GIT_USER_EMAIL, and works in `workspace` whoever owns the volume.
    """
    named = set(environment.get(ALSO_GIVEN, "").replace(",", " ").split()) - NEVER_GIVEN
    given = {name: value for name, value in environment.items() if name in GIVEN or name in named}
    author = environment.get("GIT_USER_NAME") or AUTHOR[0]
    address = environment.get("GIT_USER_EMAIL") or AUTHOR[1]
    git = {
        "GIT_AUTHOR_NAME": author,
        "GIT_COMMITTER_NAME": author,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_EMAIL": address,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "safe.directory",
        "GIT_CONFIG_VALUE_0": str(workspace),
    }
    return {**given, **git, **SETTLED, "PATH": _without_own(given.get("PATH") or os.defpath)}


def _without_own(path: str) -> str:
    """Leave out the runtime's virtual environment: `python3` is the image's, with what is installed in the image."""
    if sys.prefix == sys.base_prefix:
        return path
    own = os.path.join(sys.prefix, "bin")
    return os.pathsep.join(folder for folder in path.split(os.pathsep) if folder != own)
