import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import characters, lists, sampled_from, text

from agentainerd import config_sources
from agentainerd.config_dotenv import read_dotenv
from agentainerd.config_load import ConfigError, load
from agentainerd.config_print import describe


@pytest.fixture(autouse=True)
def nothing_on_the_search_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def written(tmp_path):
    def write(text: str | bytes, mode: int = 0o600) -> str:
        path = tmp_path / ".env"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return str(path)

    return write


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # what the documentation of docker compose shows
        ("VAR=VAL", "VAL"),
        ('VAR="VAL"', "VAL"),
        ("VAR='VAL'", "VAL"),
        ("VAR=VAL # comment", "VAL"),
        ("VAR=VAL# not a comment", "VAL# not a comment"),
        ('VAR="VAL # not a comment"', "VAL # not a comment"),
        ('VAR="VAL" # comment', "VAL"),
        ("VAR='$OTHER'", "$OTHER"),
        ("VAR='${OTHER}'", "${OTHER}"),
        ("VAR='Let\\'s go!'", "Let's go!"),
        ('VAR="{\\"hello\\": \\"json\\"}"', '{"hello": "json"}'),
        ('VAR="some\\tvalue"', "some\tvalue"),
        ("VAR='some\\tvalue'", "some\\tvalue"),
        ("VAR=some\\tvalue", "some\\tvalue"),
        ("VAR: VAL", "VAL"),
        # the rest of the grammar
        ("export VAR=VAL", "VAL"),
        ("export\tVAR = VAL  ", "VAL"),
        ("  VAR=VAL", "VAL"),
        ("VAR=", ""),
        ("VAR=\nNEXT=1", ""),
        ("VAR= # comment", ""),
        ("VAR=''", ""),
        ("VAR=a b\tc", "a b\tc"),
        ("VAR=it's", "it's"),
        ("VAR=a=b:c", "a=b:c"),
        ("VAR='two\nlines # here'\n", "two\nlines # here"),
        ('VAR="two\nlines"', "two\nlines"),
        ('VAR="a\\nb\\\\n\\x"', "a\nb\\n\\x"),
        ("VAR=VAL\r\nNEXT=1\r\n", "VAL"),
        ("\ufeffVAR=VAL", "VAL"),
        ("# first\n\n   # second\nVAR=1\nVAR=VAL", "VAL"),
        ("VAR=ключ", "ключ"),
        # variables
        ("A=1\nVAR=$A/${A}", "1/1"),
        ('A=1\nVAR="$A \\$A $$A"', "1 $A $A"),
        ("VAR=$OTHER", "other"),
        ("OTHER=mine\nVAR=$OTHER", "other"),
        ("VAR=${NONE:-otherwise}", "otherwise"),
        ("VAR=${NONE-otherwise}", "otherwise"),
        ("VAR=${EMPTY:-otherwise}", "otherwise"),
        ("VAR=${EMPTY-otherwise}", ""),
        ("VAR=${OTHER:-otherwise}", "other"),
        ("VAR=${OTHER:+instead}${NONE:+instead}", "instead"),
        ("VAR=${EMPTY+instead}${EMPTY:+instead}", "instead"),
        ("VAR=${OTHER:?is missing}", "other"),
        ("VAR=p$1ss$ %", "p$1ss$ %"),
    ],
)  # fmt: skip
def test_the_grammar_is_that_of_docker_compose(written, text, value):
    found = read_dotenv(written(text), {"OTHER": "other", "EMPTY": ""})

    assert found.problems == []
    assert found.values["VAR"] == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\nsk secret", ":2: is not of the form NAME=value"),
        ("A=1\n\n=sk-secret", ":3: is not of the form NAME=value"),
        ("1A=sk-secret", ":1: is not of the form NAME=value"),
        ("MY KEY=sk-secret", ":1: is not of the form NAME=value"),
        ("KEY='sk-secret", ":1: KEY: begins with ' and has no ' at its end"),
        ('KEY="sk-secret\nA=1', ':1: KEY: begins with " and has no " at its end'),
        ('KEY="sk-secret"x', ':1: KEY: has something behind its second "'),
        ("KEY='sk-secret'# x", ":1: KEY: has something behind its second '"),
        ("KEY=sk$secret", ":1: KEY: stands on a variable that is not set"),
        ("KEY=sk${secret?}", ":1: KEY: stands on a variable that is not set"),
        ("KEY=sk${EMPTY:?}", ":1: KEY: stands on a variable that is not set"),
        ('KEY="sk${secret"', ":1: KEY: has a ${ that is no variable"),
        ("KEY=sk-secret\0", ":1: KEY: has a NUL in it"),
        (b"KEY=\xff", ": is not UTF-8 text (byte 4)"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_without_its_value(written, text, problem):
    found = read_dotenv(path := written(text), {"EMPTY": ""})

    assert [each for each in found.problems if each.startswith(path + problem)] == found.problems
    assert len(found.problems) == 1
    assert "secret" not in "".join(found.problems).replace("part of a secret", "")


def test_what_stands_behind_a_mistake_is_read_all_the_same(written):
    found = read_dotenv(path := written("A=1\n!\nB='x'y\nC=3\n?\n"), {})

    assert found.values == {"A": "1", "C": "3"}
    assert [problem.removeprefix(path)[:3] for problem in found.problems] == [":2:", ":3:", ":5:"]


def test_a_name_alone_is_one_that_the_environment_has(written):
    found = read_dotenv(written("OTHER\nexport MORE # here\n"), {"OTHER": "x"})

    assert (found.values, found.problems) == ({}, [])


def test_lines_are_counted_over_values_of_several_lines(written):
    found = read_dotenv(path := written("A='1\n2\n3'\nB=2\nA=3\n"), {})

    assert found.places == {"A": f"{path}:5", "B": f"{path}:4"}
    assert found.warnings == [f"{path}:5: A is there twice: the one above is not used"]


@pytest.mark.parametrize("text", ["", "\n", "# nothing", "   ", "\n\n#\n"])
def test_a_file_that_says_nothing_says_nothing(written, text):
    found = read_dotenv(written(text), {})

    assert (found.values, found.problems, found.warnings) == ({}, [], [])


def test_a_file_that_cannot_be_one_is_a_problem(tmp_path, monkeypatch):
    assert read_dotenv("/nowhere/.env", {}).problems == ["/nowhere/.env: cannot be read: No such file or directory"]
    assert read_dotenv(str(tmp_path), {}).problems == [f"{tmp_path}: cannot be read: Is a directory"]

    monkeypatch.setattr("agentainerd.config_dotenv.MAX_FILE_BYTES", 10)
    (tmp_path / ".env").write_text("A=" + "x" * 20)

    assert "is larger than 10 bytes" in read_dotenv(str(tmp_path / ".env"), {}).problems[0]
    assert config_sources.MAX_FILE_BYTES > 10


def test_it_is_below_the_environment_and_above_the_file(written, tmp_path):
    path = written("AGENTAINER_SERVER_PORT=1\nAGENTAINER_LOG_LEVEL=debug\nDOCKER_HOST=unix:///mine.sock\nANY=thing\n")
    (tmp_path / "config.yaml").write_text("server: {port: 2, host: 127.0.0.2}\nlog: {level: error}\n")

    loaded = load(None, {"AGENTAINER_SERVER_PORT": "3", "AGENTAINER_LOG_LEVEL": ""}, {}, path)

    server = loaded.config.server
    assert (server.host, server.port, loaded.config.log.level) == ("127.0.0.2", 3, "debug")
    assert loaded.config.docker.host == "unix:///mine.sock"
    assert loaded.origin("server.port") == "AGENTAINER_SERVER_PORT"
    assert loaded.origin("log.level") == f"{path}:2 (AGENTAINER_LOG_LEVEL)"
    assert loaded.origin("docker.host") == f"{path}:3 (DOCKER_HOST)"
    assert (loaded.env_file, loaded.warnings) == (path, ())
    assert "ANY" not in os.environ


def test_the_environment_can_name_it_and_the_flag_beats_that(written, tmp_path):
    path = written("AGENTAINER_LOG_LEVEL=debug\n")

    assert load(None, {"AGENTAINER_ENV_FILE": path}, {}).config.log.level == "debug"
    assert load(None, {"AGENTAINER_ENV_FILE": "/nowhere"}, {}, path).config.log.level == "debug"
    assert load(None, {}, {}).env_file is None


def test_keys_of_models_are_taken_from_it(written, tmp_path):
    path = written("GEMINI_API_KEY=AIza1\nOPENAI_API_KEY=sk-file\nMINE=sk-mine\nAGENT_MODEL=mine/x\n")
    (tmp_path / "config.yaml").write_text(
        "models: {providers: {mine: {base_url: 'https://a.example', api_key_env: MINE}}}"
    )

    loaded = load(None, {"OPENAI_API_KEY": "sk-real"}, {}, path)

    assert {each.name: each.api_key for each in loaded.config.models.providers} == {
        "mine": "sk-mine", "gemini": "AIza1", "openai": "sk-real",
    }  # fmt: skip
    assert loaded.config.models.default == "mine/x"
    assert "sk-" not in describe(loaded) and "AIza" not in describe(loaded)


def test_the_settings_of_the_document_are_taken_from_it(written):
    path = written("GEMINI_API_KEY=AIza1\nAGENT_IMAGE=mine:1\nAGENT_OUTPUT_DIR=/tmp/agent_jobs\nRETENTION_DAYS=2\n")

    loaded = load(None, {"RETENTION_DAYS": "3"}, {}, path)

    jobs = loaded.config.jobs
    assert (jobs.image, jobs.output_dir, jobs.retention_days) == ("mine:1", "/tmp/agent_jobs", 3.0)
    assert [each.name for each in loaded.config.models.providers] == ["gemini"]
    with pytest.raises(ConfigError) as failure:
        load(None, {}, {}, path := written("A=1\nRETENTION_DAYS=soon\n"))
    assert failure.value.problems[0].startswith(
        f"{path}:2 (RETENTION_DAYS): jobs.retention_days: 'soon' is not a number"
    )


def test_all_that_is_wrong_is_told_with_what_is_wrong_elsewhere(written, tmp_path):
    path = written("AGENTAINER_SERVRE_PORT=1\nAGENTAINER_SERVER_PORT=x\nHOME='\n")
    (tmp_path / "config.yaml").write_text("log: {level: loud}\n")

    with pytest.raises(ConfigError) as failure:
        load(None, {}, {}, path)

    problems = failure.value.problems
    assert (
        f"{path}:1 (AGENTAINER_SERVRE_PORT) is not a variable of agentainerd: did you mean AGENTAINER_SERVER_PORT?"
        in problems
    )
    assert any(
        problem.startswith(f"{path}:2 (AGENTAINER_SERVER_PORT): server.port: 'x' is not") for problem in problems
    )
    assert f"{path}:3: HOME: begins with ' and has no ' at its end" in problems
    assert any("log.level" in problem for problem in problems)


@pytest.mark.parametrize("variable", ["GEMINI_API_KEY", "OPENAI_API_KEY"])
def test_a_key_that_cannot_be_one_is_a_mistake_in_the_configuration(written, variable, tmp_path):
    (tmp_path / "config.yaml").write_text("models: {providers: {openai: {models: [x]}}}")

    with pytest.raises(ConfigError) as failure:
        load(None, {}, {}, written(f"{variable}='sk secret\n'\n"))

    assert len(failure.value.problems) == 1
    assert f"what is in {variable} is no key" in failure.value.message
    assert "secret" not in failure.value.message


@pytest.mark.parametrize(
    ("text", "mode", "warned"),
    [
        ("GEMINI_API_KEY=x", 0o600, ""),
        ("GEMINI_API_KEY=x", 0o644, "GEMINI_API_KEY"),
        ("AGENTAINER_TOKEN=x\nGITHUB_TOKEN=y", 0o640, "AGENTAINER_TOKEN, GITHUB_TOKEN"),
        ("GEMINI_API_KEY=\nRETENTION_DAYS=1\nAGENTAINER_LOG_LEVEL=debug\nOTHER=x", 0o644, ""),
    ],
)
def test_keys_that_others_can_read_are_warned_about(written, text, mode, warned):
    path = written(text, mode)

    warnings = load(None, {}, {}, path).warnings

    expected = f"{path}: others than its owner can read {warned} in it: chmod 600 {path}"
    assert warnings == ((expected,) if warned else ())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=text(alphabet=characters(exclude_characters="\0", exclude_categories=("Cs",))))
def test_every_value_can_be_written_in_double_quotes(written, value):
    quoted = value.translate({ord("\\"): "\\\\", ord('"'): '\\"', ord("$"): "\\$", ord("\r"): "\\r"})

    found = read_dotenv(written(f'A="{quoted}" # comment\nB=1\n'), {})

    assert (found.problems, found.values) == ([], {"A": value, "B": "1"})


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=lists(
        sampled_from(
            ["A", "=", ":", "'", '"', "\\", "$", "{", "}", " ", "#", "\n", "\r", "export ", "ß", "SECRET", "\0", "-"]
        )
    )
)
def test_whatever_a_file_has_is_read_or_told_without_its_values(written, pieces):
    found = read_dotenv(path := written("".join(["K=", *pieces])), {})

    for problem in found.problems:
        assert problem.startswith(f"{path}:")
        assert problem.count("SECRET") <= 1  # where it is the name of the variable
        assert "SECRET" not in problem or problem.partition(": ")[2].startswith(("SECRET", "ASECRET", "A"))
