"""HTTP to one container of an agent, whose answer is read piece by piece: for bridges, whose answers may take hours.

Not for clients' requests, which the data plane forwards. Whoever opens a call closes it; another greenlet may abort it.
"""

import contextlib
import http.client
import socket
import time
from collections.abc import Callable, Iterator, Mapping

from agentainerd import defaults
from agentainerd.model.sse import Message, Parser, TooLong
from agentainerd.proxy.target import Target

USER_AGENT = "agentainerd"
PIECE_BYTES = 64 * 1024


class CallBroken(Exception):
    """The connection could not be opened, or ended before the answer did. `is_sent`: the agent may have read the request."""

    def __init__(self, reason: str, *, is_sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_sent = is_sent


class CallTimedOut(CallBroken):
    """Nothing came for as long as could be waited."""


class AgentCall:
    """One request and its answer. It counts as in flight at its target, so that an agent is not idle meanwhile.

    `status` and `content_type` (lower case, without parameters) are valid after `send`.
    """

    def __init__(self, target: Target) -> None:
        self.status = 0
        self.content_type = ""
        self._target = target
        self._answer: http.client.HTTPResponse | None = None
        self._is_open = True
        target.in_flight += 1
        assert isinstance(target.address, tuple)  # no agent listens on a Unix socket
        self._connection = http.client.HTTPConnection(*target.address, timeout=defaults.CONNECT_TIMEOUT_S)
        self._socket: socket.socket | None = None  # the answer of an agent that closes takes it from the connection

    def send(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str], *, timeout_s: float) -> None:
        """Send a request and wait for the head of the answer, at most `timeout_s`.

        Raises:
            CallBroken.
        """
        is_sent = False
        try:
            self._connection.connect()
            self._socket = self._connection.sock
            self._socket.settimeout(timeout_s)
            is_sent = True
            self._connection.request(method, path, body, {"User-Agent": USER_AGENT, **headers})
            self._answer = self._connection.getresponse()
        except TimeoutError:
            raise CallTimedOut(f"no answer within {timeout_s:g} s", is_sent=is_sent) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CallBroken(_reason(error), is_sent=is_sent) from error
        self.status = self._answer.status
        self.content_type = (self._answer.getheader("Content-Type") or "").partition(";")[0].strip().lower()

    def piece(self, timeout_s: float) -> bytes:
        """Return what came next of the body, b"" at its end; wait at most `timeout_s`.

        Raises:
            CallBroken: it broke off.
        """
        assert self._answer is not None
        assert self._socket is not None
        try:
            self._socket.settimeout(timeout_s)
            return self._answer.read1(PIECE_BYTES)
        except TimeoutError:
            raise CallTimedOut(f"nothing came for {timeout_s:g} s", is_sent=True) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CallBroken(_reason(error), is_sent=True) from error

    def body(self, limit: int, timeout_s: float) -> bytes:
        """Return all of the body, of at most `limit` bytes. Raises CallBroken."""
        found = b""
        end = time.monotonic() + timeout_s
        while piece := self.piece(max(0.001, end - time.monotonic())):
            found += piece
            if len(found) > limit:
                raise CallBroken(f"the answer is longer than {limit} bytes", is_sent=True)
        return found

    def messages(self, wait_s: Callable[[], float]) -> Iterator[Message]:
        """Return the server-sent events of the body; `wait_s` says how long the next piece may take. Raises CallBroken."""
        parser = Parser(defaults.MAX_RUN_EVENT_BYTES)
        while piece := self.piece(wait_s()):
            try:
                yield from parser.feed(piece)
            except TooLong as error:
                raise CallBroken(str(error), is_sent=True) from error

    def abort(self) -> None:
        """Break the connection off: a read under way, in whatever greenlet, ends."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the call; for the greenlet that reads it."""
        if not self._is_open:
            return
        self._is_open = False
        self._target.in_flight -= 1
        self._target.used_at = time.monotonic()
        if self._answer is not None:
            self._answer.close()
        self._connection.close()


def _reason(error: Exception) -> str:
    if isinstance(error, http.client.RemoteDisconnected):
        return "it closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        return "its answer broke off"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return f"its answer is no HTTP ({type(error).__name__})"
