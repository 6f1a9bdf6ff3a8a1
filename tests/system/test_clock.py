"""The machine's clock is set, by almost a day ahead and by a day back, under load: nothing expires, nothing runs again.

libfaketime gives the daemon and its Redis the clock of a file; what measures durations (CLOCK_MONOTONIC) is left alone.
"""

from pathlib import Path

import pytest

from tests.fakes.daemons import find_program

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.slow]
HOUR_S = 3600
AHEAD_S = 23 * HOUR_S
A_DAY_BACK_S = AHEAD_S - 24 * HOUR_S


class Clock:
    """The wall clock of a daemon that was started with `environment`; `clock(offset_s)` sets it."""

    def __init__(self, file: Path) -> None:
        find_program("faketime")
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(next(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"))),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        self(0)

    def __call__(self, offset_s: int) -> None:
        new = self._file.with_suffix(".new")
        new.write_text(f"{offset_s:+d}\n")
        new.rename(self._file)


@pytest.fixture
def set_clock(tmp_path):
    return Clock(tmp_path / "clock")


def test_a_clock_that_is_set_expires_nothing_and_repeats_nothing(promise, set_clock, eventually):
    world = promise(daemon={"environment": set_clock.environment})
    long = []

    for offset_s in (AHEAD_S, A_DAY_BACK_S, 0):
        test_id = f"async-long-{offset_s}"
        accepted = world.load.ask("async", test_id, "/async?s=4")
        world.load.accepted[test_id] = accepted.json["data"]["request_id"]
        eventually(lambda: world.ledger()[test_id] == 1, limit_s=30)  # noqa: B023 - called at once
        set_clock(offset_s)
        world.serve(200)
        long.append(test_id)
    world.finish()

    ledger = world.ledger()
    assert [ledger[test_id] for test_id in long] == [1, 1, 1]
    for test_id in long:
        request = f"/agents/ledger/requests/{world.load.accepted[test_id]}"
        eventually(lambda: world.must("GET", request)["status"] == "completed", what=test_id)  # noqa: B023 - called at once
    failed = world.must("GET", "/agents/ledger/requests?state=failed&limit=1000")["requests"]
    assert not [each for each in failed if each["reason"] == "expired"]


def test_a_crashed_agent_is_restarted_though_the_clock_was_set_back(promise, set_clock, eventually, docker_client):
    world = promise(daemon={"environment": set_clock.environment})
    world.stop_load()

    docker_client.kill(world.agent["container_id"])
    eventually(lambda: world.agent["restarts"] == 1 and world.agent["ready"], limit_s=30)
    docker_client.kill(world.agent["container_id"])
    eventually(lambda: world.agent["next_restart_at"], limit_s=30)
    set_clock(-24 * HOUR_S)  # while the restart waits for its time

    eventually(lambda: world.agent["ready"], limit_s=30)


def test_a_clock_that_is_set_ahead_by_more_than_a_day_expires_nothing(promise, set_clock, eventually):
    world = promise(daemon={"environment": set_clock.environment})
    world.stop_load()
    eventually(world.drained, limit_s=30)
    world.must("POST", "/agents/ledger/stop?grace=0")
    assert world.load.ask("async", "async-queued").status == 202

    set_clock(25 * HOUR_S)
    world.must("POST", "/agents/ledger/resume?wait=30")
    eventually(world.drained, limit_s=30)

    assert world.ledger()["async-queued"] == 1
