"""The end of a job is told to who asked for that, until somebody takes it: at least once, and in the background.

What is owed is in the record of the job (`Job.delivery`), so another daemon goes on where this one ended. In memory is only
when which message is due, a queue for each receiver, so that one that is slow or away keeps no other waiting.
"""

import heapq
import logging
import random
from collections.abc import Callable, Iterable

import msgspec

from agentainerd import clock, defaults
from agentainerd.config import JobsConfig
from agentainerd.engine.firewall import METADATA, METADATA_V6
from agentainerd.errors import Conflict, NotFound, Unavailable
from agentainerd.model import webhooks as model
from agentainerd.model.jobs import Delivery, DeliveryState, JobView, Webhook
from agentainerd.model.webhooks import AddressRule
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.job_views import listed_job_json
from agentainerd.services.views import rfc3339
from agentainerd.services.webhook_calls import NotTold, Refused, WebhookCaller

log = logging.getLogger(__name__)

LOOP = "webhooks"
GONE = 410  # whoever says so is told nothing any more

Find = Callable[[str], JobView]
Record = Callable[[str, Delivery], None]
Spawn = Callable[..., object]


class WebhookService:
    """Every method may be called from any greenlet; `job_ended`, `load` and `run_once` do not block.

    Attributes:
        config: as it is now; it may be replaced at any time (SIGHUP).
        networks: those of the agents, None until they are known; before that nothing is told.
        wake: called when something is due at once: it has `run_once` called.
    """

    def __init__(
        self, find: Find, record: Record, audit: AuditService, *, config: JobsConfig, port: int, spawn: Spawn
    ) -> None:
        """`find` and `record` read and write a job; both raise NotFound and Unavailable. `port`: the daemon's own."""
        self.config = config
        self.networks: tuple[str, ...] | None = None
        self.wake: Callable[[], object] = lambda: None
        self._find = find
        self._record = record
        self._audit = audit
        self._port = port
        self._spawn = spawn
        self._caller = WebhookCaller()
        self._receivers: dict[str, _Receiver] = {}
        self._due: dict[str, float] = {}  # job -> when; what is in a queue at another time is void
        self._under_way: set[str] = set()
        self._unrecorded: dict[str, Delivery] = {}

    def job_ended(self, view: JobView) -> None:
        """A job is over: tell it, where it is to be told."""
        if view.job.webhook is not None:
            self._owe(view.job.id, view.job.webhook, clock.now())
            self.wake()

    def load(self, views: Iterable[JobView]) -> int:
        """Take over what another daemon still owed, jobs that are over; return how many."""
        count = 0
        for view in views:
            if view.job.webhook is not None:
                self._owe(view.job.id, view.job.webhook, view.job.delivery.next_at)
                count += 1
        return count

    def retry(self, ref: str, actor: Actor) -> JobView:
        """Have the end of a job told again, now and with all attempts before it, whatever became of it so far.

        Raises:
            NotFound. Conflict: the job is not over (JOB_ACTIVE), or has no webhook (NO_WEBHOOK). Unavailable.
        """
        with self._audit.mutation(actor, "retry_webhook", ref):
            view = self._find(ref)
            if view.job.webhook is None:
                raise Conflict(f"job {view.job.id} has no webhook", code="NO_WEBHOOK")
            if not view.run.status.is_final:
                raise Conflict(
                    f"job {view.job.id} is {view.run.status.value}",
                    code="JOB_ACTIVE",
                    hint="its end is told when it is over",
                )
            if view.job.id not in self._under_way:
                delivery = Delivery(DeliveryState.PENDING, next_at=clock.now())
                self._unrecorded.pop(view.job.id, None)
                self._record(view.job.id, delivery)
                self._owe(view.job.id, view.job.webhook, delivery.next_at)
                view = msgspec.structs.replace(view, job=msgspec.structs.replace(view.job, delivery=delivery))
        self.wake()
        return view

    def run_once(self, now: float) -> int:
        """Begin what is due, as far as not too much is under way; return how many."""
        begun = 0
        for name in list(self._receivers):
            receiver = self._receivers[name]
            while len(self._under_way) < defaults.WEBHOOKS_AT_ONCE and (job_id := receiver.take(self._due, now)):
                del self._due[job_id]
                self._under_way.add(job_id)
                receiver.busy += 1
                begun += 1
                self._spawn("webhook", self._attempt, job_id, receiver)
                self._receivers[name] = self._receivers.pop(name)  # the others come first the next time
            if receiver.is_idle:
                del self._receivers[name]
        return begun

    def _owe(self, job_id: str, webhook: Webhook, at: float) -> None:
        name = model.receiver(webhook.url)
        self._due[job_id] = at
        heapq.heappush(self._receivers.setdefault(name, _Receiver()).queue, (at, job_id))

    def _attempt(self, job_id: str, receiver: "_Receiver") -> None:
        view = None
        again_at = 0.0
        try:
            view = self._find(job_id)
            again_at = self._settle(view)
        except NotFound:
            self._unrecorded.pop(job_id, None)
            log.info("the end of a job is not told any more: the job is forgotten", extra={"job_id": job_id})
        except Unavailable as error:
            log.debug("a webhook waits: %s", error, extra={"job_id": job_id})
            again_at = clock.now() + defaults.WEBHOOK_AGAIN_S
        finally:
            receiver.busy -= 1
            self._under_way.discard(job_id)
        if again_at:
            self._due[job_id] = again_at
            heapq.heappush(receiver.queue, (again_at, job_id))
        self.wake()

    def _settle(self, view: JobView) -> float:
        """Tell it once, and write down how that went; return when to come back, 0.0 for never. Raises NotFound, Unavailable."""
        job_id = view.job.id
        if job_id not in self._unrecorded:
            if self.networks is None:
                raise Unavailable("the agents' networks are not known yet")
            self._unrecorded[job_id] = self._tell(view)
        self._record(job_id, self._unrecorded[job_id])
        return self._unrecorded.pop(job_id).next_at

    def _tell(self, view: JobView) -> Delivery:
        job = view.job
        assert job.webhook is not None
        attempts = job.delivery.attempts + 1
        message_id, body = f"msg_{job.id}", payload(view)
        fields = model.headers(job.webhook.secret, message_id, body, clock.now())
        told = {"job_id": job.id, "receiver": model.receiver(job.webhook.url), "attempt": attempts}
        try:
            answer = self._caller.post(job.webhook.url, body, fields, self._rule().refusal)
        except NotTold as error:
            return self._failed(told, attempts, error.reason, is_final=isinstance(error, Refused))
        if 200 <= answer.status < 300:
            log.info("webhook delivered", extra=told)
            return Delivery(DeliveryState.DELIVERED, attempts)
        return self._failed(told, attempts, answer.reason, is_final=answer.status == GONE, asked_s=answer.retry_after_s)

    def _failed(
        self, told: dict[str, object], attempts: int, reason: str, *, is_final: bool, asked_s: float = 0.0
    ) -> Delivery:
        if is_final or attempts >= self.config.webhook_attempts:
            log.warning("webhook given up: %s", reason, extra=told)
            return Delivery(DeliveryState.DEAD, attempts, last_error=reason)
        log.info("webhook failed, and is tried again: %s", reason, extra=told)
        next_at = clock.now() + model.pause_s(attempts, asked_s, random.random())
        return Delivery(DeliveryState.PENDING, attempts, next_at, reason)

    def _rule(self) -> AddressRule:
        return AddressRule(
            self.config.webhook_refuse,
            metadata=(*METADATA, *METADATA_V6),
            agents=self.networks or (),
            own_port=self._port,
        )


class _Receiver:
    """What is due at one receiver, and when, and how much is under way. A job may be in its queue twice: `due` says when."""

    def __init__(self) -> None:
        self.queue: list[tuple[float, str]] = []
        self.busy = 0

    @property
    def is_idle(self) -> bool:
        return not self.queue and not self.busy

    def take(self, due: dict[str, float], now: float) -> str:
        """Return a job whose time has come, "" where there is none, or enough is under way."""
        while self.queue and due.get(self.queue[0][1]) != self.queue[0][0]:
            heapq.heappop(self.queue)
        if self.busy >= defaults.WEBHOOKS_AT_ONCE_OF_ONE or not self.queue or self.queue[0][0] > now:
            return ""
        return heapq.heappop(self.queue)[1]


def payload(view: JobView) -> bytes:
    """Return what is told of a job that is over: the same bytes at each attempt."""
    told = listed_job_json(view)
    del told["webhook"]
    return msgspec.json.encode(
        {"type": f"job.{view.run.status.value}", "timestamp": rfc3339(view.run.finished_at), "data": told}
    )
