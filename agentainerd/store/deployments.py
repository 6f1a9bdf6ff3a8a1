"""Deployments in Redis: one hash from name to JSON, without their agents, each of which says to which one it belongs."""

import msgspec

from agentainerd.model.deployments import DeploymentRecord
from agentainerd.store import keys, scripts
from agentainerd.store.connection import RedisClient

_PUT = scripts.load("put_deployment", is_fenced=True)
_REMOVE = scripts.load("remove_deployment", flags="allow-oom", is_fenced=True)
_decoder = msgspec.json.Decoder(DeploymentRecord)


class DeploymentStore:
    """Every method blocks its greenlet only, and raises Unavailable where Redis is away."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def put(self, record: DeploymentRecord) -> None:
        """Write a deployment, in place of what is known of it."""
        self._client.run(_PUT, record.name, msgspec.json.encode(record))

    def all(self) -> list[DeploymentRecord]:
        """Return all of them by name."""
        found = [_decoder.decode(text) for text in self._client.call("HVALS", keys.DEPLOYMENTS)]
        return sorted(found, key=lambda record: record.name)

    def remove(self, name: str) -> None:
        """Forget a deployment; its agents are no matter of this."""
        self._client.run(_REMOVE, name)
