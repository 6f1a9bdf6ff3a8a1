"""Hostile agents: what is no clean answer never looks like one, and its connection never serves the next client.

After each bad answer a second client asks the same agent: it has to get its own answer, over a connection of its own.
"""

import contextlib

import gevent
import h11
import pytest
from gevent.pool import Pool
from gevent.server import StreamServer

from tests.fakes.agents import receive_all
from tests.fakes.planes import Answered

OK = b"HTTP/1.1 200 OK\r\n"
SIZED = OK + b"Content-Length: 4\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SECOND = OK + b"Content-Length: 8\r\n\r\nsmuggled"
GOOD = OK + b"Content-Length: 4\r\n\r\ngood"

NO_ANSWER: dict[str, bytes] = {
    "two lengths": OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nevil!",
    "two equal lengths": OK + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nevil",
    "a list of lengths": OK + b"Content-Length: 4, 4\r\n\r\nevil",
    **{
        f"length {value!r}": OK + b"Content-Length: %b\r\n\r\nevil" % value
        for value in (b"-4", b"+4", b"0x4", b"4 4", b"", b"4;", b"4.0", b"18446744073709551616", b"4\x0b", b"a")
    },
    "length, then coding": OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "coding, then length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    **{
        f"coding {value!r}": OK + b"Transfer-Encoding: %b\r\n\r\n4\r\nevil\r\n0\r\n\r\n" % value
        for value in (
            *(b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"xchunked", b"identity", b"", b"chunked;q=1"),
            *(b"chunked\r\nTransfer-Encoding: chunked", b"\x0bchunked", b'"chunked"', b"\r\n chunked"),
        )
    },
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
    "obs-fold": OK + b"X: a\r\n b\r\nContent-Length: 4\r\n\r\nevil",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 4\n\nevil",
    "bare LF behind a field": OK + b"X: a\nContent-Length: 4\r\n\r\nevil",
    "bare CR in a value": OK + b"X: a\rSet-Cookie: evil\r\nContent-Length: 4\r\n\r\nevil",
    "CR in the phrase": b"HTTP/1.1 200 O\rK\r\nContent-Length: 4\r\n\r\nevil",
    **{f"byte {byte:#04x} in a value": OK + b"X: a%cb\r\nContent-Length: 4\r\n\r\nevil" % byte for byte in b"\0\x01\x0b\x1b\x7f"},
    **{f"byte {byte:#04x} in a name": OK + b"X%cY: a\r\nContent-Length: 4\r\n\r\nevil" % byte for byte in b'\0\t "(),/;<=>?@[\\]{}\x7f\x80\xff'},
    **{f"byte {byte:#04x} in the phrase": b"HTTP/1.1 200 O%cK\r\nContent-Length: 4\r\n\r\nevil" % byte for byte in b"\0\x01\x0b\x1b\x7f"},
    "space before a colon": OK + b"Content-Length : 4\r\n\r\nevil",
    "no name": OK + b": a\r\nContent-Length: 4\r\n\r\nevil",
    "no colon": OK + b"X\r\nContent-Length: 4\r\n\r\nevil",
    **{
        f"status line {line.decode('latin-1')!r}": line + b"\r\nContent-Length: 4\r\n\r\nevil"
        for line in (
            *(b"HTTP/1.1 000 OK", b"HTTP/1.1 099 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 -200 OK", b"HTTP/1.1 OK"),
            *(b"HTTP/1.1  200 OK", b" HTTP/1.1 200 OK", b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK", b"HTTP/1.10 200 OK"),
            *(b"http/1.1 200 OK", b"ICY 200 OK", b"GET / HTTP/1.1", b"200 OK"),
        )
    },
    "HTTP/0.9": b"<html>evil</html>",
    "HTTP/2": b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a banner": b"SSH-2.0-OpenSSH_9.2\r\n",
    "zeros": b"\0" * 1000,
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n" + SECOND,
    "101 without Upgrade": b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + SECOND,
    "interim with a body": b"HTTP/1.1 100 Continue\r\nContent-Length: 4\r\n\r\nevil" + GOOD,
    "11 interim answers": b"HTTP/1.1 102 Processing\r\n\r\n" * 11 + GOOD,
    "interim answers without end": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 20_000,
    "101 fields": OK + b"X: y\r\n" * 101 + b"Content-Length: 4\r\n\r\nevil",
    "fields without end": OK + b"X: y\r\n" * 50_000,
    "a value without end": OK + b"X: " + b"y" * 300_000,
    "a phrase without end": b"HTTP/1.1 200 " + b"y" * 300_000,
    "an interim value without end": b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 300_000,
}  # fmt: skip

