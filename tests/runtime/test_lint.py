"""What linters say of the workspace, over the WebSocket: where nothing is found it is said who looked."""

import json
import os

import pytest

from tests.fakes.runtime import runtimes
from tests.fakes.websockets import WebSocketClient

RUFF = """#!/bin/sh
echo "$@" >>"$PWD/ruff-was-asked"
printf '[{"code": "F401", "filename": "%s/good.py", "location": {"row": 1, "column": 8}, "message": "`os` imported but unused"},
  {"code": null, "filename": "%s/bad.py", "location": {"row": 1, "column": 1}, "message": "SyntaxError: twice"}]' "$PWD" "$PWD"
"""


@pytest.fixture(scope="module")
def lint(tmp_path_factory):
    """`lint(path)`: the answer's data, or its error; a program `ruff` is there when it is put into `lint.programs`."""
    place = tmp_path_factory.mktemp("lint")
    programs = place / "programs"
    programs.mkdir()
    with runtimes(place) as start:
        runtime = start([], PATH=f"{programs}:/usr/bin:/bin")
        client = WebSocketClient(runtime.port)

        def ask(path=None):
            answer = client.ask(id=1, type="getLintErrors", payload={} if path is None else {"path": path})
            return answer["data"] if answer["success"] else answer["error"]

        ask.programs, ask.workspace = programs, runtime.workspace
        yield ask
        client.close()


@pytest.fixture
def files(lint):
    """`files(**contents)` makes them the only ones in a folder, and returns its name."""

    def make(contents):
        folder = lint.workspace / f"folder-{len(os.listdir(lint.workspace))}"
        for name, content in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder.name

    return make


def test_an_empty_workspace_has_no_errors_and_nobody_looked(lint, files):
    assert lint(files({"a.txt": "what (", "b": "{"})) == {"errors": [], "count": 0, "linters": []}


def test_files_that_are_right_are_looked_at(lint, files):
    good = {
        "a.py": "async def f():\n    return 1\n",
        "b.json": "[1]",
        "c.yaml": "a: 1\n---\nb: 2\n",
        "d.toml": "a = 1\n",
        "e.yml": "{{x}}: 1",
    }

    found = lint(files(good))

    assert found["errors"] == []
    assert found["linters"] == [
        {"name": "json", "files": 1}, {"name": "python", "files": 1}, {"name": "toml", "files": 1}, {"name": "yaml", "files": 2},
    ]  # fmt: skip


def test_what_is_wrong_is_said_with_its_place(lint, files):
    folder = files({
        "a.py": "x = 1\nif x\n    pass\n", "b.json": '{"a": 1,\n "b": }', "c.yaml": "a: [1\nb: 2\n", "d.toml": "a = \n",
        "deep.json": "[" * 200_000, "deep.py": "(" * 5000, "nul.py": b"x = '\0'", "latin.py": b"x = '\xe9'\n", "return.py": "return 1\n",
        "wrong.yaml": b"\xff\xfe\xff",
    })  # fmt: skip

    found = lint(folder)

    places = {error["file"].partition("/")[2]: (error["linter"], error["line"]) for error in found["errors"]}
    assert places["a.py"] == ("python", 2)
    assert places["b.json"] == ("json", 2)
    assert places["c.yaml"] == ("yaml", 2)
    assert places["d.toml"][0] == "toml"
    assert set(places) == {
        "a.py",
        "b.json",
        "c.yaml",
        "d.toml",
        "deep.json",
        "deep.py",
        "nul.py",
        "latin.py",
        "return.py",
        "wrong.yaml",
    }
    assert found["count"] == 10
    assert all(error["message"] for error in found["errors"])


def test_nothing_of_a_file_is_run_and_only_files_of_the_workspace_are_read(lint, files, tmp_path):
    (tmp_path / "secret.json").write_text('{"secret": hidden}')
    folder = files({
        "a.py": "open('/tmp/ran-by-lint', 'w')\n", "node_modules/x/b.py": "(", ".git/c.py": "(", "y.yaml": "!!python/object/apply:os.abort []",
    })  # fmt: skip
    (lint.workspace / folder / "link.json").symlink_to(tmp_path / "secret.json")
    os.mkfifo(lint.workspace / folder / "pipe.json")

    found = lint(folder)

    assert found["errors"] == []
    assert found["linters"] == [{"name": "python", "files": 1}, {"name": "yaml", "files": 1}]
    assert "pipe.json" in found["notice"]
    assert not os.path.exists("/tmp/ran-by-lint")


def test_one_file_may_be_asked_for_and_what_is_not_there_is_said(lint, files):
    folder = files({"a.json": "{", "b.json": "{"})

    assert [error["file"] for error in lint(f"{folder}/a.json")["errors"]] == [f"{folder}/a.json"]
    assert lint("nowhere") == "nowhere does not exist"
    assert "outside" in lint("../x")
    assert "own" in lint(".agentainer/runs")
    assert "no text" in lint(7)


def test_ruff_is_asked_where_the_image_has_it_and_where_it_fails_that_is_said(lint, files):
    ruff = lint.programs / "ruff"
    folder = files({"good.py": "import os\n", "bad.py": "("})
    try:
        ruff.write_text(RUFF)
        ruff.chmod(0o755)
        found = lint(folder)
        ruff.write_text("#!/bin/sh\necho no\nexit 2\n")
        broken = lint(folder)
    finally:
        ruff.unlink()

    assert {"name": "ruff", "files": 2} in found["linters"]
    assert [(error["linter"], error["file"]) for error in found["errors"]] == [
        ("python", f"{folder}/bad.py"),
        ("ruff", "good.py"),
    ]
    assert found["errors"][1]["message"] == "F401 `os` imported but unused"
    assert "--cache" not in (lint.workspace / "ruff-was-asked").read_text()
    assert broken["notice"] == "ruff did not work"
    assert [each["name"] for each in broken["linters"]] == ["python"]


def test_many_files_are_looked_at_up_to_a_bound_and_that_is_said(lint, files):
    folder = files({f"{number}.json": "{" for number in range(2003)} | {"big.toml": "#" * 1_100_000})

    found = lint(folder)

    assert len(found["errors"]) == 500
    assert found["count"] == 2000
    assert "of which the first 500" in found["notice"]
    assert "more than 2000 files" in found["notice"]
    assert json.dumps(found)
