"""Who is let in: the control token, the named ones, tickets for requests, and how often a source may be wrong.

The token comes from the configuration, or is made at the first start and kept in `<state>/token`, mode 0600. A file that
others could have read is not believed: a new token takes its place. Only digests are compared, in constant time.
"""

import base64
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import time
from dataclasses import dataclass
from typing import NoReturn

from agentainerd import defaults
from agentainerd.errors import Conflict, Forbidden, InvalidParameter, TooManyRequests, Unauthorized, Unavailable
from agentainerd.model.tokens import PREFIX, Scope, new_secret
from agentainerd.proxy.routing import AgentPass, RouteTable
from agentainerd.services.audit import Actor, AuditService
from agentainerd.services.named_tokens import NamedTokenService
from agentainerd.store.private_files import read_private, write_private

log = logging.getLogger(__name__)

TOKEN_FILE = "token"  # noqa: S105 - a file's name
TICKET_KEY_FILE = "ticket.key"
TICKET_CHARS = 22
MODEL_TOKEN_PREFIX = "agentainer-"  # noqa: S105 - what such a token begins with
MAX_FAILURES = 10
FAILURE_WINDOW_S = 60.0
MAX_SOURCES = 10_000
CONTROL_TOKEN = "token"  # noqa: S105 - what its holder is called
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Caller:
    """Who showed a token: its name for the audit log, and what it is good for; None: for agents only."""

    name: str
    level: Scope | None


