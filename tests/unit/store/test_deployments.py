"""What is kept of deployments."""

import pytest

from agentainerd.model.deployments import DeploymentRecord
from agentainerd.store.deployments import DeploymentStore

pytestmark = pytest.mark.redis


def test_what_is_put_is_found_until_it_is_removed(world):
    store = DeploymentStore(world.redis)
    shop = DeploymentRecord(name="shop", description="sells", labels={"team": "a"}, applied_at=5.0)
    store.put(shop)
    store.put(DeploymentRecord(name="bank"))
    store.put(DeploymentRecord(name="bank", applied_at=1.0))

    assert store.all() == [DeploymentRecord(name="bank", applied_at=1.0), shop]
    store.remove("bank")
    store.remove("bank")
    assert store.all() == [shop]
