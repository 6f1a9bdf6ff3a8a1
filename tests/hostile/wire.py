"""Both ends of the data plane on raw sockets: a client that sends what it likes, an agent that takes nothing wrong."""

import contextlib
import itertools
import socket
import time
from collections import Counter
from dataclasses import dataclass, field

import gevent
import h11
from gevent.server import StreamServer

from tests.hostile.oracle import MAX_HEAD, End, Framed, Message, frame

ANSWER_LIMIT_S = 30.0
FRAMING_STATUSES = {400, 405, 408, 411, 413, 414, 417, 421, 431, 501, 505}
MARK = b"the agent's answer"


@dataclass(eq=False)
class Part:
    """The beginning of a request, as it came."""

    data: bytes = b""


class StrictAgent:
    """A server that reads with h11 and keeps what it saw; it answers every request with `MARK`.

    `messages`: the whole requests, in order. `unfinished`: the beginnings of others.
    `violations`: what h11 refused. `prefix`: what the data plane takes off a path on its way here.
    """

    def __init__(self, listener: object = ("127.0.0.1", 0), prefix: bytes = b"/agent/web"):
        self.prefix = prefix
        self.forget()
        self._server = StreamServer(listener, self._serve)
        self._server.start()
        self.address = self._server.address

    def forget(self) -> None:
        self.messages: list[Message] = []
        self.unfinished: list[Part] = []
        self.violations: list[str] = []

    def is_for(self, message: Message) -> bool:
        """The data plane has to bring a client's request here."""
        path = origin_form(message.target)
        return not self.prefix or (path.startswith(self.prefix) and path[len(self.prefix) :][:1] in (b"", b"/", b"?"))

    def sees(self, message: Message) -> tuple[bytes, bytes, bytes]:
        """Return method, target and body of a client's request as they arrive here."""
        path = origin_form(message.target)[len(self.prefix) :]
        return message.method, path if path[:1] in (b"/", b"*") else b"/" + path, message.body

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def _serve(self, connection, _address):
        buffered = b""
        try:
            while message := self._read(connection, buffered):
                request, buffered = message
                self.messages.append(request)
                connection.sendall(self._answer(request))
        except h11.RemoteProtocolError as error:
            self.violations.append(str(error))
        except OSError:
            pass
        finally:
            connection.close()

    def _read(self, connection, buffered: bytes) -> tuple[Message, bytes] | None:
        """Return the next request and what came behind it, None at the end; what is not whole is noted as it comes."""
        reader = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        head, body, part = None, b"", Part()
        data = buffered or connection.recv(65536)
        unfinished = self.unfinished  # of the case that this request is part of
        unfinished.append(part)
        while data:
            part.data += data
            reader.receive_data(data)
            while (event := reader.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    head = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    unfinished.remove(part)
                    message = Message(head.method, head.target, body, tuple(head.headers), closes=False)
                    return message, reader.trailing_data[0]
            data = connection.recv(65536)
        if not part.data:
            unfinished.remove(part)
        return None

    def _answer(self, request: Message) -> bytes:
        body = b"" if request.method == b"HEAD" else MARK
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(MARK), body)


@dataclass
class Answers:
    """What a client got: final statuses in order, what is no whole answer, and whether the other side closed."""

    statuses: list[int] = field(default_factory=list)
    raw: bytes = b""
    closed: bool = False
    rest: bytes = b""


def origin_form(target: bytes) -> bytes:
    """Return a target without scheme and authority."""
    if target.startswith(b"/") or target == b"*":
        return target
    return b"/" + target.partition(b"://")[2].partition(b"/")[2]


def connect(address) -> socket.socket:
    """Return a connection that sends each piece at once."""
    connection = socket.create_connection(address, timeout=ANSWER_LIMIT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def converse(address, data: bytes, expected: Framed) -> Answers:
    """Send `data` and read until the other side closes."""
    with connect(address) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before its end
            connection.sendall(data)
        got = finish(connection, expected)
    settle()
    return got


def settle() -> None:
    """Let the agent read what was sent to it before the client saw the end."""
    for _ in range(3):
        gevent.sleep(0)


def finish(connection: socket.socket, expected: Framed) -> Answers:
    """Read the answers of a connection on which everything was sent, at most ANSWER_LIMIT_S.

    Our side ends once the answers are here, unless the stream is wrong: then it is the data plane that has to end it.
    """
    got = Answers()
    methods = [message.method for message in expected.messages]
    ended = False
    end = time.monotonic() + ANSWER_LIMIT_S
    while True:
        got.statuses, got.rest = split(got.raw, methods)
        if not ended and expected.end is not End.ERROR and len(got.statuses) >= len(methods):
            ended = True
            with contextlib.suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_WR)
        connection.settimeout(max(0.001, end - time.monotonic()))
        try:
            data = connection.recv(65536)
        except ConnectionResetError:
            data = b""
        except TimeoutError:
            return got
        if not data:
            got.closed = True
            return got
        got.raw += data


