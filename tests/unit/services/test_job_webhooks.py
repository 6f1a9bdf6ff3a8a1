"""What becomes of a job whose end is to be told: its secret, how long it is kept, what another daemon finds of it."""

import time

import pytest

from agentainerd.errors import Conflict, InvalidParameter, NotFound
from agentainerd.model.jobs import Delivery, DeliveryState, Job, JobFilter, JobLimits, JobRequest, JobView, Webhook
from agentainerd.model.runs import Run, RunStatus, new_run_id
from agentainerd.model.webhooks import key_of
from agentainerd.store.jobs import JobStore
from agentainerd.store.run_writer import RunWriter
from agentainerd.store.runs import RunStore
from tests.fakes.world import ADMIN

URL = "http://127.0.0.1:9/hook"


@pytest.fixture
def ended(world):
    """Return a function that puts a job there that ended an hour ago, and is kept for no time; returns its id."""

    def put(webhook: bool = True, **delivery) -> str:
        now = time.time()
        job_id = new_run_id()
        run = Run(
            id=job_id, kind="job", agent_id="", agent="", input="x", created_at=now - 4000, status=RunStatus.COMPLETED,
            finished_at=now - 3600,
        )  # fmt: skip
        job = Job(
            id=job_id, image="echo", submitter="me", limits=JobLimits(), retention_s=0.0, sequence=1,
            webhook=Webhook(URL, "s") if webhook else None, delivery=Delivery(**delivery),
        )  # fmt: skip
        writer = RunWriter(world.redis, world.supervisor.spawn)
        writer.commit([*RunStore.begin(run), *RunStore.end(run), *JobStore.begin(job, run.created_at)])
        return job_id

    return put


def kept(world) -> set[str]:
    return {view.job.id for view in world.services.jobs.page(JobFilter(), limit=100)[0]}


def test_a_job_is_kept_until_its_end_is_told(world, ended):
    owed = {ended(), ended(state=DeliveryState.PENDING, attempts=3)}
    ended(state=DeliveryState.DELIVERED)
    ended(state=DeliveryState.DEAD)
    ended(webhook=False)

    world.services.jobs.sweep(time.time())

    assert kept(world) == owed
    world.services.jobs.deliver(owed.pop(), Delivery(DeliveryState.DELIVERED, 1))
    world.services.jobs.sweep(time.time())
    assert kept(world) == owed


def test_a_job_that_is_removed_while_it_is_told_does_not_come_back(world, ended, monkeypatch):
    job_id = ended()
    jobs, read = world.services.jobs, world.services.jobs._store.get

    def read_and_remove(ref: str) -> Job:
        found = read(ref)
        monkeypatch.setattr(jobs._store, "get", read)
        jobs.remove(ref, ADMIN)
        return found

    monkeypatch.setattr(jobs._store, "get", read_and_remove)

    with pytest.raises(NotFound):
        jobs.deliver(job_id, Delivery(DeliveryState.DELIVERED, 1))

    assert jobs._store.some([job_id]) == []


def test_what_is_still_to_be_told_is_found_again(world, ended, monkeypatch):
    monkeypatch.setattr("agentainerd.services.jobs.VIEWS_AT_ONCE", 2)
    owed = {ended() for _ in range(3)} | {ended(state=DeliveryState.PENDING)}
    for state in (DeliveryState.DELIVERED, DeliveryState.DEAD):
        ended(state=state)
    ended(webhook=False)

    assert {view.job.id for view in world.services.jobs.untold()} == owed


def test_jobs_are_listed_by_what_became_of_their_webhook(world, ended):
    waiting, dead = ended(), ended(state=DeliveryState.DEAD)
    ended(webhook=False)
    client = world.client()

    def listed(state: str) -> list[str]:
        return [job["id"] for job in client.call("GET", f"/api/v1/jobs?webhook={state}")[1]["data"]]

    assert (listed("pending"), listed("dead"), listed("delivered")) == ([waiting], [dead], [])
    assert client.call("GET", "/api/v1/jobs?webhook=lost")[0] == 400


def test_a_telling_is_begun_anew_by_hand(world, ended):
    dead = ended(state=DeliveryState.DEAD, attempts=10, last_error="gone")
    client = world.client()

    status, envelope = client.call("POST", f"/api/v1/jobs/{dead}/webhook/retry", json={})

    assert (status, envelope["data"]["webhook"]["state"], envelope["data"]["webhook"]["attempts"]) == (
        202,
        "pending",
        0,
    )
    assert client.call("POST", f"/api/v1/jobs/{ended(webhook=False)}/webhook/retry", json={})[1]["code"] == "NO_WEBHOOK"


def test_a_secret_is_made_where_none_is_given():
    first, second = Webhook(URL).signed(), Webhook(URL).signed()

    assert len(key_of(first.secret)) == 32
    assert first.secret != second.secret
    assert first.signed() == first


@pytest.mark.parametrize(
    ("webhook", "field"), [(Webhook("ftp://x/"), "webhook.url"), (Webhook(URL, "secret"), "webhook.secret")]
)
def test_a_webhook_that_cannot_be_told_is_refused_with_the_job(webhook, field):
    with pytest.raises(InvalidParameter) as failure:
        JobRequest(prompt="x", webhook=webhook).check()

    assert failure.value.field == field


def test_a_stream_of_events_needs_a_secret_that_is_given(world):
    body = {"prompt": "x", "webhook": {"url": URL}}

    status, refused = world.client().call("POST", "/api/v1/jobs", json=body, headers={"Accept": "text/event-stream"})

    assert (status, refused["code"]) == (400, "INVALID_PARAMETER")
    assert "webhook.secret" in refused["error"]


@pytest.mark.parametrize(
    ("status", "state", "shown"),
    [
        (RunStatus.RUNNING, DeliveryState.WAITING, DeliveryState.WAITING),
        (RunStatus.FAILED, DeliveryState.WAITING, DeliveryState.PENDING),
        (RunStatus.FAILED, DeliveryState.DEAD, DeliveryState.DEAD),
    ],
)
def test_a_webhook_is_pending_as_soon_as_its_job_is_over(status, state, shown):
    run = Run(id="r", kind="job", agent_id="", agent="", input="x", created_at=1.0, status=status)
    job = Job(
        id="r", image="i", submitter="me", limits=JobLimits(), retention_s=0.0, sequence=1, webhook=Webhook(URL, "s")
    )

    view = JobView(
        Job(**{name: getattr(job, name) for name in job.__struct_fields__} | {"delivery": Delivery(state)}), run
    )

    assert view.delivery is shown
    assert view.is_owed == (shown is not DeliveryState.DEAD)
    assert JobFilter(webhook=shown).matches(view)


def test_a_job_from_a_template_that_is_broken_is_refused(make_world, tmp_path):
    (tmp_path / "bad.yaml").write_text("promt: x\n")
    world = make_world(jobs={"templates_dir": str(tmp_path)})

    status, refused = world.client().call("POST", "/api/v1/jobs", json={"template": {"name": "bad"}})

    assert (status, refused["code"]) == (409, "TEMPLATE_BROKEN")
    with pytest.raises(Conflict):
        world.services.templates.get("bad")
