"""What a configuration value may be: one function per kind, from text or a YAML scalar to the typed value.

Each raises ValueError with what would be right; the caller puts the file, the line and the key before it.
"""

import ipaddress
import os
import re
from collections.abc import Callable
from urllib.parse import urlsplit

from agentainerd.errors import InvalidParameter
from agentainerd.model.agents import check_image
from agentainerd.model.webhooks import WORDS
from agentainerd.units import parse_duration, parse_size

Parse = Callable[[object], object]

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\.?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#@,]+")
_OPEN_PREFIX = re.compile(r"/(api(/[A-Za-z0-9_-]+){0,8}|schedule|status|jobs|job|cancel|logs|download)")
_NETWORK = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


def text(value: object) -> str:
    """Any text without control characters."""
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is not text: put it in quotes")
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError("has a control character")
    return value


def secret(value: object) -> str:
    """Text that no message may show."""
    if not isinstance(value, str):
        raise ValueError("is not text: put it in quotes")
    return value


def token(value: object) -> str:
    """What can stand behind `Authorization: Bearer`: visible ASCII, no spaces; "" for none."""
    if not isinstance(value, str) or not all("!" <= character <= "~" for character in value):
        raise ValueError("is not a token: letters, digits and signs of ASCII without spaces, in quotes")
    return value


def boolean(value: object) -> bool:
    """True or false; as text also 1 and 0."""
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False}
    if isinstance(value, str) and value.lower() in known:
        return known[value.lower()]
    raise ValueError(f"{shown(value)} is neither true nor false")


def integer(lowest: int, highest: int) -> Callable[[object], int]:
    """A whole number within bounds."""

    def parse(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"{shown(value)} is not a whole number from {lowest} to {highest}")
        return value

    return parse


