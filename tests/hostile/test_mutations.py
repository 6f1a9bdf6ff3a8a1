"""Mutations, against h11: an agent never sees a request, nor a client an answer, that h11 does not frame.

`make test` tries SOAK_MUTATIONS=20 of each, `make soak` 1000. A failure prints the bytes; hypothesis makes them few.
"""

import os

import h11
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.fakes.planes import Plane
from tests.hostile.corpus import aim, load
from tests.hostile.test_answers import HostileAgent, ask, read_answer
from tests.hostile.wire import StrictAgent, run_case

EXAMPLES = int(os.environ.get("SOAK_MUTATIONS", "20"))
CASES = {
    f"{kind}/{name}": aim(data, only_first=name == "020")
    for kind in ("valid", "invalid")
    for name, data in load(kind).items()
}

BYTES = [bytes([value]) for value in b'\0\t\n\x0b\x0c\r "#%(),-./0159:;=?@[\\]_{}~\x7f\x80\xa0\xc3\xff']
TOKENS = [
    *(b"\r\n", b"\r\n\r\n", b"\n\n", b"\n", b"\r", b"\r\n ", b"\r\n\t", b"\r\r\n", b"  ", b", ", b"0\r\n\r\n", b"5\r\nhello\r\n"),
    *(b"chunked", b"identity", b"gzip", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"0x", b"+", b"-", b"ffffffffffffffff", b"1e1"),
    *(b"Content-Length: 0\r\n", b"Content-Length: 5\r\n", b"content-length:3\r\n", b"Content-Length: 3, 3\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"transfer-encoding:\tchunked\r\n", b"Transfer-Encoding: identity\r\n"),
    *(b"Transfer-Encoding : chunked\r\n", b"Transfer_Encoding: chunked\r\n", b"Transfer-Encoding: chunked, chunked\r\n"),
    *(b"Host: a\r\n", b"Host: b\r\n", b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"Expect: 100-continue\r\n"),
    *(b"Connection: content-length\r\n", b"Connection: transfer-encoding, host\r\n", b"Trailer: x\r\n", b"TE: chunked\r\n"),
    *(b"GET /agent/web/smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"POST /agent/web/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab"),
    *(b"http://a", b"/agent/web/", b"//", b"/../", b"%00", b"#", b"*"),
]  # fmt: skip


def _change(data, at, end, token):
    return data[:at] + token + data[at + 1 :]


def _insert(data, at, end, token):
    return data[:at] + token + data[at:]


def _cut_out(data, at, end, token):
    return data[:at] + data[end:]


def _break_off(data, at, end, token):
    return data[:at]


def _repeat(data, at, end, token):
    return data[:end] + data[at:end] + data[end:]


def _swap_case(data, at, end, token):
    return data[:at] + data[at:end].swapcase() + data[end:]


def _copy_line(data, at, end, token):
    start, stop = _line(data, at)
    return data[:stop] + data[start:stop] + data[stop:]


def _drop_line(data, at, end, token):
    start, stop = _line(data, at)
    return data[:start] + data[stop:]


def _move_line(data, at, end, token):
    start, stop = _line(data, at)
    line, rest = data[start:stop], data[:start] + data[stop:]
    place = rest.rfind(b"\n", 0, min(end, len(rest))) + 1
    return rest[:place] + line + rest[place:]


def _insert_line(data, at, end, token):
    start, _ = _line(data, at)
    return data[:start] + token + data[start:]


def _append(data, at, end, token):
    return data + token


def _line(data, at):
    return data.rfind(b"\n", 0, at) + 1, (data.find(b"\n", at) + 1) or len(data)


MUTATORS = [
    _change, _insert, _cut_out, _break_off, _repeat, _swap_case, _copy_line, _drop_line, _move_line, _insert_line, _append,
]  # fmt: skip
MUTATION = st.tuples(
    st.sampled_from(MUTATORS),
    st.floats(0, 1, exclude_max=True, width=32),
    st.integers(1, 24),
    st.sampled_from(BYTES + TOKENS),
)
MUTATIONS = st.lists(MUTATION, min_size=1, max_size=4)


def mutated(data: bytes, mutations) -> bytes:
    for mutator, share, length, token in mutations:
        at = int(share * len(data))
        data = mutator(data, at, min(len(data), at + length), token)
    return data


@pytest.fixture(scope="module")
def strict(tmp_path_factory):
    plane = Plane(str(tmp_path_factory.mktemp("gateway") / "gateway.sock"), agent=StrictAgent())
    yield plane
    plane.close()


THOROUGHLY = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 20,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("name", CASES)
def test_no_mutation_reaches_an_agent_that_the_oracle_does_not_frame(strict, name):
    @THOROUGHLY
    @given(MUTATIONS)
    def holds(mutations):
        data = mutated(CASES[name], mutations)
        note(repr(data))
        got, expected, wrong = run_case(strict.address, strict.agent, data)
        assert not wrong, (wrong, data, got, expected)
        assert not strict.journal.pending

    holds()


ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello",
    "length, kept": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\nhello",
    "no length": b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello",
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    "trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "interim": b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "204": b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n",
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "two": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsecond",
    "cookies": b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d; Path=/\r\nContent-Length: 5\r\n\r\nhello",
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    plane = Plane(str(tmp_path_factory.mktemp("gateway") / "gateway.sock"), agent=HostileAgent([]))
    yield plane
    plane.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_no_mutation_of_an_answer_is_taken_for_what_the_oracle_does_not_read(odd, name):
    """The agent closes where the oracle waits for more; where it does not, the next request may get the connection."""

    @THOROUGHLY
    @given(MUTATIONS)
    def holds(mutations):
        data = mutated(ANSWERS[name], mutations)
        note(repr(data))
        status, body, _ = read_answer(data.lstrip(b"\r\n"), "PATCH")
        odd.agent.pieces, odd.agent.closes = [data], not is_whole(data)

        got = read_answer(ask(odd, "/bad", "PATCH"), "PATCH")
        after = read_answer(ask(odd, "/next"), "GET")

        assert not got[2] or got[:2] == (status, body) or got[0] == 502, (data, got, status, body)
        assert after == (200, b"/next", True), (data, after)

    holds()


def is_whole(data: bytes) -> bool:
    """The answer in `data` ends without its connection."""
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method="PATCH", target="/", headers=[("Host", "a")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(data.lstrip(b"\r\n"))
    try:
        while (event := reader.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.EndOfMessage):
                return True
    except h11.RemoteProtocolError:
        pass
    return False
