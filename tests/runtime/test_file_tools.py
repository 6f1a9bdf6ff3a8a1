"""read_file, write_file, edit_file, list_directory and search_files on real files, with everything that is wrong with some."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from agentainer_runtime import texts
from hypothesis import given, settings
from hypothesis import strategies as st


def test_a_file_is_read_whole_or_from_a_line_on(tools, workspace):
    (workspace / "a.txt").write_text("one\ntwo\nthree")

    assert tools("read_file", path="a.txt") == {"content": "one\ntwo\nthree"}
    assert tools("read_file", path="a.txt", offset=2, limit=1) == {
        "notice": "lines 2 to 2 of 3; go on with offset 3",
        "content": "two\n",
    }
    assert tools("read_file", path="a.txt", offset=3)["notice"] == "lines 3 to 3 of 3"
    assert tools("read_file", path=f"{workspace}/a.txt", offset="2", limit=None)["content"] == "two\nthree"
    assert "has 3 lines" in tools("read_file", path="a.txt", offset=4)["error"]


def test_an_empty_file_is_read(tools, workspace):
    (workspace / "empty").touch()

    assert tools("read_file", path="empty") == {"content": ""}


def test_a_long_file_and_long_lines_are_cut_and_it_is_said_where_to_go_on(tools, workspace):
    (workspace / "long").write_text("".join(f"{number}\n" for number in range(1, 5001)))
    (workspace / "wide").write_text("x" * 5_000_000 + "\nafter\n" + "y" * 2500 + "\n")

    long = tools("read_file", path="long")
    assert long["notice"] == "lines 1 to 2000 of 5000; go on with offset 2001"
    assert long["content"].endswith("\n2000\n")
    wide = tools("read_file", path="wide")["content"].split("\n")
    assert [len(line) for line in wide] == [2010, 5, 2010, 0]
    assert wide[0].endswith("[... cut]")


def test_a_file_of_a_gigabyte_is_not_loaded(tools, workspace):
    with open(workspace / "huge", "wb") as file:
        file.write(b"first\n" * 3000)
        file.truncate(1024**3)

    began = time.monotonic()
    result = tools("read_file", path="huge", limit=2)

    assert result == {"notice": "lines 1 to 2 of very many; go on with offset 3", "content": "first\nfirst\n"}
    assert time.monotonic() - began < 10


def test_what_is_no_text_is_not_shown(tools, workspace):
    (workspace / "image").write_bytes(b"\x89PNG\0\0")
    (workspace / "latin").write_bytes(b"caf\xe9\n")

    assert tools("read_file", path="image") == {"error": "image is not text: a binary file of 6 bytes"}
    assert tools("read_file", path="latin")["content"] == "caf\ufffd\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nothing", "nothing does not exist"),
        ("folder", "a folder, not a file"),
        ("pipe", "a named pipe, not a file"),
        ("a.txt/b", "is not a folder"),
        ("../workspace-evil/s", "outside"),
        ("lnk/passwd", "outside"),
        ("/etc/passwd", "outside"),
        ("/proc/self/environ", "outside"),
        (".agentainer/runs/x", "the runtime's own"),
        ("to-state", "the runtime's own"),
        ("x" * 300, "too long"),
        ("x/" * 3000, "too long"),
    ],
)
def test_what_can_not_be_read_is_said_and_nobody_waits(tools, workspace, path, said):
    (workspace / "folder").mkdir()
    (workspace / "a.txt").touch()
    os.mkfifo(workspace / "pipe")
    (workspace.parent / "workspace-evil").mkdir()
    (workspace.parent / "workspace-evil" / "s").write_text("secret")
    (workspace / "lnk").symlink_to("/etc")
    (workspace / ".agentainer" / "runs").mkdir(parents=True)
    (workspace / ".agentainer" / "runs" / "x").touch()
    (workspace / "to-state").symlink_to(".agentainer/runs/x")

    assert said in tools("read_file", path=path)["error"]


def test_a_file_is_made_and_replaced_and_both_are_reported_with_a_diff(tools, workspace):
    made = tools.full("write_file", {"path": "src/deep/a.txt", "content": "one\ntwo\n"})
    changed = tools.full("write_file", {"path": "src/deep/a.txt", "content": "one\nzwei\n"})

    assert made["result"] == {"success": True, "operation": "created", "path": "src/deep/a.txt"}
    assert made["edits"] == [
        ["src/deep/a.txt", "created", "--- /dev/null\n+++ b/src/deep/a.txt\n@@ -0,0 +1,2 @@\n+one\n+two\n"]
    ]
    assert changed["result"]["operation"] == "modified"
    assert "-two\n+zwei\n" in changed["edits"][0][2]
    assert (workspace / "src/deep/a.txt").read_text() == "one\nzwei\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("../x", "outside"),
        ("lnk/x", "outside"),
        ("/etc/agentainer-test", "outside"),
        (".git/hooks/pre-commit", "git's own"),
        ("sub/.git/config", "git's own"),
        (".agentainer/outputs/x", "the runtime's own"),
        ("pipe", "named pipe"),
        ("a.txt/b", "is not a folder"),
        ("folder", "a folder"),
        ("new/", "a folder"),
    ],
)
def test_what_can_not_be_written_is_said_and_not_written(tools, workspace, path, said):
    (workspace / "folder").mkdir()
    (workspace / "a.txt").touch()
    (workspace / "lnk").symlink_to("/etc")
    os.mkfifo(workspace / "pipe")
    before = sorted(workspace.parent.rglob("*"))

    full = tools.full("write_file", {"path": path, "content": "x"})

    assert said in full["result"]["error"]
    assert full["edits"] == []
    assert [path for path in sorted(workspace.parent.rglob("*")) if ".agentainer" not in str(path)] == before


def test_a_content_that_is_too_large_or_no_text_is_refused(tools):
    assert "more than 10485760" in tools("write_file", path="x", content="x" * (10 * 1024 * 1024 + 1))["error"]
    assert "surrogates" in tools("write_file", path="x", content="\ud800")["error"]


def test_one_place_is_edited_and_the_rest_stays_to_the_byte(tools, workspace):
    (workspace / "a").write_bytes(b"\xef\xbb\xbfone\r\n\ttwo\r\ncaf\xe9\r\nlast")

    full = tools.full("edit_file", {"path": "a", "old_string": "one\n\ttwo", "new_string": "eins\n\tzwei"})

    assert full["result"] == {"success": True, "operation": "modified", "path": "a", "replacements": 1}
    assert (workspace / "a").read_bytes() == b"\xef\xbb\xbfeins\r\n\tzwei\r\ncaf\xe9\r\nlast"
    assert full["edits"][0][:2] == ["a", "modified"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"old_string": "x", "new_string": "y"}, "2 times, in lines 1, 3"),
        ({"old_string": "z", "new_string": "y"}, "not in a: read the file again"),
        ({"old_string": "if a:\n  b", "new_string": "y"}, "line 4 is like it, with other blanks"),
        ({"old_string": "", "new_string": "y"}, "old_string is empty"),
        ({"old_string": "x", "new_string": "x"}, "are the same"),
        ({"old_string": "x"}, "new_string is missing"),
        ({"old_string": 3, "new_string": "x"}, "must be of type string"),
        ({"path": "none", "old_string": "x", "new_string": "y"}, "make it with write_file"),
        ({"path": "lnk/passwd", "old_string": "root", "new_string": "y"}, "outside"),
    ],
)
def test_an_edit_that_is_not_clear_is_not_made_and_says_why(tools, workspace, given, said):
    (workspace / "a").write_text("x 1\n2\nx 3\nif a:\n\tb\n")
    (workspace / "lnk").symlink_to("/etc")

    full = tools.full("edit_file", {"path": "a", **given})

    assert said in full["result"]["error"]
    assert full["edits"] == []
    assert (workspace / "a").read_text() == "x 1\n2\nx 3\nif a:\n\tb\n"


def test_every_place_is_edited_where_that_is_asked_for(tools, workspace):
    (workspace / "a").write_text("x y x")

    assert tools("edit_file", path="a", old_string="x", new_string="z", replace_all="true")["replacements"] == 2
    assert (workspace / "a").read_text() == "z y z"


def test_a_folder_is_listed_by_type_and_name(tools, workspace):
    (workspace / "b").mkdir()
    (workspace / "a.txt").write_text("abc")
    (workspace / "link").symlink_to("nowhere")
    os.mkfifo(workspace / "pipe")
    (workspace / os.fsdecode(b"n\xff")).touch()

    assert tools("list_directory")["entries"] == [
        {"name": "b", "type": "directory"},
        {"name": "a.txt", "type": "file", "size": 3},
        {"name": "link", "type": "symlink"},
        {"name": "n\ufffd", "type": "file", "size": 0},
        {"name": "pipe", "type": "other"},
    ]
    assert tools("list_directory", path="b") == {"entries": []}
    assert tools("list_directory", path="a.txt") == {"error": "a.txt is not a folder, or one above it is not"}
    assert "outside" in tools("list_directory", path="..")["error"]


def test_a_folder_with_very_many_entries_is_cut(tools, workspace):
    for number in range(1005):
        (workspace / f"{number:04}").touch()

    result = tools("list_directory")

    assert result["notice"] == "1005 entries, of which the first 1000 are shown"
    assert len(result["entries"]) == 1000


@pytest.fixture(params=["ripgrep", "fallback"])
def searching(request: pytest.FixtureRequest, workspace: Path) -> dict[str, str]:
    """The environment for a search by each of the two programs."""
    found = shutil.which("rg")
    if request.param == "ripgrep":
        if not found:
            pytest.skip("there is no ripgrep here")
        return {}
    for name in ("git", "python3"):
        (workspace.parent / "bin").mkdir(exist_ok=True)
        (workspace.parent / "bin" / name).symlink_to(shutil.which(name))
    return {"PATH": str(workspace.parent / "bin")}


def search(tools, environment, **arguments):
    return tools.full("search_files", arguments, environment=environment)["result"]


def test_lines_that_match_are_found(tools, workspace, searching):
    (workspace / "src").mkdir()
    (workspace / "src" / "a.py").write_text("import os\nTODO: it\n")
    (workspace / "b.txt").write_text("todo (1)\r\nnothing\n")
    (workspace / ".hidden").write_text("todo hidden\n")
    (workspace / "bin").write_bytes(b"\0todo\n")
    (workspace / "lnk").symlink_to("/etc")
    (workspace / ".agentainer").mkdir()
    (workspace / ".agentainer" / "x").write_text("todo")

    assert search(tools, searching, query="todo") == {
        "matches": [
            {"file": ".hidden", "line": 1, "content": "todo hidden"},
            {"file": "b.txt", "line": 1, "content": "todo (1)"},
            {"file": "src/a.py", "line": 2, "content": "TODO: it"},
        ],
        "count": 3,
    }
    assert search(tools, searching, query="TODO", caseSensitive=True)["count"] == 1
    assert search(tools, searching, query="t[aeo]do", filePattern="*.py")["count"] == 1
    assert search(tools, searching, query="todo", filePattern="src/**/*.py")["count"] == 1
    assert search(tools, searching, query="todo (1)", literal=True)["count"] == 1
    assert search(tools, searching, query="todo", path="src")["matches"][0]["file"] == "src/a.py"
    assert search(tools, searching, query="todo", path="b.txt")["count"] == 1
    assert search(tools, searching, query="nowhere to be found") == {"matches": [], "count": 0}


def test_what_git_ignores_is_not_searched(tools, workspace, repository, searching):
    (workspace / ".gitignore").write_text("built/\n")
    (workspace / "built").mkdir()
    (workspace / "built" / "x").write_text("one\n")

    assert [match["file"] for match in search(tools, searching, query="one")["matches"]] == ["a.txt"]


@pytest.mark.parametrize(
    "query", ["--pre=./evil", "-f/etc/passwd", "$(touch evil)", "; touch evil", "`touch evil`", "' ; touch evil '"]
)
def test_a_query_is_never_an_option_nor_a_command(tools, workspace, searching, query):
    (workspace / "a").write_text(f"x {query} x\n")

    assert search(tools, searching, query=query, literal=True)["count"] == 1
    assert search(tools, searching, query="x", filePattern="--pre=x; touch evil")["count"] == 0
    assert not (workspace / "evil").exists()


def test_a_search_without_sense_or_end_is_said(tools, workspace, searching):
    (workspace / "a").write_text(
        "".join(f"line {number}\n" for number in range(1000)) + "a" * 40 + "b\n" + "y" * 5000 + "\n"
    )

    assert "search failed" in search(tools, searching, query="(")["error"]
    assert "not empty" in search(tools, searching, query="")["error"]
    assert "outside" in search(tools, searching, query="x", path="..")["error"]
    assert "does not exist" in search(tools, searching, query="x", path="none")["error"]
    many = search(tools, searching, query="line")
    assert len(many["matches"]) == 200
    assert many["count"] == 1000
    assert "1000 lines match, the first 200 are here" in many["notice"]
    assert len(search(tools, searching, query="yy")["matches"][0]["content"]) == 400


def test_an_expression_that_backtracks_for_ever_is_ended(tools, workspace):
    (workspace / "a").write_text("a" * 60 + "!\n")
    (workspace.parent / "bin").mkdir()

    full = tools.full(
        "search_files", {"query": "(a+)+$"}, environment={"PATH": str(workspace.parent / "bin")}, room_s=1.0
    )

    assert "was ended after 1 s" in full["result"]["notice"]
    assert full["children"] == 0


TEXTS = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d"]), max_size=12).map("".join)


@settings(max_examples=30)
@given(TEXTS, TEXTS, st.booleans())
def test_a_diff_makes_the_new_content_of_the_old(tmp_path_factory, old, new, is_long):
    if old == new:
        return
    folder = tmp_path_factory.getbasetemp() / "diffed"
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text(old)
    limit = texts.MAX_DIFFED_LINES
    texts.MAX_DIFFED_LINES = 0 if is_long else limit
    try:
        diff = texts.unified_diff("file", old.encode(), new.encode())
    finally:
        texts.MAX_DIFFED_LINES = limit

    subprocess.run(
        ["git", "apply", "--unidiff-zero", "-"],
        cwd=folder,
        input=diff.encode(),
        check=True,
        env={"PATH": os.environ["PATH"], "GIT_CEILING_DIRECTORIES": str(folder.parent)},
    )

    assert (folder / "file").read_text() == new if new else not (folder / "file").read_text()


def test_the_search_program_runs_without_anything_of_the_runtime():
    """It is killed when it does not end: so it must be a program by itself."""
    program = Path(texts.__file__).parent / "line_search.py"

    found = subprocess.run([sys.executable, "-I", "-S", program, "{}"], capture_output=True, check=False)

    assert b"KeyError: 'literal'" in found.stderr