BROKEN: dict[str, bytes] = {
    **{
        f"chunk size {value!r}": CHUNKED + b"4\r\npart\r\n" + value + b"\r\nevil\r\n0\r\n\r\n"
        for value in (
            b"+4",
            b"-4",
            b"0x4",
            b" 4",
            b"4 ",
            b"4_",
            b"g",
            b"",
            b"10000000000000004",
            b"4\0",
            b"4;a\rb",
            b"4\n",
        )
    },
    "chunk without its CRLF": CHUNKED + b"4\r\npartevil\r\n0\r\n\r\n",
    "chunk with LF": CHUNKED + b"4\r\npart\n0\r\n\r\n",
    "a folded trailer": CHUNKED + b"4\r\npart\r\n0\r\nX: y\r\n z\r\n\r\n",
    "a trailer Content-Length": CHUNKED + b"4\r\npart\r\n0\r\nContent-Length: 4\r\n\r\n",
    "a trailer without end": CHUNKED + b"4\r\npart\r\n0\r\nX: " + b"y" * 300_000,
    "an extension without end": CHUNKED + b"4\r\npart\r\n4;" + b"y" * 300_000,
    "extensions without end": CHUNKED + b"1;%b\r\nx\r\n" % (b"y" * 2000) * 200,
}
BREAKS_OFF: dict[str, bytes] = {
    "in the head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "before the body": SIZED,
    "in the body": SIZED + b"evi",
    "in a chunk": CHUNKED + b"5\r\nevil",
    "before the last chunk": CHUNKED + b"4\r\nevil\r\n",
    "in the last chunk": CHUNKED + b"4\r\nevil\r\n0\r\n",
    "in the trailers": CHUNKED + b"4\r\nevil\r\n0\r\nX: y\r\n",
}

OVERRUN: dict[str, tuple[str, bytes, bytes]] = {
    "a second answer": ("GET", SIZED + b"mine" + SECOND, b"mine"),
    "one byte more": ("GET", SIZED + b"mineH", b"mine"),
    "more body": ("GET", SIZED + b"mine" + b"evil" * 1000, b"mine"),
    "more behind chunks": ("GET", CHUNKED + b"4\r\nmine\r\n0\r\n\r\n" + SECOND, b"mine"),
    "more behind a long body": ("GET", OK + b"Content-Length: 100000\r\n\r\n" + b"m" * 100_000 + SECOND, b"m" * 100_000),
    "a body of HEAD": ("HEAD", SIZED + b"evil", b""),
    "a chunked body of HEAD": ("HEAD", CHUNKED + b"4\r\nevil\r\n0\r\n\r\n", b""),
    "an answer behind HEAD": ("HEAD", SIZED + SECOND, b""),
    "a body of 204": ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", b""),
    "a chunked body of 204": ("GET", b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", b""),
    "an answer behind 204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n" + SECOND, b""),
    "a body of 304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", b""),
    "an answer behind 304": ("GET", b"HTTP/1.1 304 Not Modified\r\n\r\n" + SECOND, b""),
    "an answer behind no body": ("GET", OK + b"Content-Length: 0\r\n\r\n" + SECOND, b""),
}  # fmt: skip


class HostileAgent:
    """Answers `/bad` with what it is told, and closes where `closes`; everything else in a good way.

    `asked`: (number of the connection, path) of each request; `ended`: connections that the data plane closed. Where `says`
    is set, it is sent to each connection before any request.
    """

    def __init__(self, pieces: list[bytes], *, closes: bool = False, says: bytes = b""):
        self.pieces, self.closes, self.says = pieces, closes, says
        self.asked: list[tuple[int, bytes]] = []
        self.ended: set[int] = set()
        self.connections = 0
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.address = self._server.address

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def paths(self, number: int) -> list[bytes]:
        return [path for each, path in self.asked if each == number]

    def _serve(self, connection, _address):
        self.connections += 1
        number, data = self.connections, b""
        with contextlib.suppress(OSError):
            connection.sendall(self.says)
            while True:
                while b"\r\n\r\n" not in data:
                    piece = connection.recv(65536)
                    if not piece:
                        raise ConnectionResetError
                    data += piece
                head, _, data = data.partition(b"\r\n\r\n")
                path = head.split(b" ")[1]
                self.asked.append((number, path))
                if not path.startswith(b"/bad"):
                    connection.sendall(OK + b"Content-Length: %d\r\n\r\n%b" % (len(path), path))
                    continue
                self._misbehave(connection, path)
                if self.closes:
                    connection.close()
                    return
        self.ended.add(number)
        connection.close()

    def _misbehave(self, connection, path: bytes) -> None:
        """`/bad/N`: in two pieces, split at N."""
        pieces = self.pieces
        if place := int(path.removeprefix(b"/bad").lstrip(b"/") or 0):
            data = b"".join(pieces)
            pieces = [data[:place], data[place:]]
        for number, piece in enumerate(pieces):
            if number:
                gevent.sleep(0.001)
            connection.sendall(piece)


