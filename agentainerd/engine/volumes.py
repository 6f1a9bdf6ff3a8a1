"""Named volumes: where they are kept, made, removed."""

from agentainerd.engine.connection import Connection
from agentainerd.errors import Conflict, NotFound


class Volumes:
    """The volumes of one engine. Stateless: safe from any greenlet."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def folder(self, name: str) -> str:
        """See Engine.volume_folder."""
        with self._connection.calling("inspect", "volume", name) as client:
            return str(client.inspect_volume(name)["Mountpoint"])

    def create(self, name: str) -> str:
        """See Engine.create_volume. The engine itself would give the one that is there."""
        try:
            self.folder(name)
        except NotFound:
            with self._connection.calling("create", "volume", name) as client:
                return str(client.create_volume(name)["Mountpoint"])
        raise Conflict(f"there is a volume '{name}' already", code="VOLUME_EXISTS", hint=f"docker volume rm {name}")

    def remove(self, name: str) -> None:
        """See Engine.remove_volume."""
        try:
            with self._connection.calling("remove", "volume", name) as client:
                client.remove_volume(name)
        except NotFound:
            return