def number(lowest: float, highest: float) -> Callable[[object], float]:
    """A number within bounds."""

    def parse(value: object) -> float:
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", value):
            value = float(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise ValueError(f"{shown(value)} is not a number from {lowest:g} to {highest:g}")
        return float(value)

    return parse


def seconds(lowest: float, highest: float) -> Callable[[object], float]:
    """A time span: a number of seconds, or text such as 30s, 1m30s, 24h, 7d."""

    def parse(value: object) -> float:
        try:
            span = parse_duration(value) if isinstance(value, str) else value
        except InvalidParameter:
            span = None
        if isinstance(span, bool) or not isinstance(span, int | float) or not lowest <= span <= highest:
            raise ValueError(
                f"{shown(value)} is not a time from {lowest:g} to {highest:g} seconds: write 90, 30s or 24h"
            )
        return float(span)

    return parse


def size(lowest: int, highest: int) -> Callable[[object], int]:
    """A number of bytes, or text such as 512Mi or 1G."""

    def parse(value: object) -> int:
        try:
            count = parse_size(value) if isinstance(value, str) else value
        except InvalidParameter:
            count = None
        if isinstance(count, bool) or not isinstance(count, int) or not lowest <= count <= highest:
            raise ValueError(f"{shown(value)} is not a size from {lowest} to {highest} bytes: write 512Mi, 1G or bytes")
        return count

    return parse


def choice(*words: str) -> Callable[[object], str]:
    """One of a few words, in any case."""

    def parse(value: object) -> str:
        if isinstance(value, str) and value.lower() in words:
            return value.lower()
        raise ValueError(f"{shown(value)} is not one of {', '.join(words)}")

    return parse


def host(value: object) -> str:
    """An IP address or a host name, without a port."""
    address = text(value).removeprefix("[").removesuffix("]")
    if not (_is_ip(address) or _HOST.fullmatch(address)):
        raise ValueError(f"{shown(value)} is not an IP address or a host name (the port has a key of its own)")
    return address


def optional_host(value: object) -> str:
    """A host, or "" for none."""
    return host(value) if value != "" else ""


def domain(value: object) -> str:
    """A DNS name, in lower case, without a final dot."""
    name = text(value).lower().removesuffix(".")
    if _is_ip(name) or not _HOST.fullmatch(name):
        raise ValueError(f"{shown(value)} is not a domain name")
    return name


def host_pattern(value: object) -> str:
    """A host name, "*.example.com" for all that is under example.com, or "*" for any."""
    name = text(value).lower().removesuffix(".")
    if name != "*" and not _HOST.fullmatch(name.removeprefix("*.")):
        raise ValueError(f"{shown(value)} is not a host name: write example.com, *.example.com or *, without a port")
    return name


def origin(value: object) -> str:
    """The origin of a page, as a browser says it: "https://app.example.com", "null", or "*" for any."""
    name = text(value).lower().removesuffix("/")
    if name not in ("*", "null") and not _ORIGIN.fullmatch(name):
        raise ValueError(f"{shown(value)} is not an origin: write https://app.example.com, null or *")
    return name


def host_port(value: object) -> str:
    """A TCP port, as text, or "*" for all."""
    return "*" if value == "*" else str(integer(1, 65535)(value))


def network(value: object) -> str:
    """A name that the engine takes for a network."""
    name = text(value)
    if not _NETWORK.fullmatch(name):
        raise ValueError(f"{shown(value)} is not a network name: letters, digits, '_', '.' and '-', at most 63")
    return name


def folder(value: object) -> str:
    """A path; `~` is the home folder, a relative one is taken from where the daemon was started. "" is none."""
    path = text(value)
    return os.path.abspath(os.path.expanduser(path)) if path else ""


def some_folder(value: object) -> str:
    """A path like `folder`, that must not be empty."""
    if path := folder(value):
        return path
    raise ValueError("is empty: name a folder, or remove the key")


def program(value: object) -> str:
    """A path like `folder`, or the bare name of a program on PATH."""
    name = text(value)
    return folder(name) if "/" in name else name


def url(*schemes: str) -> Callable[[object], str]:
    """A URL of one of these schemes, or "" for none."""

    def parse(value: object) -> str:
        address = text(value)
        if not address:
            return ""
        try:
            parts = urlsplit(address)
            place = parts.path if parts.scheme == "unix" else parts.hostname
            parts.port  # noqa: B018 - raises ValueError where it is not a port
        except ValueError:
            place = None
        if not place or parts.scheme not in schemes:
            forms = ", ".join(f"{scheme}://..." for scheme in schemes)
            raise ValueError(f"{shown(without_password(address))} is not a URL of the form {forms}")
        return address

    return parse


def texts(each: Callable[[object], str]) -> Callable[[object], tuple[str, ...]]:
    """A list; as text its values are separated by commas."""

    def parse(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        if not isinstance(value, list):
            raise ValueError(f"{shown(value)} is not a list: write [one, two]")
        return tuple(each(part) for part in value)

    return parse


def open_prefix(value: object) -> str:
    """The beginning of paths without a final slash: /api, one under it, or one of the containerized-agent document."""
    path = text(value).removesuffix("/")
    if not _OPEN_PREFIX.fullmatch(path):
        raise ValueError(
            f"{shown(value)} is not /api, a path under it such as /api/v1, or a path of jobs such as /schedule"
        )
    return path


def ip_network(value: object) -> str:
    """An IP address or network, such as 10.0.0.0/8."""
    try:
        return str(ipaddress.ip_network(text(value)))
    except ValueError:
        raise ValueError(f"{shown(value)} is not an IP address or network: write 10.0.0.5 or 10.0.0.0/8") from None


def refused_network(value: object) -> str:
    """An IP address or network, or the name of a set of them."""
    if value in WORDS:
        return str(value)
    try:
        return ip_network(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {', '.join(WORDS)}") from None


def image(value: object) -> str:
    """The name of an image."""
    name = text(value)
    try:
        check_image(name)
    except InvalidParameter as error:
        raise ValueError(f"{error.reason}: write it as name:tag") from None
    return name


def absolute_folder(value: object) -> str:
    """An absolute path, normalized."""
    path = text(value)
    if not path.startswith("/"):
        raise ValueError(f"{shown(value)} is not an absolute path")
    return os.path.normpath(path)


def shown(value: object) -> str:
    """Return a value as a message shows it: short, in quotes where it is text."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false"}.get(value, "nothing")  # type: ignore[arg-type]  # None is "nothing"
    written = repr(value)
    return written if len(written) <= 80 else written[:77] + "..."


def without_password(address: str) -> str:
    """Return a URL with its password replaced by ***; what is not a URL is returned as it is."""
    return re.sub(r"(://[^/@]*?:)[^@/]*@", r"\1***@", address)


def is_loopback(name: str) -> bool:
    """Whether a host of the configuration is certainly this machine alone; a name other than localhost is not."""
    if _is_ip(name):
        return ipaddress.ip_address(name).is_loopback
    return name.lower().removesuffix(".") == "localhost"


def _is_ip(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
