"""Where the repository of an agent comes from, and the credential for it; read from the container's environment."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit, urlunsplit

GITHUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
SCP_LIKE = re.compile(r"[\w.-]+@[\w.-]+:(?!/)[^\s]+")
SCHEMES = ("https", "http", "ssh", "file")
USERNAME = "x-access-token"  # what GitHub takes with any token, and others ignore


@dataclass(frozen=True, slots=True)
class Source:
    """A repository.

    Attributes:
        url: without credentials: it is shown, and stands in the clone's settings.
        branch: what is checked out first, "" for the remote's own default.
        target: the branch that the agent's work goes to, "" for the same.
        origin: scheme and host for which the credential is good; "" where git asks for none.
    """

    url: str
    branch: str = ""
    target: str = ""
    origin: str = ""
    username: str = USERNAME
    secret: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Source | None":
        """Read GITHUB_REPO (an address, or owner/name at GitHub), GITHUB_BRANCH, GITHUB_TARGET_BRANCH and the credential.

        That is GITHUB_TOKEN, or GIT_TOKEN with GIT_USERNAME for other hosts, or part of the address. None without GITHUB_REPO.

        Raises:
            ValueError: the address or a branch can't be one.
        """
        given = environment.get("GITHUB_REPO", "").strip()
        if not given:
            return None
        url, username, secret = _address(given)
        branch, target = _branch(environment, "GITHUB_BRANCH"), _branch(environment, "GITHUB_TARGET_BRANCH")
        parts = urlsplit(url)
        is_web = parts.scheme in ("https", "http")
        return cls(
            url,
            branch,
            target,
            origin=f"{parts.scheme}://{parts.netloc}" if is_web else "",
            username=username or environment.get("GIT_USERNAME") or USERNAME,
            secret=secret or environment.get("GIT_TOKEN") or environment.get("GITHUB_TOKEN") or "",
        )

    @staticmethod
    def without_credentials(url: str) -> str:
        """Return `url` as it may be shown."""
        try:
            return _address(url)[0]
        except ValueError:
            return "(an address that git would not take)"

    def redacted(self, text: str) -> str:
        """Return `text` without the secret, as it is or as a URL has it."""
        for secret in {self.secret, quote(self.secret, safe="")} if self.secret else ():
            text = text.replace(secret, "***")
        return text


def _address(given: str) -> tuple[str, str, str]:
    """Return the address without credentials, and the name and secret that were in it."""
    if GITHUB_NAME.fullmatch(given):
        return f"https://github.com/{given.removesuffix('.git')}.git", "", ""
    if SCP_LIKE.fullmatch(given):
        return given, "", ""
    parts = urlsplit(given)
    if (
        parts.scheme not in SCHEMES
        or not (parts.hostname or parts.scheme == "file")
        or any(sign.isspace() for sign in given)
    ):
        raise ValueError(f"GITHUB_REPO: a repository is owner/name or an address of {', '.join(SCHEMES)}")
    if parts.scheme not in ("https", "http"):
        return given, "", ""
    host = parts.netloc.rpartition("@")[2]
    name, secret = unquote(parts.username or ""), unquote(parts.password or "")
    if name and not secret:
        name, secret = "", name  # https://TOKEN@host/
    return urlunsplit(parts._replace(netloc=host)), name, secret


def _branch(environment: Mapping[str, str], variable: str) -> str:
    """Read the name of a branch, as git-check-ref-format has it, and no option."""
    name = environment.get(variable, "").strip()
    if not is_branch(name):
        raise ValueError(f"{variable}: {name!r} can't be the name of a branch")
    return name


def is_branch(name: str) -> bool:
    """Whether a branch can have this name, or it is "": what git-check-ref-format takes, and no option."""
    wrong = re.search(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(/|$)|\.$|/$", name)
    return not (wrong or name.startswith(("-", "/", ".")) or name == "@")
