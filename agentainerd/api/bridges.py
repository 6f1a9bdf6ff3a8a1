"""`/api/v1/agents/{ref}/bridge/check`: an agent's container held against the contract of its tier."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import msgspec
from werkzeug.routing import Rule
from werkzeug.wrappers import Response

from agentainerd.api.exchange import ApiRequest, Query, stream_lines
from agentainerd.model.bridge_rules import Outcome
from agentainerd.model.bridges import Bridge
from agentainerd.services.bridge_check import CheckRequest, Examination
from agentainerd.services.services import Services


class CheckBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be checked, and how; the defaults are those of CheckRequest."""

    bridge: Bridge | None = None
    task: str | None = None
    timeout_s: float | None = None


def check(request: ApiRequest, services: Services, ref: str) -> Response:
    """POST /api/v1/agents/{ref}/bridge/check."""
    Query(request, ())
    body = request.read_json(CheckBody)
    wanted = CheckRequest.of(ref, body.bridge, body.task, body.timeout_s)
    examination = services.bridge_checks.check(wanted, request.actor)
    return stream_lines(examination, _lines(examination))


ROUTES = (Rule("/api/v1/agents/<ref>/bridge/check", methods=["POST"], endpoint=check),)


def _lines(examination: Examination) -> Iterator[dict[str, object]]:
    """Yield each finding when it is made, and at the end the tier and how many there are of each outcome."""
    counts: Counter[Outcome] = Counter()
    for finding in examination:
        counts[finding.outcome] += 1
        yield {"finding": asdict(finding)}
    totals = {"passed": counts[Outcome.PASS], "failed": counts[Outcome.FAIL], "skipped": counts[Outcome.SKIP]}
    yield {"result": {"bridge": examination.bridge, **totals}}
