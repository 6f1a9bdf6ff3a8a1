"""The promise under crashes: a steady load, a ledger at the client and one at the agent, and SIGKILL for everybody.

SOAK_KILLS=N makes N of each kill instead of a few.
"""

import os
import time

import gevent
import pytest

KILLS = int(os.environ.get("SOAK_KILLS", "0"))
DOWN_LIMIT_S = 2.0 if KILLS else 5.0  # the longer one for a machine that does other things too
pytestmark = [
    pytest.mark.docker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300 + 30 * KILLS),
]  # fmt: skip


def test_sigkill_of_daemon_redis_and_agent_under_load_loses_nothing(promise, docker_client, capsys):
    world = promise()
    kinds = {
        "daemon": (KILLS or 7, world.kill_daemon),
        "Redis": (KILLS or 6, world.kill_redis),
        "agent": (KILLS or 5, lambda: world.kill_agent(docker_client)),
    }
    lines = []
    for kind, (kills, kill) in kinds.items():
        world.down_s.clear()
        for _ in range(kills):
            world.after(kill)
            world.check_journal()
        lines.append(world.summary(kind))
        if kind != "agent":  # which is restarted with a back-off
            assert sorted(world.down_s)[kills // 2] < DOWN_LIMIT_S, world.down_s
    world.finish(limit_s=120)

    with capsys.disabled():
        print("", *lines, dict(world.load.statuses), sep="\n")
    assert len(world.load.accepted) > 100


def test_a_stopped_agent_gets_what_came_meanwhile_in_order(promise, eventually):
    world = promise()
    world.stop_load()
    eventually(world.drained, limit_s=30)
    world.must("POST", "/agents/ledger/stop")
    order = [f"get-queued-{number}" for number in range(30)]
    for test_id in order:
        assert world.load.ask("get", test_id).status == 202
    began = time.time()

    world.must("POST", "/agents/ledger/resume?wait=30")

    eventually(world.drained, limit_s=30)
    ran = [entry[0] for entry in world.entries() if "-queued-" in entry[0]]
    assert sorted(ran) == sorted(order)
    assert ran[0] == order[0]  # then there are two at a time
    assert time.time() - began < 20


def test_restart_under_load_loses_nothing_and_answers_no_5xx(promise):
    world = promise()
    world.load.statuses.clear()

    world.must("POST", "/agents/ledger/restart?wait=30")

    world.serve(100)
    assert not set(world.load.statuses) & {500, 502, 503, 504}, world.load.statuses
    world.finish()


def test_an_agent_that_runs_out_of_memory_loses_nothing(promise):
    """The kernel's kill is told from a crash, and what it interrupted is told to its client."""
    world = promise(memory_limit=96 * 1024 * 1024, kinds=("get", "post", "async", "keyed"))
    for number in range(KILLS // 10 or 2):
        killer = gevent.spawn(world.load.ask, "get", f"get-oom-{number}", "/oom?die")
        world.serve(50)
        killer.kill()

    world.load.running = False
    assert not world.dead_letters_of_accepted()
    world.daemon.wait_logged("agent ended: exit 137, out of memory")