def split(raw: bytes, methods: list[bytes]) -> tuple[list[int], bytes]:
    """Return the statuses of the final answers that are here whole, and the bytes behind them."""
    statuses: list[int] = []
    while True:
        head, mark, rest = raw.partition(b"\r\n\r\n")
        if not mark:
            return statuses, raw
        status = int(head.split(b" ", 2)[1])
        if status < 200:
            raw = rest
            continue
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        if len(methods) > len(statuses) and methods[len(statuses)] == b"HEAD":
            length = 0
        if len(rest) < length:
            return statuses, raw
        statuses.append(status)
        raw = rest[length:]


def judge(got: Answers, expected: Framed, agent: StrictAgent, *, whole: bool) -> str:
    """Return what is wrong with how the data plane dealt with one stream of bytes; "" where nothing is.

    `whole`: it was sent in one piece, so that nothing of a broken body is on its way to the agent before it breaks.
    """
    framed, seen = expected.messages, agent.messages
    answered = list(itertools.takewhile(lambda status: status not in FRAMING_STATUSES, got.statuses))
    refused = got.statuses[len(answered) :]
    passed = [message for message in framed[: len(answered)] if agent.is_for(message)]
    closing = any(message.closes for message in framed[: len(answered)])
    if agent.violations:
        return f"the agent was sent what is no HTTP: {agent.violations}"
    if [message.meaning for message in seen] != [agent.sees(message) for message in passed]:
        return f"the agent saw {seen}, the oracle {framed}; answers: {got.statuses}"
    if not got.closed:
        return f"the connection is open after {ANSWER_LIMIT_S:g} s; answers: {got.statuses}"
    if answered.count(200) != len(seen) or len(refused) > 1 or got.rest:
        return f"answers: {got.statuses} {got.rest[:200]!r}; the agent saw {len(seen)}"
    if agent.unfinished and (not expected.head_was_whole or (whole and expected.end is End.ERROR)):
        return f"a part of a refused request reached the agent: {agent.unfinished}"
    early = len(answered) == len(framed) + 1 and expected.head_was_whole  # answered by the gateway before its body came
    if not refused and not closing and not early and (expected.end is End.ERROR or len(answered) != len(framed)):
        return f"answers: {got.statuses}; the oracle: {len(framed)} and {expected.end.value}"
    return ""


def run_case(address, agent: StrictAgent, data: bytes) -> tuple[Answers, Framed, str]:
    """Send one case whole; return the answers, the oracle's view, and what is wrong."""
    agent.forget()
    expected = frame(data)
    got = converse(address, data, expected)
    return got, expected, judge(got, expected, agent, whole=True)


def run_splits(address, agent: StrictAgent, data: bytes, places: list[int]) -> str:
    """Send one case once for each place, in two pieces, all at the same time; return what is wrong."""
    agent.forget()
    expected = frame(data)
    connections = [connect(address) for _ in places]
    try:
        for connection, place in zip(connections, places, strict=True):
            connection.sendall(data[:place])
        gevent.sleep(0.002)  # long enough to be read, whatever comes of it; the outcome does not depend on it
        results = []
        for connection, place in zip(connections, places, strict=True):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before its end
                connection.sendall(data[place:])
        for connection, place in zip(connections, places, strict=True):
            results.append((place, finish(connection, expected)))
    finally:
        for connection in connections:
            connection.close()
    settle()
    return judge_splits(results, expected, agent)


def judge_splits(results: list[tuple[int, Answers]], expected: Framed, agent: StrictAgent) -> str:
    """As `judge`, for many connections with the same bytes: the agent saw each one's requests."""
    place, first = results[0]
    for place, got in results:
        if (got.statuses, got.closed) != (first.statuses, True):
            return f"split at {place}: {got}, at {results[0][0]}: {first}"
    passed = first.statuses.count(200)
    told = Counter(message.meaning for message in agent.messages)
    framed = Counter(agent.sees(message) for message in expected.messages[:passed])
    if told != Counter({meaning: count * len(results) for meaning, count in framed.items()}):
        return f"the agent saw {told}, the oracle {framed} in each of {len(results)}"
    if agent.violations:
        return f"the agent was sent what is no HTTP: {agent.violations}"
    for part in agent.unfinished:  # only a body that breaks off or turns out wrong may have begun to stream
        if b"\r\nTransfer-Encoding: chunked\r\n" not in part.data and expected.end is not End.PARTIAL:
            return f"a part of a refused request reached the agent: {part}"
    return ""