def read_answer(raw: bytes, method: str) -> tuple[int, bytes, bool]:
    """Return status and body of the one final answer in `raw`, and whether it ended cleanly with the connection."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=method, target="/", headers=[("Host", "a"), ("Connection", "close")]))
    reader.receive_data(raw)
    reader.receive_data(b"")
    status, body = 0, b""
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                return status, body, not reader.trailing_data[0]
            elif not isinstance(event, h11.InformationalResponse):
                return status, body, False
    except h11.RemoteProtocolError:
        return status, body, False


def ask(plane, path: str, method: str = "GET") -> bytes:
    with plane.connect() as connection:
        connection.sendall(f"{method} /agent/web{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        return receive_all(connection)


def the_next_client_is_safe(plane, agent: HostileAgent, eventually):
    """It gets its own answer, over another connection; the one of the bad answer is closed."""
    number = next(each for each, path in agent.asked if path == b"/bad")
    for path in ("/next", "/after"):
        assert read_answer(ask(plane, path), "GET") == (200, path.encode(), True)
    assert agent.paths(number)[-1] == b"/bad"
    if not agent.closes:
        eventually(lambda: number in agent.ended, what="the end of the bad connection")


def whole(data: bytes, body: bytes) -> int:
    """Return where the answer with this body ends."""
    head = data.index(b"\r\n\r\n") + 4
    return head + (len(b"4\r\n\r\n0\r\n\r\n") if body and data.startswith(CHUNKED) else 0) + len(body)


@pytest.fixture(params=["new connection", "kept connection"])
def facing(request, make_plane):
    """`facing(pieces)`: a plane before an agent that answers /bad so, on a connection's first request or a later one."""

    def face(pieces: list[bytes], **options):
        agent = HostileAgent(pieces, **options)
        plane = make_plane(agent=agent)
        if request.param == "kept connection":
            ask(plane, "/before")
        return plane, agent

    return face


@pytest.mark.parametrize("name", NO_ANSWER)
def test_what_is_no_answer_is_502(facing, eventually, name):
    plane, agent = facing([NO_ANSWER[name]])

    raw = ask(plane, "/bad")
    status, body, clean = read_answer(raw, "GET")

    assert (status, clean) == (502, True), raw[:500]
    assert b'"BAD_ANSWER"' in body
    assert b"Proxy-Status: agentainer; error=http_protocol_error" in raw
    assert b"evil" not in raw
    the_next_client_is_safe(plane, agent, eventually)


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_is_none_breaks_the_clients_connection(facing, eventually, name):
    plane, agent = facing([BROKEN[name]])

    status, _, clean = read_answer(ask(plane, "/bad"), "GET")

    assert status in (200, 502)
    assert not clean or status == 502
    the_next_client_is_safe(plane, agent, eventually)


@pytest.mark.parametrize("name", BREAKS_OFF)
def test_an_answer_that_breaks_off_never_ends_cleanly(facing, eventually, name):
    plane, agent = facing([BREAKS_OFF[name]], closes=True)

    raw = ask(plane, "/bad", "PATCH")
    status, body, clean = read_answer(raw, "PATCH")

    assert (status, clean) == ((502, True) if name == "in the head" else (200, False)), raw[:500]
    assert name != "in the head" or b"OUTCOME_UNKNOWN" in body
    the_next_client_is_safe(plane, agent, eventually)


@pytest.mark.parametrize("name", OVERRUN)
@pytest.mark.parametrize("at_once", [True, False])
def test_bytes_behind_an_answer_reach_nobody(facing, eventually, name, at_once):
    method, data, body = OVERRUN[name]
    end = whole(data, body)
    plane, agent = facing([data] if at_once else [data[:end], data[end:]])

    raw = ask(plane, "/bad", method)

    assert read_answer(raw, method)[1:] == (body, True)
    assert b"evil" not in raw
    assert b"smuggled" not in raw
    if not at_once:  # they come while the connection is idle
        number = agent.asked[-1][0]
        eventually(lambda: number in agent.ended, what="the end of a connection that speaks unasked")
    the_next_client_is_safe(plane, agent, eventually)


