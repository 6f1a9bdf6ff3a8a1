"""An agent's durable requests, for administrators and for holders of tickets."""

import base64

import pytest

from agentainerd import defaults
from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.requests import RequestState
from tests.fakes.programs import Answer, Program, http
from tests.fakes.world import ADMIN


@pytest.fixture
def requests(world):
    return world.services.requests


def test_a_page_tells_state_and_repeats_what_is_pending(world, requests):
    agent = world.deploy()
    ids = [world.queue(agent, f"/{number}", body=b"x") for number in range(3)]

    shown = requests.page("web", state=None, limit=2, cursor="")
    rest = requests.page("web", state=RequestState.PENDING, limit=2, cursor=shown["next_cursor"])

    assert shown["count"] == 2
    assert shown["pending"] == shown["requests"]
    assert {line["id"] for line in shown["requests"] + rest["requests"]} == set(ids)
    assert not rest["next_cursor"]


def test_a_cursor_of_somebody_else_is_told(world, requests):
    world.deploy()

    with pytest.raises(InvalidParameter):
        requests.page("web", state=None, limit=2, cursor="nonsense")


def test_a_request_is_shown_whole_with_a_large_body_from_the_spool(world, requests):
    agent = world.deploy()
    small = world.queue(agent, "/small", method="POST", body=b"\x00\xff")
    spooled = world.record(agent, "/large", method="POST", body_bytes=6)
    file = world.spool.create(spooled.id)
    file.write(b"larger")
    spooled.spool = file.seal()
    world.journal.accept(spooled)

    shown = requests.detail("web", small)
    large = requests.detail("web", spooled.id)

    assert base64.b64decode(shown["body"]) == b"\x00\xff"
    assert base64.b64decode(large["body"]) == b"larger"
    assert shown["header_list"][1] == ["Authorization", "***"]
    assert (shown["replayable"], large["replayable"]) == (True, True)
    world.spool.remove((spooled.spool,))
    assert requests.detail("web", spooled.id)["replayable"] is False


@pytest.mark.parametrize("verb", ["detail", "cancel", "replay"])
def test_a_request_of_another_agent_is_not_found(world, requests, verb):
    other = world.deploy("other")
    world.deploy()
    request_id = world.queue(other)

    with pytest.raises(NotFound):
        if verb == "detail":
            requests.detail("web", request_id)
        elif verb == "cancel":
            requests.cancel("web", request_id, ADMIN)
        else:
            requests.replay("web", request_id, ADMIN, wait_s=0)


def test_a_pending_one_is_cancelled_a_dead_letter_forgotten_and_a_done_one_is_a_conflict(world, requests):
    agent = world.deploy()
    request_id = world.queue(agent)

    requests.cancel("web", request_id, ADMIN)
    assert world.summary(request_id).reason == "cancelled"
    requests.cancel("web", request_id, ADMIN)
    with pytest.raises(NotFound):
        requests.detail("web", request_id)

    done = world.queue(agent, "/done")
    world.services.agents.start("web", ADMIN, wait_s=5)
    world.wait_request(done, "completed")
    with pytest.raises(Conflict):
        requests.cancel("web", done, ADMIN)


def test_a_purge_takes_one_state_and_counts(world, requests):
    agent = world.deploy()
    for number in range(4):
        world.queue(agent, f"/{number}")

    assert requests.purge("web", RequestState.FAILED, ADMIN) == 0
    assert requests.purge("web", RequestState.PENDING, ADMIN) == 4
    assert requests.purge("web", RequestState.FAILED, ADMIN) == 4
    for state in (RequestState.COMPLETED, RequestState.PROCESSING):
        with pytest.raises(InvalidParameter):
            requests.purge("web", state, ADMIN)


def test_a_manual_replay_waits_for_the_answer_where_the_agent_is_ready(world, requests):
    world.engine.add_image("teapot", Program(http(lambda request, run: Answer(418, b"short and stout"))))
    agent = world.deploy(image="teapot")
    request_id = world.queue(agent)
    assert requests.replay("web", request_id, ADMIN, wait_s=5).state is RequestState.PENDING  # it does not run
    requests.cancel("web", request_id, ADMIN)

    world.services.agents.start("web", ADMIN, wait_s=5)
    done = requests.replay("web", request_id, ADMIN, wait_s=5)

    assert (done.state, done.status, done.is_ready) == (RequestState.COMPLETED, 418, True)
    with pytest.raises(Conflict):
        requests.replay("web", request_id, ADMIN, wait_s=0)


def test_the_answer_is_there_once_it_is_and_gone_when_it_is_not_kept(world, requests):
    agent = world.deploy()
    request_id = world.queue(agent)
    with pytest.raises(Conflict) as failure:
        requests.response(request_id)
    assert (failure.value.code, failure.value.retry_after_s) == ("RESPONSE_NOT_READY", 2)

    world.services.agents.start("web", ADMIN, wait_s=5)
    world.wait_request(request_id, "completed")
    assert requests.response(request_id).status == 200
    assert requests.public(request_id)["status_code"] == 200

    world.services.agents.stop("web", ADMIN)
    other = world.queue(agent)
    requests.cancel_public(other, ADMIN)
    with pytest.raises(Conflict) as failure:
        requests.response(other)
    assert failure.value.code == "REQUEST_FAILED"


def test_an_answer_that_was_too_large_is_gone(world, requests, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_STORED_RESPONSE_BYTES", 100)
    world.engine.add_image("large", Program(http(lambda request, run: Answer(200, b"x" * 5000))))
    agent = world.deploy(image="large")
    request_id = world.queue(agent)
    world.services.agents.start("web", ADMIN, wait_s=5)
    world.wait_request(request_id, "completed")

    with pytest.raises(NotFound) as failure:
        requests.response(request_id)

    assert failure.value.code == "RESPONSE_GONE"


def test_a_holder_of_a_ticket_can_cancel_but_not_forget(world, requests):
    agent = world.deploy()
    request_id = world.queue(agent)
    requests.cancel_public(request_id, ADMIN)

    with pytest.raises(Conflict):
        requests.cancel_public(request_id, ADMIN)
    with pytest.raises(NotFound):
        requests.cancel_public("00000000-0000-4000-8000-000000000000", ADMIN)


def test_each_change_is_one_line_of_the_audit_log(world, requests):
    agent = world.deploy()
    one, two = world.queue(agent), world.queue(agent)
    before = len(world.log_of("audit.log").splitlines())
    requests.cancel("web", one, ADMIN)
    requests.replay("web", two, ADMIN, wait_s=0)
    requests.purge("web", RequestState.PENDING, ADMIN)

    lines = world.log_of("audit.log").splitlines()[before:]

    assert [
        action in line
        for action, line in zip(("cancel_request", "replay_request", "purge_requests"), lines, strict=True)
    ]
