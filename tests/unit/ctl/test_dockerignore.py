"""The patterns of .dockerignore, one rule of the engine's documents a row."""

import pytest

from agentainerctl.dockerignore import Ignore
from agentainerd.errors import InvalidParameter


@pytest.mark.parametrize(
    ("lines", "out", "kept"),
    [
        (
            ["node_modules"],
            ["node_modules", "node_modules/a", "node_modules/a/b.js"],
            ["src/node_modules", "node_modules2"],
        ),
        (["/build"], ["build", "build/x"], ["a/build"]),
        (["build/"], ["build", "build/x"], ["rebuild"]),
        (["*.pyc"], ["a.pyc", ".pyc"], ["a.py", "dir/a.pyc"]),
        (["*/temp*"], ["a/temporary.txt", "a/temp"], ["temp", "a/b/temp"]),
        (["*/*/temp*"], ["a/b/temporary.txt"], ["a/temp", "a/b/c/temp"]),
        (["temp?"], ["tempa", "tempb"], ["temp", "tempab"]),
        (["**/*.go"], ["a.go", "x/a.go", "x/y/a.go"], ["a.goo"]),
        (["**/temp"], ["temp", "x/temp", "x/y/temp/z"], ["xtemp"]),
        (["a/**"], ["a/b", "a/b/c"], ["a", "ab"]),
        (["a/**/z"], ["a/z", "a/b/z", "a/b/c/z"], ["a/y"]),
        (["**"], ["a", "a/b", ".x"], []),
        (["."], [], ["a"]),
        (["[a-c].txt"], ["a.txt", "c.txt"], ["d.txt", "ab.txt"]),
        (["[^a-c].txt"], ["d.txt"], ["a.txt"]),
        (["a[^b]c"], ["axc"], ["a/c"]),
        ([r"\*.md"], ["*.md"], ["a.md"]),
        (["a.b"], ["a.b"], ["axb"]),
        (["a+(b)$"], ["a+(b)$"], ["aab"]),
        (["*.md", "!README.md"], ["a.md"], ["README.md"]),
        (["*.md", "!README*.md", "README-secret.md"], ["README-secret.md", "a.md"], ["README.md"]),
        (["*.md", "README-secret.md", "!README*.md"], ["a.md"], ["README-secret.md", "README.md"]),
        (["*", "!keep"], ["a", "b/c"], ["keep", "keep/x/y"]),
        (["# comment", "", "   ", "a"], ["a"], ["# comment"]),
        ([" a ", "! a"], [], ["a"]),
        (["\ufeffa"], ["a"], []),
        (["./a", "b/../c", "d//e"], ["a", "c", "d/e"], ["b", "d"]),
        (["café/*"], ["café/x"], ["cafe/x"]),
    ],
)
def test_pattern(lines, out, kept):
    ignore = Ignore(lines)

    assert [path for path in out if not ignore.excludes(path)] == []
    assert [path for path in kept if ignore.excludes(path)] == []


@pytest.mark.parametrize("line", ["!", "! ", "[a"])
def test_a_malformed_pattern_names_the_file(line):
    with pytest.raises(InvalidParameter, match="app/.dockerignore"):
        Ignore([line], "app/.dockerignore")


@pytest.mark.parametrize(
    ("lines", "folder", "expected"),
    [
        (["node_modules"], "node_modules", True),
        (["node_modules", "!src/x"], "node_modules", True),
        (["a", "!a/b/c"], "a", False),
        (["a", "!a/b/c"], "a/b", False),
        (["a", "!a/b/c"], "a/d", True),
        (["a", "!a/b"], "a/b/c", False),
        (["a", "!**/x"], "a", False),
        (["a", "!ab"], "a", True),
    ],
)
def test_a_folder_is_skipped_whole_only_where_nothing_in_it_can_be_taken_back(lines, folder, expected):
    assert Ignore(lines).excludes_all_below(folder) is expected