@pytest.mark.parametrize("says", [GOOD, SECOND, b"SSH-2.0-OpenSSH_9.2\r\n", b"\0"])
def test_an_agent_that_speaks_first_never_has_its_words_taken_for_the_next_answer(make_plane, says):
    """What is there when the connection opens can't be told from an answer; but then there is one too many on it."""
    agent = HostileAgent([], says=says)
    plane = make_plane(agent=agent)

    answers = [read_answer(ask(plane, f"/{number}"), "GET") for number in range(5)]

    for number, (status, body, _) in enumerate(answers):
        assert body == b"/%d" % number or status == 502 or (body in (b"good", b"smuggled") and says in (GOOD, SECOND))
    assert agent.connections == len(answers)


SPLITS = [
    *((f"no answer: {name}", "GET", data, None) for name, data in NO_ANSWER.items()),
    *((f"broken: {name}", "GET", data, None) for name, data in BROKEN.items()),
    *((f"overrun: {name}", *case) for name, case in OVERRUN.items()),
]


@pytest.mark.parametrize(("method", "data", "body"), [case[1:] for case in SPLITS], ids=[case[0] for case in SPLITS])
def test_a_hostile_answer_is_as_harmless_split_at_every_byte(make_plane, method, data, body):
    """All at once, so that connections change hands: never a clean answer that the agent did not give to this request."""
    agent = HostileAgent([data])
    plane = make_plane(agent=agent)
    clients = Pool(50)
    places = range(1, len(data)) if len(data) < 1000 else [*range(1, 100), *range(len(data) - 100, len(data), 7)]
    places = [place for place in places if body is None or place != whole(data, body)]  # which no proxy can tell apart

    answers = clients.map(lambda place: read_answer(ask(plane, f"/bad/{place}", method), method), places)

    for place, (status, got, clean) in zip(places, answers, strict=True):
        if body is None:
            assert status == 502 or not clean, place
        else:
            assert (got, clean) == (body, True), place
    assert read_answer(ask(plane, "/next"), "GET") == (200, b"/next", True)


@pytest.mark.parametrize("who_is_first", ["client", "agent"])
def test_what_came_unasked_is_no_answer_to_a_request_of_the_same_moment(make_plane, eventually, who_is_first):
    """The agent's late bytes and the next request reach the data plane in one turn of its loop."""
    plane = make_plane()
    agent = plane.agent
    with plane.connect() as client:
        client.sendall(b"GET /agent/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(65536).startswith(OK)
        request = (client, b"GET /agent/web/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        unasked = (agent.open[0], SECOND)

        for connection, data in (unasked, request) if who_is_first == "agent" else (request, unasked):
            connection._sock.send(data)  # gevent's would let the loop turn in between
        raw = receive_all(client)

    assert b"smuggled" not in raw
    assert read_answer(raw, "GET") == (200, b"ok", True)


def test_fields_that_an_agent_names_in_connection_stay_there(make_plane):
    agent = HostileAgent(
        [OK + b"Connection: X-Inner, keep-alive\r\nX-Inner: 1\r\nX-Outer: 2\r\nContent-Length: 0\r\n\r\n"]
    )

    got = Answered(ask(make_plane(agent=agent), "/bad"))

    assert "x-inner" not in got.fields
    assert got.fields["x-outer"] == "2"


def test_agents_do_not_speak_in_our_name_or_for_their_neighbours(make_plane):
    names = [
        *("X-Agentainer-Request-ID", "x_agentainer_request_id", "X.Agentainer.Journal", "X-AGENTAINER-REPLAY", "X~Agentainer~Journal"),
        *("Clear-Site-Data", "Strict-Transport-Security", "Alt-Svc", "Service-Worker-Allowed", "Idempotent-Replayed"),
        *("Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Upgrade", "TE", "Trailer", "Clear_Site_Data"),
    ]  # fmt: skip
    fields = "".join(f"{name}: evil\r\n" for name in names).encode()
    agent = HostileAgent([OK + fields + b"Content-Length: 4\r\n\r\ngood"])

    raw = ask(make_plane(agent=agent), "/bad")

    assert b"evil" not in raw
    assert read_answer(raw, "GET") == (200, b"good", True)
    assert raw.lower().count(b"x-agentainer-request-id:") == 1


def test_a_thousand_bad_answers_leave_nothing_behind(make_plane, eventually):
    agent = HostileAgent([])
    plane = make_plane(agent=agent)
    cases = [data for data in NO_ANSWER.values() if len(data) < 2000]
    for number in range(1000):
        agent.pieces = [cases[number % len(cases)]]
        ask(plane, "/bad")

    eventually(lambda: plane.data_plane.connections == 0)
    assert plane.route.in_flight == 0
    assert read_answer(ask(plane, "/next"), "GET") == (200, b"/next", True)
