"""Side by side or alone, on an event loop of its own: asyncio's timers and futures are all that it needs."""

import asyncio
import time

import pytest
from agentainer_runtime.turns import Turns


def run(coroutine):
    with asyncio.Runner() as runner:
        return runner.run(coroutine)


async def worker(turns, log, name, *, is_alone=False, until=10.0):
    async with turns.turn(is_alone=is_alone, until=time.monotonic() + until):
        log.append(f"{name} begins")
        await asyncio.sleep(0.01)
        log.append(f"{name} ends")


def test_programs_run_side_by_side_and_one_alone_between_them():
    turns, log = Turns(), []

    async def all_of_them():
        works = [
            worker(turns, log, "a"),
            worker(turns, log, "b"),
            worker(turns, log, "git", is_alone=True),
            worker(turns, log, "c"),
        ]
        await asyncio.gather(*works)

    run(all_of_them())

    assert log == ["a begins", "b begins", "a ends", "b ends", "git begins", "git ends", "c begins", "c ends"]
    assert turns.is_idle


def test_who_gets_no_turn_in_time_is_told_and_holds_up_nobody():
    turns, log = Turns(), []

    async def one_too_many():
        async with turns.turn(is_alone=False, until=time.monotonic() + 10):
            with pytest.raises(TimeoutError, match="try again later"):
                await worker(turns, log, "git", is_alone=True, until=0.01)
            await worker(turns, log, "a")

    run(one_too_many())

    assert log == ["a begins", "a ends"]
