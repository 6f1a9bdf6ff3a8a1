"""The suite runs on what it says it runs on."""

import os

from agentainerd.proxy.server import COMPILED


def test_the_hot_path_is_compiled_where_that_is_what_is_tested(start_daemon):
    expected = os.environ.get("AGENTAINER_EXPECT_COMPILED") == "1"

    assert expected is COMPILED
    start_daemon(engine=False).wait_logged(f"hot_path={'compiled' if expected else 'interpreted'}")
