"""Commands in containers that run, for health checks: started, and asked for until they end. Their output is not read."""

import time
from collections.abc import Sequence

from agentainerd.engine.connection import Connection
from agentainerd.errors import DeadlineExceeded

FIRST_LOOK_S = 0.02  # doubling
MAX_LOOK_S = 0.5


class Commands:
    """The commands of one engine. Safe from any greenlet, where one at a time asks for a container."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._overdue: dict[str, str] = {}  # container: the command in it that did not end in time

    def run(self, container_id: str, command: Sequence[str], timeout_s: float) -> int:
        """See Engine.execute."""
        end = time.monotonic() + timeout_s
        before = self._overdue.get(container_id)
        if before and self._exit_code(container_id, before) is None:
            raise DeadlineExceeded("the command before it still runs")
        self._overdue.pop(container_id, None)
        with self._connection.calling("run a command in", "container", container_id) as client:
            started: str = client.exec_create(container_id, list(command), stdout=False, stderr=False)["Id"]
            client.exec_start(started, detach=True)
        look_s = FIRST_LOOK_S
        while (code := self._exit_code(container_id, started)) is None:
            if time.monotonic() >= end:
                self._overdue[container_id] = started
                raise DeadlineExceeded(f"the command did not end within {timeout_s:g} s")
            time.sleep(look_s)
            look_s = min(look_s * 2, MAX_LOOK_S)
        return code

    def _exit_code(self, container_id: str, started: str) -> int | None:
        with self._connection.calling("run a command in", "container", container_id) as client:
            found = client.exec_inspect(started)
        return None if found["Running"] else int(found["ExitCode"] or 0)
