"""137 requests, valid and not, sent whole and split at every byte: what is refused reaches nobody.

The cases are gunicorn's (corpus/README.md). Where the data plane decides otherwise than gunicorn, a table below says why.
"""

import os
import re
import socket

import pytest

from agentainerd.proxy.fields import PASS, REQUEST_NAMES
from tests.hostile.corpus import aim, load
from tests.hostile.oracle import End, frame
from tests.hostile.wire import StrictAgent, connect, run_case, run_splits

BATCH = 200  # connections at once
EVERYWHERE = bool(os.environ.get("SOAK_SPLITS"))
LONG = 1200  # bytes; the eight cases that are longer are so by one field or body of letters

INVALID, VALID = load("invalid"), load("valid")
ONLY_FIRST = {"020"}  # its "second request" is the body of the first

NOT_OUR_LIMIT = "invalid only by a size that gunicorn's test sets; ours are in docs/requests.md"
ALIAS_DROPPED = "`_` is a token character (RFC 9110 5.6.2); like nginx we drop names that imitate a framing field"
TAKEN = {
    "001": "no error yet: the head is not whole (408 if it stays so)",
    "006": NOT_OUR_LIMIT,
    "007": NOT_OUR_LIMIT,
    "008": NOT_OUR_LIMIT,
    "010": NOT_OUR_LIMIT,
    "011": "`=` may stand in a reg-name (RFC 3986 3.2.2); invalid in gunicorn only by a size",
    "012": "as 011",
    "017": NOT_OUR_LIMIT,
    "019": "gunicorn's secure_scheme_headers; what a client says in X-Forwarded-Proto is dropped here",
    "040": ALIAS_DROPPED,
    "041": "Content-Type twice frames nothing (RFC 9110 5.3 forbids it to senders); nginx and haproxy pass it on too",
    "chunked_07": ALIAS_DROPPED,
    "limit_header_default_01": NOT_OUR_LIMIT,
    "rfc9110_trailer_forbidden_host_01": "trailers are dropped whole (RFC 9110 6.5.1), so Host in one is nobody's Host",
    "rfc9112_chunked_missing_final_crlf_01": "no error yet: the last CRLF may still come (408 if it does not)",
}
ONE_CODING = "only `chunked` is a coding here, as nginx says (RFC 9112 6.1); gzip or identity before it are refused"
NO_PROXY_PROTOCOL = "the PROXY protocol is not spoken here"
NO_SUCH_METHOD = "methods are those of the IANA registry (docs/requests.md, What is not promised)"
REFUSED = {
    "005": "a request-target has no fragment (RFC 9112 3.2); haproxy refuses it too (CVE-2023-45539)",
    "009": "Transfer-Encoding and Content-Length at once (RFC 9112 6.1), and a fragment",
    "013": "white space in a chunk extension: bad even where it must be read (RFC 9112 7.1.1), and no client sends it",
    "025": ONE_CODING,
    "025_line": ONE_CODING,
    "027": "bytes above 0x7f in a target (RFC 3986 2)",
    "028": "white space before the colon: a server MUST refuse it (RFC 9112 5.1)",
    "029": ONE_CODING,
    "030": ONE_CODING,
    "031": NO_SUCH_METHOD,
    "031compat": NO_SUCH_METHOD,
    "031compat2": NO_SUCH_METHOD,
    "compat_obs_fold": "obs-fold: a server may refuse it (RFC 9112 5.2), and servers behind us may read it otherwise",
    "compat_obs_fold_huge": "obs-fold, as above",
    "pp_01": NO_PROXY_PROTOCOL,
    "pp_02": NO_PROXY_PROTOCOL,
    "pp_04": NO_PROXY_PROTOCOL,
    "pp_05": NO_PROXY_PROTOCOL,
    "rfc9112_smuggle_gzip_chunked_01": ONE_CODING,
    "rfc9112_smuggle_te_identity_chunked_01": ONE_CODING,
    "rfc9112_target_absolute_https_01": "the listener speaks http: an https target is not for it (RFC 9110 7.4)",
    "rfc9112_target_absolute_userinfo_01": "userinfo in a target is an error (RFC 9110 4.2.4)",
    "rfc9112_target_authority_connect_01": "CONNECT: this is no tunnel to anywhere (405)",
    "rfc9112_target_authority_ipv6_01": "CONNECT, as above",
}
NOT_FOR_AN_AGENT = {"rfc9112_target_asterisk_options_01"}  # `OPTIONS *` asks the server itself
UNFINISHED = {"099"}  # the body is shorter than its Content-Length says


