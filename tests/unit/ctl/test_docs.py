"""docs/cli.md and `--help`: each command is described, with examples that parse."""

import re
import shlex

import click
import pytest

from agentainerctl import exits
from agentainerctl.cli import ALIASES, COMMANDS, PROGRAM, root
from agentainerctl.endpoints import Endpoint
from agentainerctl.session import Session
from tests.unit.ctl import cli_reference

ALL = {path: command for path, command, _ in cli_reference.commands()}
PAGE = cli_reference.PAGE.read_text()


def test_the_reference_is_what_the_program_says():
    assert cli_reference.written() == PAGE, "run: python -m tests.unit.ctl.cli_reference"


def test_exit_codes_are_those_of_the_table():
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE))

    assert rows == {str(code): text for code, text in exits.MEANING.items()}


def test_the_lines_of_the_root_are_those_of_the_commands():
    for name, (_, _, line) in COMMANDS.items():
        help_text = ALL[f"{PROGRAM} {name}"].help
        assert help_text is not None
        assert line.rstrip(".") in re.split(r"[.:;]", help_text.replace("\n", " "))[0], name


@pytest.mark.parametrize("path", [path for path in ALL if path != PROGRAM])
def test_every_command_has_two_examples_that_parse(path):
    examples = getattr(ALL[path], "examples", ())

    assert len(examples) >= 2
    for example in examples:
        assert "agentainerctl" in example
        parse(example)


def test_the_examples_of_the_page_parse():
    for line in re.findall(r"^agentainerctl .*$", PAGE, re.MULTILINE):
        parse(line)


@pytest.mark.parametrize("path", ALL)
def test_every_help_is_an_answer(path, run):
    ran = run(*path.split()[1:], "--help")

    assert ran.code == 0
    assert ran.err == ""
    assert ran.out.startswith(f"Usage: {path} ")
    assert "\nExamples:\n" in ran.out


def test_aliases_lead_to_commands():
    assert set(ALIASES.values()) <= set(COMMANDS)
    assert not set(ALIASES) & set(COMMANDS)


def parse(line: str) -> None:
    """Parse each call of the program in a shell line; a usage error fails the test."""
    for words in calls(line):
        command: click.Command = root
        context = root.make_context(PROGRAM, list(words), obj=Session())
        while isinstance(command, click.Group) and context._protected_args:
            rest = [*context._protected_args, *context.args]
            name, found, rest = command.resolve_command(context, rest)
            assert found is not None, line
            command, context = found, found.make_context(name, rest, parent=context, obj=Session())


def calls(line: str) -> list[list[str]]:
    lexer = shlex.shlex(re.sub(r" [0-9]>.*", "", line.partition("    #")[0]), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    found: list[list[str]] = []
    is_call = False
    for token in lexer:
        if set(token) <= set("();<>|&$"):
            is_call = False
        elif token == PROGRAM:
            found.append([])
            is_call = True
        elif is_call:
            found[-1].append(token)
    assert found, line
    return found


def test_endpoints_write_as_a_person_would():
    assert Endpoint("", host="::1", port=8081).url == "http://[::1]:8081"
    assert Endpoint("", socket_path="/x").url == "unix:///x"
