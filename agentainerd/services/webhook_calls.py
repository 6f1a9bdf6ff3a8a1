"""One message to one receiver over HTTP. Names are looked up once, and only an address that was judged is connected to.

Certificates are checked, redirects are not followed, and of the answer nothing but its status and `Retry-After` is used: whoever
names a receiver learns nothing else of it.
"""

import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import SplitResult, urlsplit

from gevent import socket
from gevent.lock import BoundedSemaphore
from gevent.timeout import Timeout

from agentainerd import defaults, offload
from agentainerd.model.webhooks import port_of
from agentainerd.version import VERSION

Judge = Callable[[str, int, str], str]
"""Returns why an address, port and path is told nothing, "" where it may be."""


class NotTold(Exception):
    """It did not get there, or nobody knows whether it did; `reason` is for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refused(NotTold):
    """It must not get there."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said. `retry_after_s`: how long it wants to be left alone, 0.0 where it does not say."""

    status: int
    retry_after_s: float = 0.0

    @property
    def reason(self) -> str:
        """Return it for people."""
        try:
            phrase = f" {HTTPStatus(self.status).phrase}"
        except ValueError:
            phrase = ""
        redirects = ", and redirects are not followed" if 300 <= self.status < 400 else ""
        return f"it answered {self.status}{phrase}{redirects}"


class WebhookCaller:
    """Sends messages. Safe to use from any greenlet; few names are looked up at once, since that takes threads of the pool."""

    def __init__(self) -> None:
        self._lookups = BoundedSemaphore(defaults.WEBHOOK_LOOKUPS)
        self._context: ssl.SSLContext | None = None

    def post(self, url: str, body: bytes, headers: Mapping[str, str], judge: Judge) -> Answer:
        """Send a message and return the answer, within WEBHOOK_TIMEOUT_S. Blocks the greenlet.

        Raises:
            Refused: by `judge`. NotTold: everything else that kept it from being answered.
        """
        timeout = Timeout(defaults.WEBHOOK_TIMEOUT_S)
        try:
            with timeout:
                return self._post(url, body, headers, judge)
        except Timeout as error:
            if error is not timeout:
                raise
            raise NotTold(f"no answer within {defaults.WEBHOOK_TIMEOUT_S:g} s") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotTold(_reason(error)) from error

    def _post(self, url: str, body: bytes, headers: Mapping[str, str], judge: Judge) -> Answer:
        parts = urlsplit(url)
        host = parts.hostname or ""
        sock = self._connected(self._addresses(parts, judge), port_of(parts))
        try:
            if parts.scheme == "https":
                sock = self._tls().wrap_socket(sock, server_hostname=host)
            connection = http.client.HTTPConnection(parts.netloc)
            connection.sock = sock
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            given = {"Host": parts.netloc, "User-Agent": f"agentainerd/{VERSION}", "Content-Type": "application/json"}
            connection.request("POST", target, body, {**given, **headers, "Connection": "close"})
            answer = connection.getresponse()
            answer.read(defaults.MAX_WEBHOOK_ANSWER_BYTES)  # a receiver that is still writing would see a reset
            return Answer(answer.status, _seconds(answer.getheader("Retry-After") or "", time.time()))
        finally:
            sock.close()

    def _addresses(self, parts: SplitResult, judge: Judge) -> list[str]:
        host, port = parts.hostname or "", port_of(parts)
        try:
            with self._lookups:
                found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise NotTold(f"the name {host} is not known") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        refusals = {address: judge(address, port, parts.path) for address in addresses}
        allowed = [address for address in addresses if not refusals[address]]
        if not allowed:
            raise Refused(f"webhooks do not go there: {'; '.join(refusals.values())}")
        return allowed

    def _connected(self, addresses: list[str], port: int) -> socket.socket:
        failure: OSError = OSError("it has no address")
        for address in addresses:
            try:
                sock = socket.create_connection((address, port), timeout=defaults.WEBHOOK_CONNECT_TIMEOUT_S)
                sock.settimeout(None)  # from here on the time of the whole call counts
                return sock
            except TimeoutError:
                failure = OSError(f"{address} took no connection within {defaults.WEBHOOK_CONNECT_TIMEOUT_S:g} s")
            except OSError as error:
                failure = error
        raise failure

    def _tls(self) -> ssl.SSLContext:
        """Return what is believed of certificates; reading it takes some time, once."""
        if self._context is None:
            self._context = offload.run(ssl.create_default_context)
        return self._context


def _seconds(text: str, now: float) -> float:
    """Return the seconds that a Retry-After means, a number or a date; 0.0 where it means nothing."""
    if text.isascii() and text.isdigit():
        return float(text[:12])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not good: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"it does not speak TLS: {error.reason or error}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"its answer is no HTTP ({type(error).__name__})"
