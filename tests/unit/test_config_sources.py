import os

import pytest

from agentainerd.config_sources import Given, find_file, read_environment, read_file
from agentainerd.strict_yaml import did_you_mean

KEYS = ("server.host", "server.port", "redis.host", "redis.port", "requests.max_age_s", "security.roots")


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes) -> str:
        path = tmp_path / "config.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    return write


def test_values_come_with_their_line(written):
    path = written("# mine\nserver:\n  host: box\n  port: 9000\n\nsecurity:\n  roots: [/a, '/b']\n")

    source = read_file(path, KEYS)

    assert source.problems == []
    assert source.values == {
        "server.host": Given("box", f"{path}:3"),
        "server.port": Given(9000, f"{path}:4"),
        "security.roots": Given(["/a", "/b"], f"{path}:7"),
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("NO", "NO"), ("true", True), ("FALSE", False),
        ("1:30", "1:30"), ("010", 10), ("0o10", 8), ("0x1f", 31), ("-3", -3), ("1_000", "1_000"),
        ("1.5", 1.5), (".5", 0.5), ("1e3", 1000.0), ("2026-11-20", "2026-11-20"), ("'12'", "12"), ('"true"', "true"),
        ("0b11", "0b11"), ("!!python/name:os.system x", "x"), ("9" * 200, float("9" * 200)),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(written, text, value):
    source = read_file(written(f"server:\n  host: {text}\n"), KEYS)

    assert source.problems == []
    assert source.values["server.host"].value == value
    assert type(source.values["server.host"].value) is type(value)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "~", "server:\n", "server: ~\n", "server:\n  host:\n"])
def test_what_says_nothing_changes_nothing(written, text):
    source = read_file(written(text), KEYS)

    assert source.problems == []
    assert source.values == {}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("server:\n  prot: 1\n", ":2: server.prot: no such key: did you mean server.port?"),
        ("sever:\n  port: 1\n", ":1: sever: no such section: did you mean server?"),
        ("port: 1\n", ":1: port: no such section: did you mean redis.port or server.port?"),
        ("server:\n  max_age_s: 1\n", ":2: server.max_age_s: no such key: did you mean requests.max_age_s?"),
        ("server:\n  zzz: 1\n", ":2: server.zzz: no such key: there are host, port"),
        ("zzz: 1\n", ":1: zzz: no such section: there are redis, requests, security, server"),
        ("server: 8081\n", ":1: server: is a section: its keys go on lines of their own below it, indented"),
        ("server:\n  host: {a: b}\n", ":2: server.host: is neither a value nor a list of values"),
        ("server:\n  host: [[a]]\n", ":2: server.host: is neither a value nor a list of values"),
        ("server:\n  host: a\n  host: b\n", ":3: server.host: is there twice, first on line 2"),
        ("server:\n  host: a\nserver:\n  port: 1\n", ":3: server: is there twice, first on line 1"),
        ("[a, b]\n", ":1: is not a configuration"),
        ("words", ":1: is not a configuration"),
        ("a: [\n", ":2: is not YAML"),
        (
            "server:\n\tport: 1\n",
            ":2: is not YAML: found character '\\t' that cannot start any token (YAML is indented",
        ),
        (b"\xff\xfe", ": is not UTF-8 text (byte 0)"),
        ("a: b\n---\nc: d\n", ":2: is not YAML"),
        ("? [a, b]\n: c\n", ":1: ?: no such section"),
        ("<<: {server: {port: 1}}\n", ":1: <<: no such section"),
        ("#" * (1024 * 1024 + 1), ": is larger than 1048576 bytes"),
        ("a: *b\n", ":1: is not YAML"),
    ],
)
def test_a_broken_file_says_where_and_what_would_be_right(written, text, problem):
    path = written(text)

    source = read_file(path, KEYS)

    assert len(source.problems) == 1
    assert source.problems[0].startswith(f"{path}{problem}")


def test_every_problem_is_told_at_once(written):
    source = read_file(written("sever: 1\nserver:\n  prot: 1\n  hots: 2\n  port: 3\n"), KEYS)

    assert len(source.problems) == 3
    assert list(source.values) == ["server.port"]


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "folder"])
def test_a_file_that_cannot_be_read_is_a_problem(tmp_path, make):
    path = tmp_path / "config.yaml"
    make(path)

    source = read_file(str(path), KEYS)

    assert len(source.problems) == 1
    assert source.problems[0].startswith(f"{path}: cannot be read: ")


def test_the_search_path_is_the_originals(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    (home / ".agentainer").mkdir(parents=True)
    here.mkdir()
    monkeypatch.chdir(here)
    environment = {"HOME": str(home)}

    (home / ".agentainer" / "config.yaml").touch()
    assert find_file(environment) == str(home / ".agentainer" / "config.yaml")

    (here / "config.yaml").touch()
    assert find_file(environment) == "config.yaml"


def test_a_dangling_link_on_the_search_path_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink("/nowhere", tmp_path / "config.yaml")

    assert find_file({}) == "config.yaml"


NAMES = {"AGENTAINER_TOKEN": "security.token", "AGENTAINER_SECURITY_TOKEN": "security.token", "AGENTAINER_PORT": "port"}


def environment(variables: dict[str, str], **changes):
    return read_environment(variables, NAMES, secrets=["security.token"], foreign=["AGENTAINER_HOST"], **changes)


def test_later_names_of_a_key_beat_earlier_ones():
    source = environment({"AGENTAINER_SECURITY_TOKEN": "long", "AGENTAINER_TOKEN": "short"})

    assert source.values == {"security.token": Given("long", "AGENTAINER_SECURITY_TOKEN")}


def test_an_empty_variable_counts_as_not_set():
    assert environment({"AGENTAINER_PORT": ""}).values == {}


def test_a_secret_may_be_in_a_file(tmp_path):
    path = tmp_path / "token"
    path.write_text("  s3cret\n")

    source = environment({"AGENTAINER_TOKEN_FILE": str(path)})

    assert source.values == {"security.token": Given("s3cret", f"{path} (AGENTAINER_TOKEN_FILE)")}
    assert source.warnings == []


def test_a_secret_file_that_cannot_be_read_is_a_problem():
    source = environment({"AGENTAINER_TOKEN_FILE": "/nowhere/token"})

    assert source.problems == ["AGENTAINER_TOKEN_FILE: /nowhere/token cannot be read: No such file or directory"]


def test_only_secrets_may_be_in_files():
    source = environment({"AGENTAINER_PORT_FILE": "/tmp/port"})

    assert source.values == {}
    assert source.warnings == ["AGENTAINER_PORT_FILE is not a variable of agentainerd: did you mean AGENTAINER_PORT?"]


def test_unknown_variables_are_warned_about_and_foreign_ones_are_not():
    source = environment({"AGENTAINER_PROT": "1", "AGENTAINER_HOST": "unix:///x", "PATH": "/bin"})

    assert source.warnings == ["AGENTAINER_PROT is not a variable of agentainerd: did you mean AGENTAINER_PORT?"]


def test_nothing_near_is_not_guessed():
    assert did_you_mean("qqqqqq", ["server.port"]) == ""
