"""Both engines have the Protocol's methods, with its parameters; what they do is in tests/contract."""

import inspect

import pytest

from agentainerd.engine.docker_engine import DockerEngine
from agentainerd.engine.engine import Engine
from tests.fakes.engine import FakeEngine

METHODS = [name for name, member in vars(Engine).items() if inspect.isfunction(member) and not name.startswith("_")]


@pytest.mark.parametrize("implementation", [DockerEngine, FakeEngine])
@pytest.mark.parametrize("name", METHODS)
def test_an_engine_has_the_methods_of_the_protocol(implementation, name):
    promised = inspect.signature(getattr(Engine, name)).parameters
    kept = inspect.signature(getattr(implementation, name)).parameters

    assert [(p.name, p.kind, p.default) for p in kept.values()] == [
        (p.name, p.kind, p.default) for p in promised.values()
    ]