@pytest.fixture
def strict_plane(make_plane):
    return make_plane(agent=StrictAgent())


@pytest.fixture
def gateway(tmp_path):
    """What the data plane hands to the control API: everything that is not for an agent."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "gateway.sock"))
    listener.listen(64)
    server = StrictAgent(listener, prefix=b"")
    yield server
    server.close()


def aimed(name: str, data: bytes) -> bytes:
    return aim(data, only_first=name in ONLY_FIRST)


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_request_reaches_no_agent(strict_plane, name):
    got, _, wrong = run_case(strict_plane.address, strict_plane.agent, aimed(name, INVALID[name]))

    assert not wrong
    if name not in TAKEN:
        assert len(got.statuses) == 1
        assert 400 <= got.statuses[0] < 500
        assert not strict_plane.agent.messages
        assert not strict_plane.agent.unfinished
    assert not strict_plane.journal.pending


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_request_to_an_absent_agent_is_not_queued(strict_plane, name):
    strict_plane.route.close()
    data = aimed(name, INVALID[name])

    with connect(strict_plane.address) as connection:
        connection.sendall(data)
        if name in TAKEN:
            return
        status = connection.recv(65536)[:12]

    assert status.startswith(b"HTTP/1.1 4")
    assert not strict_plane.journal.pending


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_request_reaches_no_control_api(gateway, make_plane, name):
    got, _, wrong = run_case(make_plane().address, gateway, INVALID[name])

    assert not wrong
    if name not in TAKEN:
        assert 400 <= got.statuses[0] < 500
        assert not gateway.messages
        assert not gateway.unfinished


@pytest.mark.parametrize("name", VALID)
def test_a_valid_request_reaches_its_agent_with_the_same_meaning(strict_plane, name):
    agent = strict_plane.agent
    if name in NOT_FOR_AN_AGENT:
        pytest.skip("not for an agent")
    got, expected, wrong = run_case(strict_plane.address, agent, aimed(name, VALID[name]))

    assert not wrong
    if name in REFUSED:
        assert len(got.statuses) == 1
        assert 400 <= got.statuses[0] < 500
        assert not agent.messages
        assert not agent.unfinished
    elif name in UNFINISHED:
        assert expected.end is End.PARTIAL
        assert not agent.messages
    else:
        assert agent.messages
        for sent, came in zip(expected.messages, agent.messages, strict=False):
            assert end_to_end(sent.fields) == [field for field in came.fields if field in end_to_end(sent.fields)]


@pytest.mark.parametrize("name", VALID)
def test_a_valid_request_for_nobody_is_passed_to_the_control_api(gateway, make_plane, name):
    data = VALID[name]
    got, expected, wrong = run_case(make_plane().address, gateway, data)

    assert not wrong
    if name not in REFUSED and expected.messages:
        assert got.statuses[0] == 200


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in ("invalid", "valid") for name in load(kind)])
def test_a_request_is_the_same_split_at_every_byte(strict_plane, kind, name):
    data = aimed(name, (INVALID if kind == "invalid" else VALID)[name])
    if name in NOT_FOR_AN_AGENT:
        pytest.skip("not for an agent")
    places = splits(data)

    for start in range(0, len(places), BATCH):
        assert not run_splits(strict_plane.address, strict_plane.agent, data, places[start : start + BATCH])


def test_the_tables_name_cases_that_are_decided_otherwise():
    assert set(TAKEN) <= set(INVALID)
    assert set(REFUSED) <= set(VALID)
    assert len(INVALID) + len(VALID) == 137
    for name in set(VALID) - set(REFUSED) - NOT_FOR_AN_AGENT - UNFINISHED:
        assert frame(aimed(name, VALID[name])).end is End.NOTHING, name


def splits(data: bytes) -> list[int]:
    """Return every place; in a long case a sample of those in the middle of its letters, unless SOAK_SPLITS is set."""
    if EVERYWHERE or len(data) <= LONG:
        return list(range(1, len(data)))
    places = {*range(1, 300), *range(1, len(data), 199), *range(len(data) - 20, len(data))}
    for line_end in list(re.finditer(b"\r\n", data))[:60]:
        places |= {line_end.start(), line_end.start() + 1, line_end.end()}
    return sorted(place for place in places if 0 < place < len(data))


def end_to_end(fields):
    """Return what an agent must get of these fields, in order."""
    return [(name, value) for name, value in fields if REQUEST_NAMES[name] == PASS]
