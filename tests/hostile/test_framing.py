"""Framing, targets and hosts beyond the corpus: what is ambiguous is refused, what is odd but clear is passed on as it is.

Each case is judged by h11 on both sides too (wire.py), and sent behind a good request, which is answered all the same.
"""

import re

import pytest

from tests.hostile.oracle import End, Framed
from tests.hostile.wire import StrictAgent, connect, finish, run_case

HOST = b"Host: a\r\n"
NEXT = b"GET /agent/web/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"


def get(line: bytes = b"GET /agent/web/x HTTP/1.1", fields: bytes = HOST) -> bytes:
    return line + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"hello", host: bytes = HOST) -> bytes:
    return b"POST /agent/web/x HTTP/1.1\r\n" + host + fields + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


LAST = b"0\r\n\r\n"
CHUNK = b"5\r\nhello\r\n"

LENGTHS = [
    *(b"+5", b"-5", b"0x5", b"5 5", b"5,5", b"5, 5", b"5;", b"5.0", b"5e0", b"0_5", b"", b" ", b"a", b"\xb2", b"\xd9\xa5"),
    *(b"5\x0b", b"5\x0c", b"5\0", b"5\x85", b"18446744073709551616", b"9" * 400, b"5\r\n ", b"0,5", b"5\n"),
]  # fmt: skip
CODINGS = [
    *(b"chunked, chunked", b"chunked,", b",chunked", b"chunked;", b"chunked;q=1", b"xchunked", b"chunkedx", b"chunk"),
    *(b"identity", b"identity, chunked", b"chunked, identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"cow chunked"),
    *(b"\x0bchunked", b"chunked\x0b", b"\x0cchunked", b"\0chunked", b'"chunked"', b"'chunked'", b"chun ked", b"", b" ", b","),
    *(b"chunked\x80", b"\xa0chunked", b"ch\x96nked", b"chunked\rX: y", b"\r\n chunked", b"chunked\r\n ", b"chunked\n", b"%63hunked"),
    *(b"=?iso-8859-1?B?Y2h1bmtlZA==?=", b"chunked\r\nTransfer-Encoding: chunked", b"chunked\r\nTransfer-Encoding: identity"),
]  # fmt: skip
SIZES = [
    *(b"+5", b"-5", b"0x5", b" 5", b"5 ", b"5\t", b"5\x0b", b"\x0b5", b"5_0", b"0_5", b"g", b"", b"5,", b"5.", b"5h", b"x5"),
    *(b"10000000000000005", b"fffffffffffffffff", b"5\0", b"5\x80", b"\xb25", b'"5"', b"5 5", b"5;a\n", b"5;a\rb", b"5;\0", b"5;\x7f"),
    *(b"5\n", b"5\r", b"\n5", b"\r5", b"5\r\r", b"5; a", b"5 ;a", b"5;a =b", b"5;;", b'5;a="b', b"5;a=b\x01"),
]  # fmt: skip

REFUSED: dict[str, bytes] = {
    "two lengths": post(b"Content-Length: 5\r\nContent-Length: 6\r\n"),
    "two equal lengths": post(b"Content-Length: 5\r\nContent-Length: 5\r\n"),
    "two lengths in two cases": post(b"Content-Length: 5\r\nCONTENT-LENGTH: 5\r\n"),
    "length, then coding": post(b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", CHUNK + LAST),
    "coding, then length": post(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", CHUNK + LAST),
    "coding, then length 0": post(b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", CHUNK + LAST),
    "coding in HTTP/1.0": b"POST /agent/web/x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNK + LAST,
    **{f"length {value!r}": post(b"Content-Length: %b\r\n" % value) for value in LENGTHS},
    **{f"coding {value!r}": post(b"Transfer-Encoding: %b\r\n" % value, CHUNK + LAST) for value in CODINGS},
    **{f"chunk size {value!r}": chunked(value + b"\r\nhello\r\n" + LAST) for value in SIZES},
    "chunk without its CRLF": chunked(b"5\r\nhello0\r\n\r\n"),
    "chunk longer than its size": chunked(b"5\r\nhello!\r\n" + LAST),
    "chunk with LF": chunked(b"5\r\nhello\n" + LAST),
    "last chunk with LF": chunked(CHUNK + b"0\r\n\n"),
    "trailer without a name": chunked(CHUNK + b"0\r\n: x\r\n\r\n"),
    "trailer without a colon": chunked(CHUNK + b"0\r\nx\r\n\r\n"),
    "trailer with a space before the colon": chunked(CHUNK + b"0\r\nX : y\r\n\r\n"),
    "trailer folded": chunked(CHUNK + b"0\r\nX: y\r\n z\r\n\r\n"),
    "trailer with NUL": chunked(CHUNK + b"0\r\nX: y\0\r\n\r\n"),
    "trailer Content-Length": chunked(CHUNK + b"0\r\nContent-Length: 5\r\n\r\n"),
    "trailer Transfer-Encoding": chunked(CHUNK + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "obs-fold": get(fields=HOST + b"X: y\r\n z\r\n"),
    "obs-fold with a tab": get(fields=HOST + b"X: y\r\n\tz\r\n"),
    "obs-fold of the first field": get(fields=b" X: y\r\n" + HOST),
    "bare LF": b"GET /agent/web/x HTTP/1.1\nHost: a\n\n",
    "bare LF behind a field": b"GET /agent/web/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare LF at the end": b"GET /agent/web/x HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR in a value": get(fields=HOST + b"X: a\rY: b\r\n"),
    "bare CR at the end": b"GET /agent/web/x HTTP/1.1\r\nHost: a\r\n\r\r\n",
    "CR CR LF": b"GET /agent/web/x HTTP/1.1\r\r\nHost: a\r\n\r\n",
    "bare CR in the request line": b"GET /agent/web/x\rHTTP/1.1\r\nHost: a\r\n\r\n",
    **{f"byte {byte:#04x} in a name": get(fields=HOST + b"X%c: y\r\n" % byte) for byte in b"\0\t \"(),/;<=>?@[\\]{}\x7f\x80\xff"},
    **{f"byte {byte:#04x} in a value": get(fields=HOST + b"X: a%cb\r\n" % byte) for byte in (*range(9), *range(10, 32), 127)},
    **{f"byte {byte:#04x} in a method": get(b"GE%cT /agent/web/x HTTP/1.1" % byte) for byte in b"\0\t\x0b(),/:;<=>?@[\\]{}\x7f\x80\xff"},
    **{f"byte {byte:#04x} in a target": get(b"GET /agent/web/%cx HTTP/1.1" % byte) for byte in (*range(33), *range(127, 256))},
    **{f"byte {byte:#04x} in Host": get(fields=b"Host: a%cb\r\n" % byte) for byte in b"\0\t \"#/<>?@\\^`{|}\x7f\x80\xff"},
    "no name": get(fields=HOST + b": y\r\n"),
    "no colon": get(fields=HOST + b"X\r\n"),
    "space before the colon": get(fields=HOST + b"X : y\r\n"),
    "no Host": get(fields=b"X: y\r\n"),
    "two Hosts": get(fields=HOST + HOST),
    "two Hosts in two cases": get(fields=HOST + b"HOST: b\r\n"),
    "Hosts in a list": get(fields=b"Host: a, b\r\n"),
    "Host with userinfo": get(fields=b"Host: user@a\r\n"),
    "Host with a path": get(fields=b"Host: a/agent/other\r\n"),
    "Host with a scheme": get(fields=b"Host: http://a\r\n"),
    "Host too long": get(fields=b"Host: %b\r\n" % (b"a" * 600)),
    "another host in the target": get(b"GET http://b/agent/web/x HTTP/1.1"),
    "another port in the target": get(b"GET http://a:81/agent/web/x HTTP/1.1"),
    "userinfo in the target": get(b"GET http://u@a/agent/web/x HTTP/1.1"),
    "https in the target": get(b"GET https://a/agent/web/x HTTP/1.1"),
    "no scheme in the target": get(b"GET //a@b/agent/web/x HTTP/1.1").replace(b" //a@b", b" a/"),
    "authority in the target": get(b"GET a:80 HTTP/1.1"),
    "asterisk": get(b"GET * HTTP/1.1"),
    "asterisk with a path": get(b"OPTIONS */agent/web/x HTTP/1.1"),
    "relative target": get(b"GET agent/web/x HTTP/1.1"),
    "fragment": get(b"GET /agent/web/x#y HTTP/1.1"),
    "no target": get(b"GET  HTTP/1.1"),
    "two targets": get(b"GET /agent/web/x /agent/web/y HTTP/1.1"),
    "two spaces": get(b"GET  /agent/web/x HTTP/1.1"),
    "tab": get(b"GET\t/agent/web/x HTTP/1.1"),
    "space before the method": get(b" GET /agent/web/x HTTP/1.1"),
    "space behind the version": get(b"GET /agent/web/x HTTP/1.1 "),
    "lower-case method": get(b"get /agent/web/x HTTP/1.1"),
    "unknown method": get(b"SMUGGLE /agent/web/x HTTP/1.1"),
    "no version, and a whole request behind it": b"GET /agent/web/x\r\n\r\n" + get(),
    "no version": b"GET /agent/web/x\r\n" + HOST + b"\r\n",
    **{
        f"version {version.decode()}": get(b"GET /agent/web/x " + version)
        for version in (b"HTTP/0.9", b"HTTP/1.2", b"HTTP/1.10", b"HTTP/1.01", b"HTTP/2.0", b"HTTP/2", b"HTTP/1", b"http/1.1", b"HTTP /1.1")
    },
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a PROXY line": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + get(),
}  # fmt: skip

STATUSES: dict[str, tuple[bytes, int]] = {
    "CONNECT": (get(b"CONNECT a:443 HTTP/1.1", b"Host: a:443\r\n"), 405),
    "101 fields": (get(fields=HOST + b"X: y\r\n" * 100), 431),
    "10 000 fields": (get(fields=HOST + b"X: y\r\n" * 10_000), 431),
    "a long value": (get(fields=HOST + b"X: %b\r\n" % (b"y" * 16_385)), 431),
    "a long name": (get(fields=HOST + b"%b: y\r\n" % (b"x" * 16_385)), 431),
    "a value without end": (b"GET /agent/web/x HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 200_000, 431),
    "a long target": (get(b"GET /agent/web/%b HTTP/1.1" % (b"x" * 16_385)), 414),
    "a target without end": (b"GET /agent/web/" + b"x" * 200_000, 414),
    "two expectations": (post(b"Expect: 100-continue, x\r\nContent-Length: 5\r\n"), 417),
    "another expectation": (post(b"Expect: 200-ok\r\nContent-Length: 5\r\n"), 417),
    "long trailers": (chunked(b"0\r\n" + b"X: %b\r\n" % (b"y" * 4000) * 3 + b"\r\n"), 431),
    "a trailer without end": (chunked(b"0\r\nX: " + b"y" * 200_000), 431),
    "a chunk extension without end": (chunked(b"5;" + b"y" * 200_000), 431),
    "long chunk extensions": (chunked(b"1;%b\r\nx\r\n" % (b"y" * 200) * 1000 + LAST), 431),
}

TAKEN: dict[str, tuple[bytes, list[tuple[bytes, bytes, bytes]]]] = {
    "length with zeros": (post(b"Content-Length: 0005\r\n"), [(b"POST", b"/x", b"hello")]),
    "length with spaces around": (post(b"Content-Length: \t 5 \t\r\n"), [(b"POST", b"/x", b"hello")]),
    "length behind no space": (post(b"Content-Length:5\r\n"), [(b"POST", b"/x", b"hello")]),
    "a body of GET": (get(fields=HOST + b"Content-Length: 5\r\n") + b"hello", [(b"GET", b"/x", b"hello")]),
    "coding in capitals": (post(b"TRANSFER-ENCODING: CHUNKED\r\n", CHUNK + LAST), [(b"POST", b"/x", b"hello")]),
    "coding between spaces": (post(b"Transfer-Encoding:\t chunked \r\n", CHUNK + LAST), [(b"POST", b"/x", b"hello")]),
    "chunk sizes": (
        chunked(b"00000000000000000005\r\nhello\r\nA\r\n0123456789\r\na\r\nabcdefghij\r\n000\r\n\r\n"),
        [(b"POST", b"/x", b"hello0123456789abcdefghij")],
    ),
    "chunk extensions": (
        chunked(b'5;a;b=c;d="e;\\"f g"\r\nhello\r\n0;x=y\r\n\r\n'),
        [(b"POST", b"/x", b"hello")],
    ),
    "trailers": (
        chunked(CHUNK + b"0\r\nX: y\r\nHost: evil\r\nX-Agentainer-Replay: true\r\nAuthorization: z\r\n\r\n") + get(),
        [(b"POST", b"/x", b"hello"), (b"GET", b"/x", b"")],
    ),
    "an empty line before": (b"\r\n" + get(), [(b"GET", b"/x", b"")]),
    "an empty line behind a body": (post(b"Content-Length: 5\r\n") + b"\r\n" + get(), [(b"POST", b"/x", b"hello"), (b"GET", b"/x", b"")]),
    "an absolute target": (get(b"GET http://a/agent/web/x?y HTTP/1.1"), [(b"GET", b"/x?y", b"")]),
    "an absolute target in capitals": (get(b"GET HTTP://a/agent/web/x HTTP/1.1"), [(b"GET", b"/x", b"")]),
    "no Host in HTTP/1.0": (b"GET /agent/web/x HTTP/1.0\r\n\r\n", [(b"GET", b"/x", b"")]),
    "Host with sub-delims": (get(fields=b"Host: a!$&'()*+;=~_-.b:80\r\n"), [(b"GET", b"/x", b"")]),
    "odd bytes of a target": (
        get(b"GET /agent/web/%00%2F..//./x;a=b?c=d&&e=%ff\"<>[]\\^`{|} HTTP/1.1"),
        [(b"GET", b"/%00%2F..//./x;a=b?c=d&&e=%ff\"<>[]\\^`{|}", b"")],
    ),
    "100 fields": (get(fields=HOST + b"X: y\r\n" * 99), [(b"GET", b"/x", b"")]),
    "every method": (
        b"".join(
            get(b"%b /agent/web/x HTTP/1.1" % method)
            for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"PROPFIND", b"QUERY")
        ),
        [
            (method, b"/x", b"")
            for method in (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"PROPFIND", b"QUERY")
        ],
    ),
}  # fmt: skip


FRAMING = (b"transfer-encoding", b"content-length")


@pytest.fixture
def strict(make_plane):
    return make_plane(agent=StrictAgent())


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_ambiguous_is_refused(strict, name):
    expect_refusal(strict, REFUSED[name], 400)


@pytest.mark.parametrize("name", STATUSES)
def test_what_has_a_status_of_its_own(strict, name):
    expect_refusal(strict, *STATUSES[name])


def expect_refusal(plane, data: bytes, status: int):
    """Refused alone, and behind a good request, whatever follows it; nothing of it reaches the agent."""
    for before, statuses in ((b"", [status]), (get(b"GET /agent/web/good HTTP/1.1"), [200, status])):
        plane.agent.forget()
        with connect(plane.address) as connection:
            try:
                connection.sendall(before + data + NEXT)
            except (BrokenPipeError, ConnectionResetError):
                pass  # refused before its end
            got = finish(connection, Framed([], End.ERROR))

        assert (got.statuses, got.closed) == (statuses, True)
        assert [message.target for message in plane.agent.messages] == [b"/good"][: len(statuses) - 1]
        assert b"X-Agentainer-Request-ID: " in got.raw
    assert not plane.agent.violations
    assert not plane.journal.pending


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_odd_but_clear_is_passed_on(strict, name):
    data, meanings = TAKEN[name]

    _, _, wrong = run_case(strict.address, strict.agent, data)

    assert not wrong
    assert [message.meaning for message in strict.agent.messages] == meanings


@pytest.mark.parametrize("length", [b"4294967301", b"18446744073709551611"])
def test_a_huge_length_is_not_cut_down_to_a_short_one(strict, length):
    """2^32 + 5 and -5 in 64 bits: the five bytes that come are not the body."""
    with connect(strict.address) as connection:
        connection.sendall(post(b"Content-Length: %b\r\n" % length) + NEXT)
        got = finish(connection, Framed([], End.NOTHING))

    assert (got.statuses, strict.agent.messages, strict.agent.violations) == ([], [], [])


def test_trailers_are_neither_passed_on_nor_merged(strict):
    run_case(strict.address, strict.agent, TAKEN["trailers"][0])

    for message in strict.agent.messages:
        names = [name for name, _ in message.fields]
        assert not {b"x", b"authorization", b"x-agentainer-replay", b"trailer"} & set(names)
        assert message.values(b"host") == [b"a"]


# ---- gadgets: every way to write Transfer-Encoding so that one of two servers overlooks it

SPELLINGS = [
    *(b" Transfer-Encoding: chunked", b"\tTransfer-Encoding: chunked", b"Transfer-Encoding : chunked", b"Transfer-Encoding\t:\tchunked"),
    *(b"Transfer Encoding: chunked", b"Transfer Encoding:chunked", b"Transfer_Encoding: chunked", b"Transfer.Encoding: chunked"),
    *(b"Transfer-Encoding:  chunked", b"Transfer-Encoding:chunked", b"TrAnSFer-EnCODinG: cHuNkeD", b"TRANSFER-ENCODING: CHUNKED"),
    *(b"Transfer-Encoding: chunked, cow", b"Transfer-Encoding: cow, chunked", b"Transfer-Encoding: cow chunked bar"),
    *(b"Transfer-Encoding:\n chunked", b"Transfer-Encoding:\r\n chunked", b"Transfer-Encoding\n : chunked", b"Transfer-Encoding\r\n : chunked"),
    *(b"Transfer-Encoding: chunked\r", b"Transfer\r-Encoding: chunked", b"Transfer-\r\nEncoding: chunked", b"X: X\rTransfer-Encoding: chunked"),
    *(b"X: X\nTransfer-Encoding: chunked", b"X: X\r\rTransfer-Encoding: chunked", b"X: X\0Transfer-Encoding: chunked", b"X: X\r\n\rTransfer-Encoding: chunked"),
    *(b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    *(b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\nTransfer-encoding: cow", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
    *(b"Transfer-Encoding: 'chunked'", b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunk", b"Transfer-Encoding: chunked;q=0", b"Content-Encoding: chunked"),
    *(b"Transf\x82r-Encoding: chunked", b"Transfer-Encoding: ch\x96nked", b"Transfer\xadEncoding: chunked", b"Transfer-Encoding\x85: chunked", b"Transfer%2dEncoding: chunked"),
    *(b"Transfer-%45ncoding: chunked", b"Transfer-Encoding: %63hunked", b"Transfer-Encoding: =?iso-8859-1?B?Y2h1bmtlZA==?=", b"Transfer-Encoding: =?utf-8?q?chunked?="),
    *(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", b"Connection: close, Content-Length", b"TE: chunked", b"Trailer: Transfer-Encoding"),
    *(b":Transfer-Encoding: chunked", b"Transfer-Encoding:: chunked", b"Transfer-Encoding; chunked", b"Transfer-Encoding chunked", b"Transfer-Encoding=chunked"),
    *(b"X-Transfer-Encoding: chunked", b"Transfer-Encodings: chunked", b"Transfer--Encoding: chunked", b"TransferEncoding: chunked", b"Transfer-Encoding:"),
    *(b"Foo: bar\r\n\x00Transfer-Encoding: chunked", b"Transfer-Encoding: chunked\r\n X: y", b"Transfer-Encoding: \r\n\r\nchunked", b"\x00Transfer-Encoding: chunked"),
    *(b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding:\x0cchunked", b"Transfer-Encoding:\xa0chunked", b"Transfer-Encoding:\xffchunked", b"Transfer-Encoding: \xef\xbb\xbfchunked"),
]  # fmt: skip
PLACES = {
    "before the name": b"%cTransfer-Encoding: chunked",
    "in the name": b"Transfer%cEncoding: chunked",
    "behind the name": b"Transfer-Encoding%c: chunked",
    "behind the colon": b"Transfer-Encoding:%cchunked",
    "before the coding": b"Transfer-Encoding: %cchunked",
    "behind the coding": b"Transfer-Encoding: chunked%c",
    "in the coding": b"Transfer-Encoding: chun%cked",
    "at the end of a line": b"Transfer-Encoding: chunked%c\nX: X",
    "between CR and the next": b"Transfer-Encoding: chunked\r%cX: X",
    "before another field": b"Transfer-Encoding: chunked%cX: X",
    "behind another field": b"X: X%cTransfer-Encoding: chunked",
    "behind another field and CR": b"X: X\r%cTransfer-Encoding: chunked",
    "before LF": b"X: X%c\nTransfer-Encoding: chunked",
}
GADGETS = {
    "spellings": SPELLINGS,
    **{f"each byte {place}": [form % byte for byte in range(256)] for place, form in PLACES.items()},
}


@pytest.mark.parametrize("family", GADGETS)
def test_no_gadget_is_two_requests_to_two_servers(strict, family):
    """The two forms of the attack: the length covers the hidden request, or the chunk does."""
    hidden = NEXT.rstrip() + b"\r\n\r\n"
    for gadget in GADGETS[family]:
        for data in (
            post(b"Content-Length: %d\r\n%b\r\n" % (len(LAST + hidden), gadget), LAST + hidden),
            post(b"%b\r\nContent-Length: 4\r\n" % gadget, b"%x\r\n%b\r\n" % (len(hidden), hidden) + LAST),
            post(b"%b\r\n" % gadget, b"%x\r\n%b\r\n" % (len(hidden), hidden) + LAST),
        ):
            got, _, wrong = run_case(strict.address, strict.agent, data)
            assert not wrong, (data, got)
            for message in strict.agent.messages:
                assert not imitations(message), (gadget, message)


def imitations(message) -> list[bytes]:
    """Return the names that a careless server takes for a framing field, beside the one that the data plane wrote."""
    names = [name for name, _ in message.fields if re.sub(rb"[^a-z0-9]", b"-", name) in FRAMING]
    return names if len(names) > 1 else [name for name in names if name not in FRAMING]
