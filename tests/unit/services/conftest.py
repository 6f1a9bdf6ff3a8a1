"""An agent of the fake engine that is given runs, for the tests of runs."""

import pytest

from tests.fakes.programs import Program
from tests.fakes.runs import AguiAgent


@pytest.fixture
def agent(world):
    """Return a function that puts a container behind the agent `web` and waits until it is ready."""

    def put(script=None, *, bridge: str = "agui", name: str = "web", **fields) -> AguiAgent:
        made = AguiAgent(script, bridge=bridge)
        world.engine.add_image(name, Program(made.handle))
        world.up(name, image=name, **fields)
        world.wait_ready(name)
        return made

    return put


@pytest.fixture
def runs(world):
    return world.services.runs


@pytest.fixture
def sessions(world):
    return world.services.sessions
