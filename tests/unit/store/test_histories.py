"""Random lives of requests, over restarts of the daemon, against what was promised to whom."""

import random
import time

import pytest

from agentainerd.errors import Conflict, TooManyRequests
from agentainerd.model.requests import Outcome, Reason, ReplayPolicy, RequestState
from tests.fakes import invariants
from tests.fakes.stores import ANSWERED, COMPLETED, INTERRUPTED

pytestmark = pytest.mark.redis
AGENTS = ["agent-a", "agent-b", "agent-c"]
STEPS = 500


class Life:
    """Does one thing after another. `accepted` are the requests for which 202 was said, `removed` those a person removed."""

    def __init__(self, store, seed):
        self.store = store
        self.random = random.Random(seed)
        self.now = time.time()
        self.live, self.leased = [], []
        self.accepted, self.completed, self.removed = {}, set(), set()

    def step(self):
        actions = {
            self.begin: 6, self.accept_new: 4, self.accept_live: 3, self.settle_live: 6, self.reserve: 3, self.claim: 5,
            self.settle_claimed: 5, self.retry: 3, self.give_back: 1, self.cancel: 1, self.requeue: 2, self.sweep: 1,
            self.restart: 1, self.purge: 1,
        }  # fmt: skip
        self.now += self.random.random() * 20
        self.random.choices(list(actions), list(actions.values()))[0]()

    def record(self, **options):
        options.setdefault("policy", self.random.choice(list(ReplayPolicy)))
        options.setdefault("method", self.random.choice([b"GET", b"POST"]))
        lifetime = self.random.choice([50, 500, 5000])
        body = b"x" * self.random.randrange(200)
        return self.store.record(
            self.random.choice(AGENTS), body=body, expires_at=self.now + lifetime, max_pending=30, **options
        )

    def take(self, records):
        return records.pop(self.random.randrange(len(records))) if records else None

    def begin(self):
        record = self.record()
        self.store.journal.begin(record)
        self.live.append(record)

    def reserve(self):
        record = self.record(key=str(self.random.randrange(8)))
        if self.store.journal.reserve(record).verdict == "new":
            self.live.append(record)

    def accept(self, record):
        try:
            self.store.journal.accept(record)
            self.accepted[record.id] = record
        except TooManyRequests:
            self.store.journal.settle(record, INTERRUPTED)

    def accept_new(self):
        self.accept(self.record())

    def accept_live(self):
        if record := self.take(self.live):
            self.accept(record)

    def settle_live(self):
        if record := self.take(self.live):
            self.store.journal.settle(record, self.random.choice([COMPLETED, COMPLETED, INTERRUPTED]))

    def claim(self):
        lease_s = self.random.choice([1, 1000])
        ordered = self.random.random() < 0.3
        self.leased += self.store.claim(
            self.random.randrange(1, 5),
            agent_id=self.random.choice(AGENTS),
            now=self.now,
            lease_s=lease_s,
            ordered=ordered,
        )

    def settle_claimed(self):
        if record := self.take(self.leased):
            failed = Outcome(RequestState.FAILED, Reason.ATTEMPTS, status=503)
            self.store.journal.settle(record, self.random.choice([ANSWERED, failed]))
            self.store.flush()
            if self.state(record.id) is RequestState.COMPLETED:
                self.completed.add(record.id)

    def retry(self):
        if record := self.take(self.leased):
            self.store.journal.retry(record, due_at=self.now + self.random.choice([0, 30]), error="busy")

    def give_back(self):
        if record := self.take(self.leased):
            self.store.journal.give_back(record)

    def cancel(self):
        self.ask(self.store.requests.cancel)

    def requeue(self):
        self.ask(self.store.requests.requeue)

    def ask(self, verb):
        self.store.flush()
        if self.accepted:
            record = self.accepted[self.random.choice(list(self.accepted))]
            if record.id not in self.removed:
                try:
                    verb(record.agent_id, record.id)
                except Conflict as error:
                    assert error.code in ("REQUEST_IN_FLIGHT", "REQUEST_ENDED")

    def purge(self):
        agent_id = self.random.choice(AGENTS)
        self.store.flush()
        self.removed |= set(self.store.ids(RequestState.FAILED, agent_id))
        self.store.requests.purge(agent_id, state=RequestState.FAILED)

    def sweep(self):
        self.store.requests.sweep(self.now)

    def restart(self):
        self.store.restart()
        self.live.clear()
        self.leased.clear()

    def state(self, request_id):
        return self.store.requests.locate(request_id).summary.state

    def check(self):
        self.store.flush()
        invariants.require(self.store.client.url)
        for request_id in self.accepted.keys() - self.removed:
            state = self.state(request_id)
            assert (state is RequestState.COMPLETED) == (request_id in self.completed), request_id


@pytest.mark.parametrize("seed", range(3))
def test_every_request_is_in_one_place_and_none_is_lost(store, seed):
    life = Life(store, seed)

    for number in range(STEPS):
        life.step()
        if number % 50 == 49:
            life.check()

    assert life.accepted.keys() - life.removed
    assert life.completed
