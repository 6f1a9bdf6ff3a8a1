"""Mutations of every case of the corpus, against h11: an agent never sees a request that h11 does not frame.

`make test` tries SOAK_MUTATIONS=20 of each, `make soak` 1000. A failure prints the bytes; hypothesis makes them few.
"""

import os

import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from tests.hostile.corpus import aim, load
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
    from tests.fakes.planes import Plane

    plane = Plane(str(tmp_path_factory.mktemp("gateway") / "gateway.sock"), agent=StrictAgent())
    yield plane
    plane.close()


@pytest.mark.parametrize("name", CASES)
def test_no_mutation_reaches_an_agent_that_the_oracle_does_not_frame(strict, name):
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES <= 20,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(MUTATIONS)
    def holds(mutations):
        data = mutated(CASES[name], mutations)
        note(repr(data))
        got, expected, wrong = run_case(strict.address, strict.agent, data)
        assert not wrong, (wrong, data, got, expected)
        assert not strict.journal.pending

    holds()
