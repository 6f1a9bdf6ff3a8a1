"""Whether this process runs in a container of the engine that it uses, as the project's Dockerfile makes one."""

import re
from pathlib import Path

import docker
import docker.errors

_MOUNTS = Path("/proc/self/mountinfo")
_OF_A_CONTAINER = re.compile(r"/containers/([0-9a-f]{64})/")  # the engine mounts /etc/hostname and its like from there


def find(client: docker.APIClient) -> str:
    """Return the id of the container that we run in and that has a network of its own; "" on the host and on its network.

    Raises what docker's client raises, but for a container that this engine does not know.
    """
    found = _OF_A_CONTAINER.search(_MOUNTS.read_text())
    if not found:
        return ""
    try:
        ours = client.inspect_container(found[1])
    except docker.errors.NotFound:  # another engine's
        return ""
    return "" if ours["HostConfig"]["NetworkMode"] == "host" else found[1]
