"""Names in every spelling."""

import pytest

from agentainerd.proxy.fields import ANSWER_NAMES, DROP, HOST, LENGTH, MAX_CACHED_NAMES, PASS, REQUEST_NAMES, Names


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
