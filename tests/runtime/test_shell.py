"""The lexer of the command policy: what it understood is what a real shell does."""

import re
import subprocess
from pathlib import Path

import pytest
from agentainer_runtime import shell
from hypothesis import given, settings
from hypothesis import strategies as st


def names(text: str) -> list[str]:
    return [command.words[0].text for command in shell.parse(text).commands() if command.words]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ls -la", ["ls"]),
        ("a; b && c || d | e & f\ng", ["a", "b", "c", "d", "e", "f", "g"]),
        ("echo $(curl evil)", ["echo", "curl"]),
        ('echo "$(curl "$(id)")"', ["echo", "curl", "id"]),
        ("echo '$(curl evil)'", ["echo"]),
        ("echo \\$\\(curl", ["echo"]),
        ("(cd a; ls) | wc", ["cd", "ls", "wc"]),
        ("X=$(id) ls > $(who)", ["ls", "id", "who"]),
        ("l\\s", ["ls"]),
        ("'l's\"\"", ["ls"]),
        ("a \\\n -b", ["a"]),
        ("a;", ["a"]),
        ("a &", ["a"]),
        ("\n\na\n", ["a"]),
        ("if true; then id; fi", ["if", "then", "fi"]),
        ("! id", ["!"]),
        ("{ id; }", ["{", "}"]),
        ("[ -f x ]", ["["]),
    ],
)
def test_every_simple_command_is_found(text, found):
    assert sorted(names(text)) == sorted(found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "# nothing",
        "a #b",
        "a |",
        "a &&",
        "| a",
        "a ;; b",
        "a | | b",
        "(a",
        "a)",
        "()",
        "echo 'a",
        'echo "a',
        "echo $(a",
        "echo `id`",
        'echo "`id`"',
        "cat <(id)",
        "cat >(id)",
        "cat << E\nid\nE",
        "cat <<< x",
        "a <> b",
        "a &> b",
        "a |& b",
        "a > ",
        "a >& file",
        "a 12> b",
        "f() { id; }",
        "x=(a b)",
        "((x))",
        "echo $((1))",
        "echo ${x:-$(id)}",
        "echo ${!x}",
        "echo $1",
        "echo $$",
        "echo $@",
        "echo $'\\x69'",
        'echo $"a"',
        "{a,b}",
        "echo {1..9}",
        "echo {a,'b'}",
        "ls ~",
        "ls ~root",
        "a\0b",
        "a\rb",
        "a \\",
        "(" * 20 + "a" + ")" * 20,
        "x" * 60_000,
    ],
)
def test_what_is_not_complete_or_not_judged_is_refused(text):
    with pytest.raises(shell.Refused):
        shell.parse(text)


def test_what_is_refused_says_what_to_write():
    with pytest.raises(shell.Refused, match=r"write \$\( \)"):
        shell.parse("echo `id`")
    with pytest.raises(shell.Refused, match="2>&1"):
        shell.parse("a &> b")


@settings(max_examples=300)
@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_and_what_was_written_out_is_parsed_to_the_same(text):
    try:
        script = shell.parse(text)
    except shell.Refused:
        return

    again = shell.parse(shell.write(script))

    assert [[word.text for word in command.words] for command in again.commands()] == [
        [word.text for word in command.words] for command in script.commands()
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files whose names globs can have."""
    folder = tmp_path_factory.mktemp("globs")
    for name in ("a", "b1", "X", "=", "~", "a b"):
        (folder / name).touch()
    return folder


PIECES = st.sampled_from(
    ["printf '<%s>' ", "a", " ", "'", '"', "\\", "$", "X", "$X", "$(printf b)", "(", ")", ";", "&&", "||", "|", "\n", "*", "[", "]", "?", "=",
     ",", "~", "#", "-", "&", "cat ", "true ", "2>&1 ", "\t", "é", "`", "..", "1"]
)  # fmt: skip


@settings(max_examples=80)
@given(st.lists(PIECES, min_size=1, max_size=8).map("".join))
def test_a_shell_does_the_same_with_what_is_written_out(folder, text):
    text = "printf '<%s>' " + text
    try:
        script = shell.parse(text)
    except shell.Refused:
        return

    assert run(shell.write(script), folder) == run(text, folder)


def run(text: str, folder: Path) -> tuple[str, bool]:
    """What /bin/sh prints and whether it succeeds, with commands that do nothing but print."""
    found = subprocess.run(
        ["/bin/sh", "-c", text],
        env={"PATH": "/nowhere", "X": "x y"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=10,
        check=False,
    )
    return re.sub(r"sh: \d+: ", "sh: ", found.stdout.decode()), found.returncode == 0
