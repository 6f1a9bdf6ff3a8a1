"""Names in every spelling."""

import pytest

from agentainerd.proxy.fields import (
    ANSWER_NAMES,
    DROP,
    HOST,
    LENGTH,
    MAX_CACHED_NAMES,
    MAX_KNOWN_LINES,
    PASS,
    REQUEST_NAMES,
    Lines,
    Names,
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"HOST", HOST),
        (b"content-Length", LENGTH),
        (b"Content_Length", DROP),
        (b"transfer.encoding", DROP),
        (b"X-Agentainer-Anything", DROP),
        (b"x_AGENTAINER.replay", DROP),
        (b"x~agentainer!Replay", DROP),
        (b"Transfer+Encoding", DROP),
        (b"X-Agent", PASS),
        (b"TE", DROP),
        (b"x_custom", PASS),
    ],
)
def test_a_name_has_its_kind_in_every_spelling(name, kind):
    assert REQUEST_NAMES[name] == kind


def test_an_agent_does_not_speak_for_its_neighbours():
    for name in (
        b"Clear-Site-Data",
        b"strict-transport-security",
        b"Service-Worker-Allowed",
        b"X-Agentainer-Request-ID",
    ):
        assert ANSWER_NAMES[name] == DROP


def test_made_up_names_do_not_fill_the_memory():
    names = Names({})
    for number in range(MAX_CACHED_NAMES + 100):
        assert names[b"x-%d" % number] == PASS

    assert len(names) == MAX_CACHED_NAMES


@pytest.mark.parametrize(
    "line",
    [
        *(
            b"",
            b"X",
            b": y",
            b"X : y",
            b"X\t: y",
            b" X: y",
            b"\tX: y",
            b"X: a\rb",
            b"X: a\nb",
            b"X: a\0b",
            b"X: a\x7fb",
            b"X\x80: y",
        ),
        *(
            b"Transfer-Encoding: chunked",
            b"Upgrade: x",
            b"Expect: 100-continue",
            b"x" * 257 + b": y",
            b"X: " + b"y" * 999,
        ),
        *(
            b"Content-Length: -1",
            b"Content-Length: +1",
            b"Content-Length: 1, 1",
            b"Content-Length:",
            b"Content-Length: 1e1",
        ),
        *(b"Content-Length: \xb2", b"Content-Length: 1 1", b"Content-Length: 9999999999999999"),
    ],
)
def test_a_line_that_is_not_plain_is_left_to_the_parser(line):
    assert Lines(REQUEST_NAMES, max_line_bytes=1000)[line] is None


def test_a_plain_line_is_read_as_a_parser_reads_it():
    lines = Lines(REQUEST_NAMES, max_line_bytes=1000)

    assert lines[b"X-A:\t b c \t"] == (PASS, b"X-A: b c\r\n", b"X-A", b"b c")
    assert lines[b"content-length: 007"] == (LENGTH, b"content-length: 007\r\n", b"content-length", b"007")
    assert lines[b"X_Agentainer_Replay: true"][0] == DROP


def test_lines_are_remembered_up_to_a_bound_and_secrets_never():
    lines = Lines(REQUEST_NAMES, max_line_bytes=1000)
    secret = [b"Authorization: Bearer x", b"Cookie: a=b", b"X-Api-Key: x", b"x-auth-token: x", b"Idempotency-Key: x"]

    for line in [*secret, b"X: " + b"y" * 600]:
        assert lines[line] is not None
    assert not lines
    for number in range(MAX_KNOWN_LINES * 2 + 5):
        assert lines[b"X: %d" % number] is not None
        assert len(lines) <= MAX_KNOWN_LINES
