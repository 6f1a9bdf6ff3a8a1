"""Named ports: what an agent serves beside its own port, for people with a browser. Pure."""

import re
from collections.abc import Mapping

from agentainerd.errors import InvalidParameter

LABEL = "agentainer.ports"
"""The label of an image with its named ports: "gui=6080 jupyter=8888"."""
MAX_PORTS = 16
_NAME = re.compile(r"[a-z](?:[a-z0-9-]{0,30}[a-z0-9])?")


def check_ports(ports: Mapping[str, int], field: str = "named_ports") -> None:
    """Check names, which are a part of a host's name, and numbers.

    Raises:
        InvalidParameter: what is wrong, as `field`.
    """
    if len(ports) > MAX_PORTS:
        raise InvalidParameter(field, f"has {len(ports)} ports; at most {MAX_PORTS}")
    for name, port in ports.items():
        if not _NAME.fullmatch(name):
            raise InvalidParameter(
                field,
                f"{name[:64]!r} is not a port's name",
                hint="use a-z, 0-9 and -, at most 32 of them, a letter first",
            )
        if not 1 <= port <= 65535:
            raise InvalidParameter(field, f"{name}: {port} is not between 1 and 65535")


def labelled(labels: Mapping[str, str]) -> dict[str, int]:
    """Return the ports that an image's label names.

    Raises:
        InvalidParameter: it names none that can be.
    """
    found = {}
    for word in labels.get(LABEL, "").replace(",", " ").split():
        name, _, port = word.partition("=")
        if not port.isascii() or not port.isdigit() or len(port) > 5:
            raise InvalidParameter(LABEL, f"{word[:64]!r}, in a label of the agent's image, is not NAME=PORT")
        found[name] = int(port)
    check_ports(found, LABEL)
    return found


def token_variable(name: str) -> str:
    """Return the container's variable with the token that a named port is shown: AGENT_PORT_GUI_TOKEN for `gui`."""
    return f"AGENT_PORT_{name.upper().replace('-', '_')}_TOKEN"
