"""Jobs on an engine that is restarted: it ends their containers, and they are run once more; those that wait, wait."""

import pytest

from tests.fakes.docker import new_sandbox
from tests.fakes.engines import private_engine
from tests.fakes.jobs import Jobs

pytestmark = [pytest.mark.docker, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(300)]


def test_jobs_outlive_their_engine(start_daemon, base_image, eventually):
    with private_engine(base_image) as engine, new_sandbox(engine.host) as sandbox:
        daemon = start_daemon(sandbox=sandbox, inside=engine.inside, config="jobs:\n  max_running: 1\n")
        jobs = Jobs(daemon, base_image)
        running = jobs.submit('echo "attempt $JOB_ATTEMPT"; test "$JOB_ATTEMPT" = 2 || sleep 60')["id"]
        waiting = jobs.submit("echo waited")["id"]
        eventually(lambda: "attempt 1" in jobs.log(running), limit_s=30)

        engine.stop()
        late = jobs.submit("echo late")["id"]
        assert jobs.get(running)["finished_at"] is None
        engine.start()

        job = jobs.done(running, limit_s=60)
        assert (job["status"], job["attempt"], job["output"]) == ("completed", 2, "attempt 2\n")
        assert jobs.log(running) == "attempt 1\nattempt 2\n"
        for job_id, said in ((waiting, "waited\n"), (late, "late\n")):
            job = jobs.done(job_id)
            assert (job["status"], job["attempt"], jobs.log(job_id)) == ("completed", 1, said)
        daemon.stop()
