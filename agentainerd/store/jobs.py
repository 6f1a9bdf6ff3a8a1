"""Jobs in Redis: one JSON text beside that of the run, and an index of all of them by the time of their creation."""

from collections.abc import Iterable

import msgspec

from agentainerd.errors import NotFound
from agentainerd.model.jobs import Job
from agentainerd.store import keys
from agentainerd.store.connection import Argument, RedisClient

_decoder = msgspec.json.Decoder(Job)


class JobStore:
    """Reads; and makes the operations that a RunWriter writes with those of the run. Reading blocks its greenlet only, and raises
    Unavailable where Redis is away.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    def get(self, job_id: str) -> Job:
        """Return a job. Raises NotFound."""
        text = self._client.call("GET", keys.job(job_id))
        if text is None:
            raise NotFound("job", job_id, hint="agentainerctl jobs list")
        return _decoder.decode(text)

    def some(self, job_ids: Iterable[str]) -> list[Job]:
        """Return those of them that are there, in this order."""
        names = [keys.job(job_id) for job_id in job_ids]
        found = self._client.call("MGET", *names) if names else []
        return [_decoder.decode(text) for text in found if text is not None]

    def ids(self) -> list[tuple[str, float]]:
        """Return the ids of all jobs with the times of their creation, newest first."""
        flat = self._client.call("ZREVRANGE", keys.JOBS, 0, -1, "WITHSCORES")
        return [(name.decode(), float(at)) for name, at in zip(flat[::2], flat[1::2], strict=True)]

    def ended(self) -> list[tuple[str, float]]:
        """Return the ids of the jobs that are over with the times of their end, the one first that ended first."""
        flat = self._client.call("ZRANGE", keys.JOBS_ENDED, 0, -1, "WITHSCORES")
        return [(name.decode(), float(at)) for name, at in zip(flat[::2], flat[1::2], strict=True)]

    # What a RunWriter writes

    @staticmethod
    def begin(job: Job, created_at: float) -> list[Argument]:
        """A new job."""
        return [*JobStore.put(job), "Z", keys.JOBS, f"{created_at:.6f}", job.id]

    @staticmethod
    def put(job: Job) -> list[Argument]:
        """What is known of a job."""
        return ["S", keys.job(job.id), msgspec.json.encode(job)]

    @staticmethod
    def remove(job_id: str) -> list[Argument]:
        """Forget a job."""
        return ["X", keys.job(job_id), "R", keys.JOBS, job_id]
