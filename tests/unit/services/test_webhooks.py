"""When the end of a job is told, how often, and what becomes of it; receivers are real servers, the clock is not."""

import time
from collections import defaultdict

import msgspec
import pytest
from gevent.event import Event
from gevent.pywsgi import WSGIServer
from standardwebhooks import Webhook as Reference

from agentainerd import clock, defaults
from agentainerd.config import JobsConfig
from agentainerd.errors import Conflict, NotFound, Unavailable
from agentainerd.model.jobs import Delivery, DeliveryState, Job, JobLimits, JobView, Webhook
from agentainerd.model.runs import Run, RunStatus, new_run_id
from agentainerd.model.webhooks import new_secret
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.webhooks import WebhookService
from agentainerd.store.audit import AuditFile
from agentainerd.supervisor import Supervisor

SECRET = new_secret()
ADMIN = Actor("tester", "test")
OWN_PORT = 65_000


class Jobs:
    """What a JobService is here: records in memory, and a clock that stands still."""

    def __init__(self, folder, monkeypatch) -> None:
        self.now = 1_700_000_000.0
        monkeypatch.setattr(clock, "now", lambda: self.now)
        self.views: dict[str, JobView] = {}
        self.failures: list[Exception] = []
        self.supervisor = Supervisor()
        self.audit = AuditService(AuditFile(str(folder), max_file_bytes=2**20), self.supervisor.spawn)
        self.audit.open()
        self.service = self.make()

    def make(self) -> WebhookService:
        """A service as a daemon has it that was just started."""
        spawn = self.supervisor.spawn
        service = WebhookService(self.find, self.record, self.audit, config=JobsConfig(), port=OWN_PORT, spawn=spawn)
        service.networks = ()
        service.wake = lambda: service.run_once(self.now)
        return service

    def find(self, job_id: str) -> JobView:
        if self.failures:
            raise self.failures.pop(0)
        if job_id not in self.views:
            raise NotFound("job", job_id)
        return self.views[job_id]

    def record(self, job_id: str, delivery: Delivery) -> None:
        if self.failures:
            raise self.failures.pop(0)
        view = self.find(job_id)
        self.views[job_id] = msgspec.structs.replace(view, job=msgspec.structs.replace(view.job, delivery=delivery))

    def add(self, url: str = "", status: RunStatus = RunStatus.COMPLETED, **fields) -> JobView:
        job_id = new_run_id()
        run = Run(
            id=job_id, kind="job", agent_id="", agent="", input=fields.pop("prompt", "do it"), created_at=1.0, status=status,
            finished_at=1_699_999_999.0, output="done",
        )  # fmt: skip
        job = Job(
            id=job_id, image="i", submitter="me", limits=JobLimits(), retention_s=1.0, sequence=1, env={"KEY": "s3cret"},
            webhook=Webhook(url, SECRET) if url else None, **fields,
        )  # fmt: skip
        self.views[job_id] = JobView(job, run)
        return self.views[job_id]

    def end(self, url: str = "", **fields) -> str:
        """A job is over; return its id."""
        view = self.add(url, **fields)
        self.service.job_ended(view)
        return view.job.id

    def delivery(self, job_id: str) -> Delivery:
        return self.views[job_id].job.delivery

    def pass_(self, seconds: float) -> None:
        self.now += seconds
        self.service.run_once(self.now)


