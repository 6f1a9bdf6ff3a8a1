"""Secrets and pending requests in backups."""

import gzip
import os
import uuid

import msgspec
import pytest

from agentainerd.errors import AgentainerError, Forbidden, InvalidParameter
from agentainerd.model.requests import RequestState
from agentainerd.services.backup_plans import RestoreOptions
from agentainerd.services.backup_requests import StoredRequest, _renamed, decode
from agentainerd.services.backups import BackupOptions
from tests.conftest import wait_until
from tests.fakes.world import ADMIN

PASSPHRASE = "correct horse battery"
LARGE = os.urandom(100_000)


def outcome(job):
    *_, last = list(job)
    job.close()
    return last["result"]


def create(world, **options):
    return outcome(world.services.backups.create(BackupOptions("daily", passphrase=PASSPHRASE, **options), ADMIN))


def restore(world, **options):
    return outcome(world.services.restores.restore("daily", RestoreOptions(**options), ADMIN))


@pytest.fixture
def web(world):
    return world.deploy(env_vars={"API_KEY": "hush-hush", "MODE": "fast"}, token="open-sesame")


def pending(world, agent):
    found, _ = world.requests.page(agent.id, state=RequestState.PENDING)
    return [(each.target, world.requests.detail(agent.id, each.id)) for each in found]


def queue_large(world, agent):
    request_id = str(uuid.uuid4())
    writer = world.spool.create(request_id)
    writer.write(LARGE)
    record = world.record(agent, "/large", method="POST")
    record.id, record.spool, record.body_bytes = request_id, writer.seal(), len(LARGE)
    world.journal.accept(record)
    return request_id


def test_secrets_are_there_for_who_has_the_passphrase(world, web):
    made = create(world)
    assert made["secrets"] == "encrypted"

    done = restore(world, passphrase=PASSPHRASE)

    spec = world.agent("web-restored").spec
    assert (spec.env_vars, spec.token) == ({"API_KEY": "hush-hush", "MODE": "fast"}, "open-sesame")
    assert done["omitted"] == 0


def test_nothing_secret_is_in_clear(world, web):
    world.queue(web, "/x", body=b"the-body")
    made = create(world, requests=True)

    text = gzip.decompress((world.state_dir / "backups" / f"{made['id']}.tar.gz").read_bytes())
    for secret in (b"hush-hush", b"open-sesame", b"sesame", b"the-body", PASSPHRASE.encode()):
        assert secret not in text
    assert PASSPHRASE not in world.log_of("audit.log")


def test_without_the_passphrase_the_rest_is_restored_and_what_is_missing_named(world, web):
    world.queue(web)
    create(world, requests=True)

    done = restore(world)

    assert world.agent("web-restored").spec.env_vars == {"MODE": "fast"}
    assert sorted(each["reason"] for each in done["omissions"]) == [
        "its token is not in the backup: anybody may call it",
        "the value of API_KEY is not in the backup",
        "they are encrypted, and no passphrase was given",
    ]


def test_another_passphrase_changes_nothing(world, web):
    create(world)

    with pytest.raises(Forbidden) as failure:
        restore(world, passphrase="another passphrase")

    assert failure.value.code == "BACKUP_PASSPHRASE"
    assert [agent.name for agent in world.agents.all()] == ["web"]


def test_a_passphrase_for_what_is_not_encrypted_is_an_error(world, web):
    outcome(world.services.backups.create(BackupOptions("daily"), ADMIN))

    with pytest.raises(InvalidParameter):
        restore(world, passphrase=PASSPHRASE)


def test_requests_need_a_passphrase(world, web):
    with pytest.raises(InvalidParameter) as failure:
        world.services.backups.create(BackupOptions("daily", requests=True), ADMIN)

    assert "credentials" in failure.value.message


def test_requests_of_a_copy_are_its_own(world, web):
    ids = [world.queue(web, f"/{number}", method="POST", body=b"b%d" % number) for number in range(3)]
    ids.append(queue_large(world, web))
    made = create(world, requests=True)
    assert made["requests"] == 4

    done = restore(world, passphrase=PASSPHRASE)

    copy = world.agent("web-restored")
    assert done["requests"] == 4
    found = pending(world, copy)
    assert [target for target, _ in found] == ["/agent/web/0", "/agent/web/1", "/agent/web/2", "/agent/web/large"]
    assert [detail.body for _, detail in found[:3]] == [b"b0", b"b1", b"b2"]
    assert b"".join(world.spool.pieces(found[3][1].spool)) == LARGE
    assert b"Authorization: Bearer sesame\r\n" in found[0][1].head
    assert not {detail.summary.id for _, detail in found} & set(ids)
    assert [detail.summary.id for _, detail in pending(world, web)] == ids


def test_requests_of_a_lost_agent_are_delivered_by_the_restored_one(world, web):
    for number in range(3):
        world.queue(web, f"/{number}", method="POST", body=b"x")
    create(world, requests=True)
    world.services.agents.remove("web", ADMIN)

    restore(world, passphrase=PASSPHRASE)
    world.services.agents.start("web", ADMIN, wait_s=5)

    wait_until(lambda: not pending(world, world.agent()), what="the delivery of all")


def test_in_place_only_what_the_journal_does_not_know_is_added(world, web):
    kept, cancelled, lost = (world.queue(web, f"/{number}") for number in range(3))
    create(world, requests=True)
    world.services.requests.cancel("web", cancelled, ADMIN)
    world.services.requests.cancel("web", lost, ADMIN)
    world.services.requests.cancel("web", lost, ADMIN)  # forgets the dead letter

    done = restore(world, passphrase=PASSPHRASE, in_place=True)

    assert done["requests"] == 1
    assert sorted(detail.summary.id for _, detail in pending(world, web)) == sorted([kept, lost])
    assert world.summary(cancelled).state is RequestState.FAILED


def test_requests_that_find_no_room_are_named(world):
    web = world.deploy(max_pending=2)
    for number in range(2):
        world.queue(web, f"/{number}")
    create(world, requests=True)
    world.services.requests.purge("web", RequestState.PENDING, ADMIN)
    world.services.requests.purge("web", RequestState.FAILED, ADMIN)
    world.queue(web, "/new")

    done = restore(world, passphrase=PASSPHRASE, in_place=True)

    assert (done["requests"], done["omitted"]) == (1, 1)
    assert "full" in done["omissions"][0]["reason"]


def test_an_id_in_the_head_is_that_of_the_record(world, web):
    head = b"GET / HTTP/1.1\r\nX-Agentainer-Request-ID: old\r\n"

    assert _renamed(head, "new") == b"GET / HTTP/1.1\r\nX-Agentainer-Request-ID: new\r\n"
    assert _renamed(b"GET / HTTP/1.1\r\n", "new") == b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize("changes", [{"id": "../x"}, {"id": ""}, {"head": b"GET /"}])
def test_a_request_that_is_none_is_refused(changes):
    good = StoredRequest("agent-" + "0" * 16, str(uuid.uuid4()), b"GET", b"/", b"GET / HTTP/1.1\r\n", b"", 1.0)
    assert decode(msgspec.msgpack.encode(good)) == good

    for data in (msgspec.msgpack.encode(msgspec.structs.replace(good, **changes)), b"", b"x"):
        with pytest.raises(AgentainerError):
            decode(data)
