"""Health: what is asked of a replica, and what its answers make of it. No I/O.

`none → starting → healthy ⇄ unhealthy`: a run begins as `starting`, the first good answer makes it healthy, `retries` bad ones
in a row make it unhealthy, and one good one healthy again.
"""

from enum import StrEnum

import msgspec

from agentainerd import defaults
from agentainerd.errors import InvalidParameter
from agentainerd.units import parse_duration

TCP = "tcp"
MAX_ENDPOINT_CHARS = 1024


class HealthState(StrEnum):
    """What is known of a replica."""

    NONE = "none"  # nothing is asked of it, or it does not run
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


class HealthCheck(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is asked of each replica; the field names are the original's, times are durations such as "30s".

    `endpoint`: a path, which a GET has to answer with 2xx or 3xx, or "tcp": a connection is enough. `command`, instead of it:
    run in the container, has to exit with 0. `interval`: from the end of one to the beginning of the next. `retries`: so many
    failures in a row are unhealthy. `start_period`: failures do not count for so long after a start.
    """

    endpoint: str = ""
    command: tuple[str, ...] = ()
    interval: str = defaults.HEALTH_INTERVAL
    timeout: str = defaults.HEALTH_TIMEOUT
    retries: int = defaults.HEALTH_RETRIES
    start_period: str = defaults.HEALTH_START_PERIOD

    @property
    def path(self) -> str:
        """What a GET asks for; "" where it is none of that."""
        if self.command or self.endpoint == TCP:
            return ""
        return self.endpoint or defaults.HEALTH_ENDPOINT

    @property
    def interval_s(self) -> float:
        """Seconds between two."""
        return parse_duration(self.interval, "health_check.interval")

    @property
    def timeout_s(self) -> float:
        """Seconds that one may take."""
        return parse_duration(self.timeout, "health_check.timeout")

    @property
    def start_period_s(self) -> float:
        """Seconds after a start in which failures do not count."""
        return parse_duration(self.start_period, "health_check.start_period")


class HealthResult(msgspec.Struct, frozen=True, kw_only=True):
    """How one check went. `at`: epoch seconds; `status`: of HTTP, or the exit code of a command; 0: neither."""

    is_good: bool
    at: float
    latency_s: float = 0.0
    status: int = 0
    message: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one run. `failures`: in a row; `since`: epoch seconds of the last change of state.

    `counted_at`: when a failure was last counted, in the run's own time; 0: none was.
    """

    state: HealthState = HealthState.STARTING
    failures: int = 0
    since: float = 0.0
    last: HealthResult | None = None
    counted_at: float = 0.0

    def after(self, result: HealthResult, check: HealthCheck, ran_s: float) -> "Health":
        """Return what it is after one more result, `ran_s` seconds after the start of the run.

        While it starts it is asked more often than every `interval`, so only one failure in each interval counts.
        """
        if result.is_good:
            return self._now(HealthState.HEALTHY, result, failures=0, counted_at=0.0)
        if self.state is HealthState.STARTING:
            begins = check.start_period_s if not self.failures else self.counted_at
            if ran_s < begins + check.interval_s:
                return msgspec.structs.replace(self, last=result)
        failures = self.failures + 1
        is_lost = failures >= check.retries
        return self._now(HealthState.UNHEALTHY if is_lost else self.state, result, failures=failures, counted_at=ran_s)

    def _now(self, state: HealthState, result: HealthResult, *, failures: int, counted_at: float) -> "Health":
        since = self.since if state is self.state else result.at
        return Health(state=state, failures=failures, since=since, last=result, counted_at=counted_at)


def worst(states: list[HealthState]) -> HealthState:
    """Return what stands for several replicas: unhealthy before starting, healthy, none."""
    for state in (HealthState.UNHEALTHY, HealthState.STARTING, HealthState.HEALTHY):
        if state in states:
            return state
    return HealthState.NONE


def check_health(check: HealthCheck) -> None:
    """Check what a person asked for.

    Raises:
        InvalidParameter: the first field that is wrong, and the reason.
    """
    if check.endpoint and check.command:
        raise InvalidParameter("health_check.command", "stands instead of endpoint: give one of them")
    if check.path:
        is_plain = check.path.isascii() and check.path.isprintable() and " " not in check.path and "#" not in check.path
        if not check.path.startswith("/") or len(check.path) > MAX_ENDPOINT_CHARS or not is_plain:
            raise InvalidParameter(
                "health_check.endpoint", f"{check.path[:64]!r} is neither a path nor 'tcp'", hint="write it as /health"
            )
    if any("\0" in word or len(word) > 32768 for word in check.command):
        raise InvalidParameter("health_check.command", "has a NUL character, or is too long")
    bounds = (
        ("interval", check.interval_s, 0.1, 86400),
        ("timeout", check.timeout_s, 0.1, 3600),
        ("retries", check.retries, 1, 100),
        ("start_period", check.start_period_s, 0, 86400),
    )
    for field, value, low, high in bounds:
        if not low <= value <= high:
            raise InvalidParameter(f"health_check.{field}", f"{value:g} is not between {low:g} and {high:g}")
