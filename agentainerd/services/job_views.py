"""Jobs as the API tells them."""

from collections.abc import Mapping
from typing import Any

import msgspec

from agentainerd.archives.listings import Entry
from agentainerd.model.jobs import JobView
from agentainerd.services.job_results import ArtifactPage
from agentainerd.services.run_views import LISTED_CHARS
from agentainerd.services.views import rfc3339

Json = dict[str, Any]


def job_json(view: JobView) -> Json:
    """Return a job; variables are not in it, and of a webhook no secret. Times are RFC 3339, null where there is none yet."""
    job, run = view.job, view.run
    return {
        "id": job.id,
        "status": run.status.value,
        "prompt": run.input,
        "image": job.image,
        "model": run.model,
        "template": job.template,
        "files": list(job.files),
        "env": sorted(job.env),
        "priority": job.priority,
        "submitter": job.submitter,
        "position": view.position,
        "attempt": run.attempt,
        "created_at": rfc3339(run.created_at),
        "after": rfc3339(job.not_before),
        "started_at": rfc3339(run.started_at),
        "finished_at": rfc3339(run.finished_at),
        "exit_code": job.exit_code,
        "error": run.error and msgspec.structs.asdict(run.error),
        "usage": msgspec.structs.asdict(run.usage),
        "steps": run.steps,
        "output": run.output,
        "limits": {name: getattr(job.limits, name) for name in job.limits.__struct_fields__},
        "retention_s": job.retention_s,
        "expires_at": rfc3339(run.finished_at + job.retention_s) if run.finished_at else None,
        "agent": job.agent,
        "webhook": _webhook(view),
    }


def submitted_job_json(view: JobView) -> Json:
    """Return a job as who submits it is told: with the secret of its webhook, which is told nowhere else."""
    whole = job_json(view)
    if whole["webhook"] and view.job.webhook:
        whole["webhook"] |= {"secret": view.job.webhook.secret}
    return whole


def listed_job_json(view: JobView) -> Json:
    """Return a job as one of many: as `job_json`, but of a long prompt or output its beginning, and `...`."""
    whole = job_json(view)
    texts = {name: whole[name] for name in ("prompt", "output")}
    return whole | {name: f"{text[:LISTED_CHARS]}..." for name, text in texts.items() if len(text) > LISTED_CHARS}


def artifacts_json(page: ArtifactPage) -> Json:
    """Return what is in an output folder: `artifacts` in a fixed order, and what was left out of it with the reasons."""
    omitted = [{"name": name, "reason": reason} for name, reason in page.omissions.kept]
    return {
        "artifacts": [_artifact(entry, page.digests) for entry in page.entries],
        "omitted": omitted,
        "omitted_count": page.omissions.count,
    }


def _artifact(entry: Entry, digests: Mapping[str, str]) -> Json:
    found = {
        "name": entry.name, "kind": entry.kind.value, "size": entry.size, "modified_at": rfc3339(entry.modified_at),
    }  # fmt: skip
    return found | ({"sha256": digests[entry.name]} if entry.name in digests else {})


def _webhook(view: JobView) -> Json | None:
    job = view.job
    if job.webhook is None or view.delivery is None:
        return None
    delivery = job.delivery
    return {
        "url": job.webhook.url,
        "state": view.delivery.value,
        "attempts": delivery.attempts,
        "next_at": rfc3339(delivery.next_at),
        "last_error": delivery.last_error,
    }
