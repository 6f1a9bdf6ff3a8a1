"""Queued requests and agents that come and go: order, ramp, retries, dead letters. Real Redis, agents as local servers."""

import threading
import time

from agentainerd import defaults
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN


def agent_that(world, respond, name="app", **fields):
    """Deploy an agent whose program answers with `respond(request)`; returns it and the targets that it was asked for."""
    seen = []

    def answer(request, run):
        seen.append(request)
        return respond(request)

    world.engine.add_image(name, Program(http(answer), exposed=(8000,)))
    return world.deploy(name, image=name, **fields), seen


def start(world, agent):
    world.services.agents.start(agent.id, ADMIN, wait_s=5)


def test_what_waits_is_delivered_in_order_soon_after_the_agent_is_ready(world, eventually):
    agent, seen = agent_that(world, lambda request: Answer(200, b"ok"), ordered=True)
    ids = [world.queue(agent, f"/{number}", method="POST", body=b"b%d" % number) for number in range(20)]

    start(world, agent)
    ready_at = time.monotonic()

    eventually(lambda: seen)
    assert time.monotonic() - ready_at < defaults.REPLAY_INTERVAL_S / 2
    for request_id in ids:
        world.wait_request(request_id, "completed")
    assert [request.target for request in seen] == [f"/{number}" for number in range(20)]
    assert [request.body for request in seen] == [b"b%d" % number for number in range(20)]
    assert {request.header("X-Agentainer-Replay") for request in seen} == {"true"}


def test_no_more_run_at_once_than_the_agent_allows(world, eventually):
    running, most, lock = [0], [0], threading.Lock()

    def respond(request):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.02)
        with lock:
            running[0] -= 1
        return Answer(200, b"")

    agent, _ = agent_that(world, respond, replay_concurrency=3)
    ids = [world.queue(agent, f"/{number}") for number in range(30)]

    start(world, agent)

    for request_id in ids:
        world.wait_request(request_id, "completed")
    assert 1 < most[0] <= 3


def test_a_poison_request_does_not_block_those_behind_it(world, monkeypatch, eventually):
    monkeypatch.setattr(defaults, "RETRY_BACKOFF_S", 0.01)
    agent, _ = agent_that(world, lambda request: Answer(503 if request.target == "/poison" else 200, b""))
    poison = world.queue(agent, "/poison")
    others = [world.queue(agent, f"/{number}") for number in range(5)]

    start(world, agent)

    for request_id in others:
        world.wait_request(request_id, "completed")
    letter = world.wait_request(poison, "failed")
    assert (letter.reason, letter.attempts) == ("attempts", defaults.MAX_ATTEMPTS)


def test_a_dead_letter_is_replayed_by_hand_with_its_own_path(world, monkeypatch, eventually):
    monkeypatch.setattr(defaults, "RETRY_BACKOFF_S", 0.01)
    healed = []
    agent, seen = agent_that(world, lambda request: Answer(200 if healed else 503, b"done"))
    request_id = world.queue(agent, "/a%2Fb?x=1&x=2", method="POST", body=b"whole")
    start(world, agent)
    world.wait_request(request_id, "failed")
    healed.append(True)

    done = world.services.requests.replay(agent.id, request_id, ADMIN, wait_s=5)

    assert (done.status, done.state.value) == (200, "completed")
    assert (seen[-1].target, seen[-1].body) == ("/a%2Fb?x=1&x=2", b"whole")
    assert world.services.requests.response(request_id).body == b"done"


def test_an_agent_that_dies_in_mid_request_gets_it_again_marked(world, eventually):
    died = []

    def answer(request, run):
        if not died:
            died.append(request)
            run.exit(137)
        died.append(request)
        return Answer(200, b"ok")

    world.engine.add_image("mortal", Program(http(answer), exposed=(8000,)))
    agent = world.deploy("mortal", image="mortal")
    request_id = world.queue(agent, "/x", method="POST", body=b"b")
    world.services.agents.start(agent.id, ADMIN)
    eventually(lambda: world.state("mortal") == "stopped")
    assert world.wait_request(request_id, "pending").maybe_duplicate

    start(world, agent)

    eventually(
        lambda: world.services.replay.run_once(time.time()) >= 0 and world.summary(request_id).state == "completed"
    )
    assert died[-1].header("X-Agentainer-Maybe-Duplicate") == "1"
    assert died[-1].header("X-Agentainer-Request-ID") == died[0].header("X-Agentainer-Request-ID")


def test_attempts_while_the_agent_is_down_do_not_count(world, eventually):
    agent, _ = agent_that(world, lambda request: Answer(200, b""))
    request_id = world.queue(agent, "/x")
    for _ in range(10):
        world.services.replay.run_once(time.time())

    assert world.summary(request_id).attempts == 0
    start(world, agent)
    assert world.wait_request(request_id, "completed").attempts == 1


def test_a_thousand_a_second_are_drained_at_sixteen_at_once(world, eventually):
    agent, seen = agent_that(world, lambda request: Answer(204, b""), replay_concurrency=16)
    for number in range(600):
        world.queue(agent, f"/{number}")

    start(world, agent)
    began = time.monotonic()

    eventually(lambda: world.requests.counts(agent.id).pending == 0 and len(seen) == 600, limit_s=20)
    assert len({request.target for request in seen}) == 600
    print(f"{600 / (time.monotonic() - began):.0f} a second")


def test_a_lease_that_ran_out_while_its_worker_lives_is_taken_up_by_it(world, eventually):
    """The clock was set ahead, or Redis was away for longer than a lease is: the request goes on, and is not sent again."""
    goes_on = threading.Event()

    def respond(request):
        if request.target == "/long":
            goes_on.wait(10)
        return Answer(200, b"once")

    agent, seen = agent_that(world, respond)
    world.queue(agent, "/first")  # once it is answered, two go at once
    long = world.queue(agent, "/long", method="POST", body=b"b")
    start(world, agent)
    eventually(lambda: len(seen) == 2)
    world.redis.call("ZADD", f"agentainer:lease:{agent.id}", "1", long)

    other = world.queue(agent, "/other")
    world.services.replay.wake(agent.id)
    world.wait_request(other, "completed")
    goes_on.set()

    done = world.wait_request(long, "completed")
    assert [request.target for request in seen] == ["/first", "/long", "/other"]
    assert done.reason == "replay"


def test_a_retry_is_not_put_off_by_a_day_when_the_clock_is_set_back(world, eventually):
    answers = iter([503])
    agent, seen = agent_that(world, lambda request: Answer(next(answers, 200), b""))
    request_id = world.queue(agent, "/x")
    start(world, agent)
    eventually(lambda: world.summary(request_id).reason == "retry_wait")
    world.redis.call("ZADD", f"agentainer:d:{agent.id}", str(time.time() + 86400), request_id)

    world.services.replay.run_once(time.time())

    world.wait_request(request_id, "completed")


def test_deliveries_are_counted_by_what_came_of_them(world, monkeypatch, eventually):
    monkeypatch.setattr(defaults, "RETRY_BACKOFF_S", 0.01)
    statuses = iter((503, 200, 200))
    agent, _ = agent_that(world, lambda request: Answer(next(statuses), b""), ordered=True)
    ids = [world.queue(agent, f"/{number}") for number in range(2)]

    start(world, agent)

    for request_id in ids:
        world.wait_request(request_id, "completed")
    tally = world.route("app").tally
    eventually(lambda: (tally.delivered, tally.retried, tally.failed) == (2, 1, 0))