class Receiver:
    """Answers with what is in `answers`, one after another, then 204; keeps what it was sent. `held`: it waits for that first."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, list[tuple[str, str]]]] = []
        self.heads: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.held = Event()
        self.held.set()
        self.inside = 0
        self.most_inside = 0
        self.server = WSGIServer(("127.0.0.1", 0), self._serve, log=None)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def _serve(self, environ, start_response):
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        names = {name[5:].replace("_", "-").lower(): text for name, text in environ.items() if name.startswith("HTTP_")}
        self.bodies.append(environ["wsgi.input"].read())
        self.heads.append(names)
        self.held.wait(5)
        self.inside -= 1
        start_response(*(self.answers.pop(0) if self.answers else ("204 No Content", [])))
        return []


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    made = Jobs(tmp_path, monkeypatch)
    yield made
    made.supervisor.stop(1.0)
    made.audit.close()


@pytest.fixture
def receivers():
    made = []

    def make(*answers: str, **headers: str) -> Receiver:
        made.append(Receiver())
        made[-1].answers = [(answer, list(headers.items())) for answer in answers]
        return made[-1]

    yield make
    for each in made:
        each.held.set()
        each.server.stop(timeout=0.1)


@pytest.mark.parametrize("status", [RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED])
def test_the_end_of_a_job_is_told_signed(jobs, receivers, eventually, status):
    place = receivers()
    jobs.now = time.time()

    job_id = jobs.end(place.url, status=status, prompt="p" * 5000)

    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DELIVERED, 1))
    told = Reference(SECRET).verify(place.bodies[0], place.heads[0])
    assert place.heads[0]["webhook-id"] == f"msg_{job_id}"
    assert place.heads[0]["webhook-timestamp"] == str(int(jobs.now))
    assert (told["type"], told["timestamp"]) == (f"job.{status.value}", "2023-11-14T22:13:19.000Z")
    assert (told["data"]["id"], told["data"]["status"], told["data"]["output"]) == (job_id, status.value, "done")
    assert told["data"]["prompt"] == "p" * 1000 + "..."
    assert "webhook" not in told["data"]
    assert b"s3cret" not in place.bodies[0] and SECRET.encode() not in place.bodies[0]


def test_a_job_without_a_webhook_is_told_nobody(jobs):
    jobs.end()

    assert jobs.service.run_once(jobs.now + 1e6) == 0


def test_what_fails_is_told_again_later_under_the_same_name(jobs, receivers, eventually):
    place = receivers("500 Oops", "503 Busy")
    job_id = jobs.end(place.url)
    eventually(lambda: jobs.delivery(job_id).attempts == 1)
    first = jobs.delivery(job_id)
    assert (first.state, first.last_error) == (DeliveryState.PENDING, "it answered 500 Internal Server Error")
    assert 4.0 <= first.next_at - jobs.now <= 6.0

    jobs.pass_(3.9)
    assert len(place.bodies) == 1
    jobs.pass_(2.2)
    eventually(lambda: jobs.delivery(job_id).attempts == 2)
    assert 48.0 <= jobs.delivery(job_id).next_at - jobs.now <= 72.0
    jobs.pass_(72.0)

    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DELIVERED, 3))
    assert len({head["webhook-id"] for head in place.heads}) == 1
    assert len({head["webhook-signature"] for head in place.heads}) == 3
    assert len(set(place.bodies)) == 1


def test_after_the_last_attempt_it_is_given_up_and_said_so(jobs, receivers, eventually, caplog):
    place = receivers(*["404 x"] * 20)
    job_id = jobs.end(place.url)

    for attempt in range(1, 11):
        eventually(lambda attempt=attempt: jobs.delivery(job_id).attempts == attempt)
        jobs.pass_(20 * 3600.0)

    assert jobs.delivery(job_id) == Delivery(DeliveryState.DEAD, 10, 0.0, "it answered 404 Not Found")
    assert len(place.bodies) == 10
    assert "webhook given up: it answered 404 Not Found" in caplog.text


def test_fewer_attempts_can_be_set(jobs, receivers, eventually):
    jobs.service.config = JobsConfig(webhook_attempts=1)

    job_id = jobs.end(receivers("500 x").url)

    eventually(lambda: jobs.delivery(job_id).state is DeliveryState.DEAD)


def test_who_says_gone_is_told_nothing_any_more(jobs, receivers, eventually):
    job_id = jobs.end(receivers("410 Gone").url)

    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DEAD, 1, 0.0, "it answered 410 Gone"))


def test_who_asks_for_time_gets_it(jobs, receivers, eventually):
    job_id = jobs.end(receivers("429 x", **{"Retry-After": "600"}).url)

    eventually(lambda: jobs.delivery(job_id).attempts == 1)
    assert jobs.delivery(job_id).next_at == jobs.now + 600


def test_redirects_are_not_followed(jobs, receivers, eventually):
    other = receivers()
    job_id = jobs.end(receivers("307 x", Location=other.url).url)

    eventually(lambda: jobs.delivery(job_id).attempts == 1)
    assert jobs.delivery(job_id).last_error == "it answered 307 Temporary Redirect, and redirects are not followed"
    assert other.bodies == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://169.254.169.254/latest", "169.254.169.254 is in 169.254.0.0/16 (jobs.webhook_refuse: metadata)"),
        ("http://2852039166/", "169.254.169.254 is in 169.254.0.0/16 (jobs.webhook_refuse: metadata)"),
        ("http://172.30.1.1/", "172.30.1.1 is in 172.30.0.0/16 (jobs.webhook_refuse: agents)"),
        (f"http://localhost:{OWN_PORT}/api/v1/jobs", f"127.0.0.1:{OWN_PORT} is the daemon itself"),
    ],
)
def test_where_no_webhook_goes_it_is_given_up_at_once(jobs, eventually, url, why):
    jobs.service.networks = ("172.30.0.0/16",)

    job_id = jobs.end(url)

    eventually(lambda: jobs.delivery(job_id).state is DeliveryState.DEAD)
    assert why in jobs.delivery(job_id).last_error


def test_nothing_is_told_before_the_agents_networks_are_known(jobs, receivers, eventually):
    place = receivers()
    jobs.service.networks = None
    job_id = jobs.end(place.url)
    eventually(lambda: not jobs.service._under_way)
    assert (place.bodies, jobs.delivery(job_id)) == ([], Delivery())

    jobs.service.networks = ()
    jobs.pass_(defaults.WEBHOOK_AGAIN_S)

    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DELIVERED, 1))


def test_a_slow_receiver_stops_only_itself(jobs, receivers, eventually):
    slow, quick = receivers(), receivers()
    slow.held.clear()
    waiting = [jobs.end(slow.url) for _ in range(40)]

    told = [jobs.end(quick.url) for _ in range(5)]

    eventually(lambda: all(jobs.delivery(job_id).state is DeliveryState.DELIVERED for job_id in told))
    assert slow.most_inside == defaults.WEBHOOKS_AT_ONCE_OF_ONE
    slow.held.set()
    eventually(lambda: all(jobs.delivery(job_id).state is DeliveryState.DELIVERED for job_id in waiting))
    assert slow.most_inside == defaults.WEBHOOKS_AT_ONCE_OF_ONE
    assert jobs.service._receivers == {} and jobs.service._due == {}


def test_of_many_receivers_only_so_many_are_told_at_once_and_all_get_their_turn(
    jobs, receivers, eventually, monkeypatch
):
    monkeypatch.setattr(defaults, "WEBHOOKS_AT_ONCE", 4)
    places = [receivers() for _ in range(6)]
    for place in places:
        place.held.clear()
    told = defaultdict(list)
    for number, place in enumerate(places):
        told[number] = [jobs.end(place.url) for _ in range(3)]
    eventually(lambda: sum(place.inside for place in places) == 4)

    for place in places[:2]:
        place.held.set()

    eventually(lambda: all(place.inside for place in places[2:4]))
    for place in places:
        place.held.set()
    eventually(
        lambda: all(jobs.delivery(one).state is DeliveryState.DELIVERED for each in told.values() for one in each)
    )


def test_another_daemon_goes_on_where_one_was_killed(jobs, receivers, eventually):
    place = receivers("500 x")
    failed = jobs.end(place.url)
    eventually(lambda: jobs.delivery(failed).attempts == 1)
    never = jobs.add(place.url).job.id

    jobs.service = jobs.make()
    assert jobs.service.load([jobs.views[failed], jobs.views[never], jobs.add()]) == 2
    jobs.pass_(0.0)

    eventually(lambda: jobs.delivery(never) == Delivery(DeliveryState.DELIVERED, 1))
    assert jobs.delivery(failed).state is DeliveryState.PENDING
    jobs.pass_(6.0)
    eventually(lambda: jobs.delivery(failed) == Delivery(DeliveryState.DELIVERED, 2))


def test_while_redis_is_away_nothing_is_lost_and_nothing_told_twice(jobs, receivers, eventually):
    place = receivers()
    jobs.failures = [Unavailable("redis is away")]
    job_id = jobs.end(place.url)
    eventually(lambda: not jobs.service._under_way)
    assert place.bodies == []
    place.held.clear()
    jobs.pass_(defaults.WEBHOOK_AGAIN_S)
    eventually(lambda: place.inside)
    jobs.failures = [Unavailable("redis is away")]
    place.held.set()
    eventually(lambda: not jobs.service._under_way)
    assert jobs.delivery(job_id).state is DeliveryState.WAITING

    jobs.pass_(defaults.WEBHOOK_AGAIN_S)

    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DELIVERED, 1))
    assert len(place.bodies) == 1


def test_a_job_that_is_forgotten_is_told_no_more(jobs, receivers, eventually):
    place = receivers("500 x")
    job_id = jobs.end(place.url)
    eventually(lambda: jobs.delivery(job_id).attempts == 1)
    del jobs.views[job_id]

    jobs.pass_(10.0)

    eventually(lambda: not jobs.service._receivers or jobs.service.run_once(jobs.now + 1e6))
    assert len(place.bodies) == 1


@pytest.mark.parametrize("answer", ["410 Gone", "204 No Content"])
def test_what_was_given_up_or_taken_is_told_again_by_hand(jobs, receivers, eventually, answer):
    place = receivers(answer)
    job_id = jobs.end(place.url)
    eventually(lambda: jobs.delivery(job_id).attempts == 1 and not jobs.service._under_way)

    view = jobs.service.retry(job_id, ADMIN)

    assert (view.job.delivery.state, view.job.delivery.attempts) == (DeliveryState.PENDING, 0)
    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DELIVERED, 1) and len(place.bodies) == 2)


def test_what_waits_for_its_next_attempt_is_told_at_once_by_hand(jobs, receivers, eventually):
    place = receivers("500 x", "500 x")
    job_id = jobs.end(place.url)
    eventually(lambda: jobs.delivery(job_id).attempts == 1 and not jobs.service._under_way)

    jobs.service.retry(job_id, ADMIN)

    eventually(lambda: len(place.bodies) == 2 and jobs.delivery(job_id).attempts == 1)
    jobs.pass_(10.0)
    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DELIVERED, 2))
    assert len(place.bodies) == 3


def test_what_is_under_way_is_not_told_twice_at_once(jobs, receivers, eventually):
    place = receivers()
    place.held.clear()
    job_id = jobs.end(place.url)
    eventually(lambda: place.inside)

    jobs.service.retry(job_id, ADMIN)
    place.held.set()

    eventually(lambda: jobs.delivery(job_id) == Delivery(DeliveryState.DELIVERED, 1))
    assert len(place.bodies) == 1


def test_what_cannot_be_told_by_hand_says_why(jobs):
    with pytest.raises(Conflict) as failure:
        jobs.service.retry(jobs.add().job.id, ADMIN)
    assert failure.value.code == "NO_WEBHOOK"
    with pytest.raises(Conflict) as failure:
        jobs.service.retry(jobs.add("http://x/", status=RunStatus.RUNNING).job.id, ADMIN)
    assert failure.value.code == "JOB_ACTIVE"
    with pytest.raises(NotFound):
        jobs.service.retry("nothing", ADMIN)
