"""Patches first, exactly as `agentainerd.__main__` does, so that tests run on the production concurrency model."""

from gevent import monkey

monkey.patch_all()

import signal  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import gevent  # noqa: E402
import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from agentainerd import log_context  # noqa: E402

pytest_plugins = [
    "tests.fakes.docker",
    "tests.fakes.hosts",
    "tests.fakes.engine",
    "tests.fakes.planes",
    "tests.fakes.redis",
    "tests.fakes.world",
    "tests.fakes.daemons",
    "tests.fakes.ledger",
    "tests.fakes.runtime",
    "tests.fakes.model_worlds",
    "tests.fakes.chromium",
]

# How fast the machine is at this moment decides no test; fixtures may be shared by all examples of one.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
settings.load_profile("any machine")

# Whoever runs the tests in the background may have them ignore Ctrl-C, which programs under test would inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


def wait_until(condition: Callable[[], object], *, limit_s: float = 20.0, what: str = "the condition") -> object:
    """Poll until `condition()` is true and return what it gave; fail the test after `limit_s` seconds."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"{what} did not come true within {limit_s:g} s")
        gevent.sleep(0.005)


@pytest.fixture(autouse=True)
def nobodys_work() -> None:
    """Whatever was asked for in an earlier test, this one logs on nobody's behalf."""
    log_context.begin()


@pytest.fixture
def eventually() -> Callable[..., object]:
    """`eventually(lambda: ..., limit_s=30, what="...")`: poll with a deadline, never sleep."""
    return wait_until
