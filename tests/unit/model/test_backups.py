"""Names, secrets and omissions of backups."""

import pytest

from agentainerd.errors import AgentainerError, InvalidParameter
from agentainerd.model.agents import AgentSpec
from agentainerd.model.backups import (
    MAX_OMISSIONS,
    BackedAgent,
    Omissions,
    check_component,
    check_description,
    check_name,
    with_secrets,
    without_secrets,
)

SPEC = AgentSpec(
    name="web",
    image="echo",
    env_vars={"API_KEY": "sesame", "PLAIN": "1", "QUIET": "hush"},
    secrets=("QUIET",),
    token="open-sesame",
)


@pytest.mark.parametrize("name", ["daily", "a", "before v1.2", "x" * 64])
def test_names_of_backups(name):
    check_name(name)


@pytest.mark.parametrize("name", ["", " a", "a ", "a/b", "..", "x" * 65, "a\n", "ä", "backup-1763712345-3fa91c"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidParameter):
        check_name(name)


@pytest.mark.parametrize("text", ["x" * 1025, "two\nlines", "\x1b[2J"])
def test_descriptions_are_one_printable_line(text):
    with pytest.raises(InvalidParameter):
        check_description(text)


def test_no_secret_is_in_the_spec_of_a_backup():
    spec, hidden = without_secrets(SPEC)

    assert spec.env_vars == {"PLAIN": "1"}
    assert (spec.token, spec.secrets) == ("", ())
    assert hidden == {"API_KEY": "sesame", "QUIET": "hush"}


def test_secrets_come_back():
    spec, hidden = without_secrets(SPEC)
    agent = BackedAgent("agent-0000000000000000", spec, secrets=tuple(hidden), has_token=True)

    again = with_secrets(agent, hidden, "open-sesame")

    assert (again.env_vars, again.token) == (SPEC.env_vars, SPEC.token)
    assert all(again.is_secret(name) for name in hidden)
    assert with_secrets(agent, {}, "").env_vars == {"PLAIN": "1"}


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0b", "x" * 256, "é" * 128])
def test_what_no_file_can_be_called(name):
    with pytest.raises(AgentainerError) as failure:
        check_component(name)

    assert failure.value.code == "BACKUP_DAMAGED"


def test_omissions_are_all_counted_and_the_first_kept():
    omissions = Omissions()
    for number in range(MAX_OMISSIONS + 5):
        omissions.add("/srv", f"f{number}", "why")
    omissions.add("/srv", "\udcff", "why")

    assert (omissions.count, len(omissions.kept)) == (MAX_OMISSIONS + 6, MAX_OMISSIONS)


def test_a_path_that_is_no_text_is_shown_as_escapes():
    omissions = Omissions()
    omissions.add("/srv", "a\udcff", "why")
    omissions.add("/srv", "", "why")

    assert [each.path for each in omissions.kept] == ["a\\xff", "."]
