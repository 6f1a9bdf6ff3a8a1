"""Image or Dockerfile? Every row of the rule."""

import pytest

from agentainerctl.dockerfiles import find_dockerfile
from agentainerd.errors import InvalidParameter, NotFound


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("app", "plain", "nginx"):
        (tmp_path / folder).mkdir()
    for name, text in {
        "Dockerfile": "RUN nothing that makes sense",
        "dockerfile-old": "",
        "web.dockerfile": "",
        "web.Dockerfile": "",
        "from": "# comment\n\n  from scratch\n",
        "arg": "\ufeffARG BASE=x\nFROM $BASE\n",
        "run": "RUN echo\n",
        "fromage": "FROMAGE is cheese\n",
        "empty": "",
        "app/Dockerfile": "FROM x",
        "app/Dockerfile.production": "FROM x",
        "nginx/Dockerfile": "FROM x",
    }.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Dockerfile", "Dockerfile"),
        ("./Dockerfile", "./Dockerfile"),
        ("dockerfile-old", "dockerfile-old"),
        ("web.dockerfile", "web.dockerfile"),
        ("web.Dockerfile", "web.Dockerfile"),
        ("from", "from"),
        ("./arg", "./arg"),
        ("app/Dockerfile.production", "app/Dockerfile.production"),
        ("./app", "./app/Dockerfile"),
        ("app/", "app/Dockerfile"),
        (".", "./Dockerfile"),
        ("nginx", None),
        ("nginx:latest", None),
        ("run", None),
        ("fromage", None),
        ("empty", None),
        ("plain", None),
        ("docker/dockerfile:1", None),
        ("registry.example.com:5000/team/agent@sha256:" + "0" * 64, None),
    ],
)
def test_value(value, expected):
    assert find_dockerfile(value) == expected


def test_an_absolute_path_and_the_home_folder(here, monkeypatch):
    monkeypatch.setenv("HOME", str(here))

    assert find_dockerfile(str(here / "app")) == str(here / "app" / "Dockerfile")
    assert find_dockerfile("~/app/Dockerfile") == str(here / "app" / "Dockerfile")


@pytest.mark.parametrize(
    "value", ["./missing", "../missing", "/missing", "~/missing", "missing/Dockerfile", "Dockerfile.missing"]
)
def test_a_path_that_does_not_exist_is_not_taken_for_an_image(value):
    with pytest.raises(NotFound) as failure:
        find_dockerfile(value)

    assert failure.value.code == "DOCKERFILE_NOT_FOUND"
    assert failure.value.message == f"no such Dockerfile: {value}"


def test_a_folder_without_one(here):
    with pytest.raises(NotFound, match="no Dockerfile in ./plain"):
        find_dockerfile("./plain")


def test_a_path_to_something_else(here):
    with pytest.raises(InvalidParameter, match=r"\./run is not a Dockerfile"):
        find_dockerfile("./run")


def test_a_file_that_is_not_text(here):
    (here / "binary").write_bytes(bytes(range(256)) * 1000)

    assert find_dockerfile("binary") is None