class TokenService:
    """Owns the control token, the key of the tickets and the memory of failed logins; `named` has the other tokens.

    `open` must have been called before anything else. May be used from any greenlet.
    """

    def __init__(
        self, state_dir: str, configured: str, routes: RouteTable, audit: AuditService, *, named: NamedTokenService
    ) -> None:
        self._path = os.path.join(state_dir, TOKEN_FILE)
        self._key_path = os.path.join(state_dir, TICKET_KEY_FILE)
        self._configured = configured
        self._routes = routes
        self._audit = audit
        self.named = named
        self._token = ""
        self._digest = b""
        self._key = b""
        self._failures = Failures()

    def open(self) -> None:
        """Read token and ticket key, and make what is missing.

        Raises:
            Unavailable: the state folder can't be read or written.
        """
        try:
            self._key = read_private(self._key_path) or b""
            if len(self._key) != _KEY_BYTES:
                self._key = secrets.token_bytes(_KEY_BYTES)
                write_private(self._key_path, self._key)
            token = self._configured or (read_private(self._path) or b"").decode("ascii", "replace").strip()
            if not token:
                token = PREFIX + new_secret()
                write_private(self._path, token.encode() + b"\n")
                log.info("a new control token was written to %s", self._path)
        except OSError as exc:
            raise Unavailable(f"cannot keep the control token: {exc}", code="STATE_DIR_UNAVAILABLE") from exc
        self._routes.ports.key = hmac.new(self._key, b"named ports", hashlib.sha256).digest()
        self._use(token)

    def check(self, host: str) -> None:
        """Refuse to be reached from other hosts with the token that everybody knows.

        Raises:
            InvalidParameter: `host`, where the daemon listens, is not loopback, and the token is the original's default.
        """
        if self._token == defaults.SEED_TOKEN and not _is_loopback(host):
            raise InvalidParameter(
                "security.default_token",
                f"refusing to listen on {host} with the default token, which everybody knows",
                code="DEFAULT_TOKEN_REFUSED",
                hint="set a token of your own, or remove the key and one is made",
            )

    @property
    def is_configured(self) -> bool:
        """The token comes from the configuration, so it can't be replaced here."""
        return bool(self._configured)

    def show(self, actor: Actor) -> str:
        """Return the token to somebody who may see it; that is written down."""
        self._audit.record(actor, "show_token", "control token")
        return self._token

    def rotate(self, actor: Actor) -> str:
        """Replace the token; the old one is refused from now on. Returns the new one.

        Raises:
            Conflict: it comes from the configuration.
            Unavailable: it can't be written; the old one stays.
        """
        with self._audit.mutation(actor, "rotate_token", "control token"):
            if self._configured:
                raise Conflict(
                    "the token comes from the configuration and can't be replaced here",
                    code="TOKEN_CONFIGURED",
                    hint="change security.default_token (or AGENTAINER_AUTH_TOKEN) and restart agentainerd",
                )
            token = PREFIX + new_secret()
            try:
                write_private(self._path, token.encode() + b"\n")
            except OSError as exc:
                raise Unavailable(f"the new token can't be written: {exc}", code="STATE_DIR_UNAVAILABLE") from exc
            self._use(token)
        return token

    def verify(self, given: str, source: str, request_id: str = "") -> Caller:
        """Return whose token this is, which came from `source` (an address). A right one passes however often others were wrong.

        Raises:
            Unauthorized: missing, wrong, or its time is over (code TOKEN_EXPIRED).
            TooManyRequests: wrong, and so were MAX_FAILURES of this source within a minute.
        """
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        if given and hmac.compare_digest(digest, self._digest):
            return Caller(CONTROL_TOKEN, Scope.ADMIN)
        now = time.time()
        token = self.named.find(given, now) if given else None
        if token and not token.is_expired(now):
            return Caller(f"token:{token.name}", token.level)
        name = f"token:{token.name}" if token else "anonymous"
        self._audit.refuse(Actor(name, source, request_id), "log_in", "expired" if token else "")
        if not given:
            raise Unauthorized("Missing authorization token", hint="send the header: Authorization: Bearer TOKEN")
        if token:
            raise Unauthorized(
                f"the time of the token '{token.name}' is over",
                code="TOKEN_EXPIRED",
                hint=f"agentainerctl token rotate {token.name}",
            )
        self._count_failure(source)
        raise Unauthorized("Invalid authorization token", hint="agentainerctl token show   (on the daemon's host)")

    def refuse_remote(self, actor: Actor) -> NoReturn:
        """Note that somebody asked for the control token from elsewhere. Raises Forbidden (code LOCAL_ONLY)."""
        self._audit.refuse(actor, "use_token", "control token")
        raise Forbidden(
            "the control token is told and changed over the Unix socket only",
            code="LOCAL_ONLY",
            hint="on the daemon's host: agentainerctl token show",
        )

    def refuse_scope(self, actor: Actor, what: str, given: Scope | None, needed: Scope) -> NoReturn:
        """Note that somebody's token is not good for what was asked, and refuse it. Raises Forbidden (code SCOPE_MISSING)."""
        self._audit.refuse(actor, "use_token", what)
        allowed = f"the scope {given}" if given else "no scope for the API"
        raise Forbidden(
            f"this needs the scope {needed}; {actor.name} has {allowed}",
            code="SCOPE_MISSING",
            hint=f"agentainerctl token create NAME --scope {needed}",
        )

    def publish(self) -> None:
        """Tell the data plane which tokens no agent may ever see, and which of them open agents' paths."""
        digests, passes = {self._digest}, {}
        for token in self.named.all():
            for digest, until in ((token.digest, 0.0), (token.old_digest, token.old_until)):
                if not digest:
                    continue
                digests.add(bytes.fromhex(digest))
                if token.agents:
                    ends = [end for end in (until, token.expires_at) if end]
                    passes[bytes.fromhex(digest)] = AgentPass(token.id, frozenset(token.agents), min(ends, default=0.0))
        self._routes.control_token_digests, self._routes.agent_passes = frozenset(digests), passes

    def refuse_agent_token(self, source: str, agent: str, is_wrong: bool) -> int:
        """Note that a token which an agent asks for was wrong or missing. Never blocks.

        Returns 0, or after how many seconds a source that was wrong too often is heard again.
        """
        self._audit.refuse(Actor("anonymous", source), "use_agent", agent)
        return self._failures.add(source, time.monotonic()) if is_wrong else 0

    def ticket(self, request_id: str) -> str:
        """Return the capability that lets its holder see what became of a request."""
        mac = hmac.new(self._key, request_id.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(mac).decode()[:TICKET_CHARS]

    def model_token(self, agent_id: str) -> str:
        """Return what an agent shows to be let to models; it is good for nothing else, and nobody keeps it."""
        mac = hmac.new(self._key, b"model:" + agent_id.encode(), hashlib.sha256).digest()
        return f"{MODEL_TOKEN_PREFIX}{agent_id.removeprefix('agent-')}-{base64.urlsafe_b64encode(mac).decode()[:32]}"

    def agent_of_model_token(self, given: str) -> str:
        """Return the id of the agent whose token this is; "" where it is none."""
        agent_id = "agent-" + given.removeprefix(MODEL_TOKEN_PREFIX)[:16]
        known = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.model_token(agent_id).encode())
        return agent_id if known else ""

    def refuse_model_token(self, source: str, agent: str) -> int:
        """Note that a token for models was wrong, or came from elsewhere than its agent. Never blocks.

        Returns 0, or after how many seconds a source that was wrong too often is heard again.
        """
        self._audit.refuse(Actor("anonymous", source), "use_model", agent)
        return self._failures.add(source, time.monotonic())

    def is_ticket(self, given: str, request_id: str, source: str) -> bool:
        """Return whether `given` is the ticket of this request.

        Raises:
            TooManyRequests: it is not, and this source was wrong too often.
        """
        expected = self.ticket(request_id).encode()
        if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected):
            return True
        self._audit.refuse(Actor("anonymous", source), "use_ticket", request_id)
        self._count_failure(source)
        return False

    def _count_failure(self, source: str) -> None:
        retry_after_s = self._failures.add(source, time.monotonic())
        if retry_after_s:
            raise TooManyRequests(
                f"too many failed logins from {source}", code="TOO_MANY_FAILED_LOGINS", retry_after_s=retry_after_s
            )

    def _use(self, token: str) -> None:
        self._token = token
        self._digest = hashlib.sha256(token.encode()).digest()
        self.publish()


class Failures:
    """How often each source was wrong in its current minute; a source is an IPv4 address or an IPv6 /64."""

    def __init__(self) -> None:
        self._windows: dict[str, tuple[float, int]] = {}

    def add(self, source: str, now: float) -> int:
        """Count a failure; return 0, or after how many seconds the source is heard again. `now`: monotonic seconds."""
        key = _bucket(source)
        since, count = self._windows.pop(key, (now, 0))
        if now - since >= FAILURE_WINDOW_S:
            since, count = now, 0
        if len(self._windows) >= MAX_SOURCES:
            del self._windows[next(iter(self._windows))]  # the one that has been quiet for longest
        self._windows[key] = (since, count + 1)
        return 0 if count < MAX_FAILURES else max(1, int(since + FAILURE_WINDOW_S - now))


def _bucket(source: str) -> str:
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return source
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
