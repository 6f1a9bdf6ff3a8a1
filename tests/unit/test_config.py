import dataclasses
from pathlib import Path

import pytest
import yaml

from agentainerd import config, defaults
from agentainerd.config import Config, keys
from agentainerd.config_load import ConfigError, load, reloaded
from agentainerd.config_print import describe
from agentainerd.config_sources import Given

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def nothing_on_the_search_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def written(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "given.yaml"
        path.write_text(text)
        return str(path)

    return write


def test_flags_beat_environment_beat_file_beat_defaults(written):
    path = written("server: {host: 127.0.0.2, port: 1, drain_timeout_s: 1}\n")
    environment = {"AGENTAINER_SERVER_PORT": "2", "AGENTAINER_SERVER_DRAIN_TIMEOUT_S": "2s"}

    loaded = load(path, environment, {"server.drain_timeout_s": Given(3, "--drain")})

    server = loaded.config.server
    assert (server.host, server.port, server.drain_timeout_s) == ("127.0.0.2", 2, 3.0)
    assert server.domain == "localhost"
    assert loaded.origin("server.host") == f"{path}:1"
    assert loaded.origin("server.port") == "AGENTAINER_SERVER_PORT"
    assert loaded.origin("server.drain_timeout_s") == "--drain"
    assert loaded.origin("server.domain") == "default"


@pytest.mark.parametrize("key", list(keys()), ids=lambda key: key.name)
def test_every_key_has_a_variable_of_its_own(key):
    samples = {
        "redis.url": "redis://other", "docker.host": "unix:///other.sock", "requests.on_journal_down": "reject",
        "log.level": "debug", "log.format": "json", "redis.host": "other", "server.trusted_proxies": "10.0.0.1",
        "server.allowed_hosts": "*.example.com", "server.allowed_origins": "https://app.example.com",
        "models.providers": '{"openai": {"api_key": "sk-1"}}', "models.aliases": '{"small": "openai/x"}',
        "security.host_ports": "5432", "security.open_prefixes": "/api/v1",
        "jobs.image": "other:1", "jobs.webhook_attempts": "3", "jobs.webhook_refuse": "private",
    }  # fmt: skip
    text = samples.get(key.name)
    if text is None:
        text = {bool: "true", int: "20000000", float: "77", str: "/other", tuple: "/srv"}[type(key.default)]
    if key.name in (
        "redis.port",
        "shared_redis.port",
        "redis.db",
        "requests.max_attempts",
        "log.files",
        "jobs.max_running",
        "jobs.warm",
        "jobs.pids_limit",
    ) or key.name.startswith(("server.max_", "server.port")):
        text = "77"
    if key.name in ("server.host", "server.domain", "docker.network", "docker.isolated_network"):
        text = "other"
    if key.name in ("features.request_persistence", "api.summaries", "jobs.network"):
        text = "false"

    loaded = load(None, {key.variables[0]: text}, {})

    section, name = key.name.split(".")
    assert key.variables[0] == f"AGENTAINER_{section.upper()}_{name.upper()}"
    assert getattr(getattr(loaded.config, section), name) != key.default
    assert loaded.origin(key.name) == key.variables[0]
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("variable", "text", "key", "value"),
    [
        ("AGENTAINER_REDIS_HOST", "box", "redis.host", "box"),
        ("AGENTAINER_REDIS_PORT", "6380", "redis.port", 6380),
        ("AGENTAINER_SERVER_HOST", "0.0.0.0", "server.host", "0.0.0.0"),
        ("AGENTAINER_SERVER_PORT", "8080", "server.port", 8080),
        ("AGENTAINER_STORAGE_DATA_DIR", "/data", "storage.data_dir", "/data"),
        ("AGENTAINER_DOCKER_HOST", "unix:///d.sock", "docker.host", "unix:///d.sock"),
        ("AGENTAINER_SECURITY_DEFAULT_TOKEN", "abc", "security.default_token", "abc"),
        ("AGENTAINER_AUTH_TOKEN", "abc", "security.default_token", "abc"),
        ("AGENTAINER_TOKEN", "abc", "security.default_token", "abc"),
        ("AGENTAINER_REDIS_PASSWORD", "pass", "redis.password", "pass"),
        ("AGENTAINER_REDIS_DB", "3", "redis.db", 3),
        ("AGENTAINER_FEATURES_REQUEST_PERSISTENCE", "false", "features.request_persistence", False),
        ("AGENTAINER_STATE_DIR", "/data", "paths.state_dir", "/data"),
        ("AGENTAINER_RUNTIME_DIR", "/sockets", "paths.runtime_dir", "/sockets"),
        ("AGENT_IMAGE", "mine:1", "jobs.image", "mine:1"),
        ("AGENT_OUTPUT_DIR", "/tmp/agent_jobs", "jobs.output_dir", "/tmp/agent_jobs"),
        ("RETENTION_DAYS", "0.5", "jobs.retention_days", 0.5),
    ],
)
def test_the_names_of_the_original_and_the_short_ones_work(variable, text, key, value):
    loaded = load(None, {variable: text}, {})

    section, name = key.split(".")
    assert getattr(getattr(loaded.config, section), name) == value


def test_dockers_own_variable_is_only_a_default(written):
    environment = {"DOCKER_HOST": "tcp://box:2375"}

    assert load(None, environment, {}).config.docker.host == "tcp://box:2375"
    assert load(written("docker: {host: 'unix:///f'}"), environment, {}).config.docker.host == "unix:///f"
    assert load(None, environment | {"AGENTAINER_DOCKER_HOST": "unix:///e"}, {}).config.docker.host == "unix:///e"


def test_the_originals_file_is_still_right(written):
    path = written(
        "server:\n  host: localhost\n  port: 8081\n"
        "redis:\n  host: localhost\n  port: 6379\n  password: ''\n  db: 0\n"
        "storage:\n  data_dir: ~/.agentainer/data\n"
        "docker:\n  host: unix:///var/run/docker.sock\n"
        "security:\n  default_token: agentainer-default-token\n"
        "features:\n  request_persistence: true\n"
    )

    loaded = load(path, {}, {})

    assert loaded.warnings == ()
    assert loaded.config.redis.is_external
    assert loaded.config.paths.state_dir.endswith("/.agentainer/data")
    assert loaded.config.storage.data_dir == loaded.config.paths.state_dir


def test_all_problems_of_all_sources_are_told_at_once(written):
    path = written("server:\n  prot: 1\n  port: high\n")

    with pytest.raises(ConfigError) as failure:
        load(path, {"AGENTAINER_LOG_LEVEL": "loud"}, {"server.host": Given("a b", "--listen")})

    assert failure.value.problems == [
        f"{path}:2: server.prot: no such key: did you mean server.port?",
        f"{path}:3: server.port: 'high' is not a whole number from 0 to 65535",
        "AGENTAINER_LOG_LEVEL: log.level: 'loud' is not one of debug, info, warning, error",
        "--listen: server.host: 'a b' is not an IP address or a host name (the port has a key of its own)",
    ]


def test_a_file_of_the_search_path_that_cannot_be_read_stops_the_start(tmp_path):
    (tmp_path / "config.yaml").mkdir()

    with pytest.raises(ConfigError, match="config.yaml: cannot be read"):
        load(None, {}, {})


def test_a_file_that_was_asked_for_must_be_there():
    with pytest.raises(ConfigError, match="/nowhere.yaml: cannot be read: No such file"):
        load("/nowhere.yaml", {}, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "box"])
def test_the_token_that_everybody_knows_stays_on_loopback(host):
    environment = {"AGENTAINER_SECURITY_DEFAULT_TOKEN": defaults.SEED_TOKEN}

    assert load(None, environment, {}).config.security.default_token == defaults.SEED_TOKEN
    with pytest.raises(ConfigError, match="refusing to listen on .* with the default token"):
        load(None, environment | {"AGENTAINER_SERVER_HOST": host}, {})


def test_paths_without_a_token_stay_on_loopback():
    environment = {"AGENTAINER_SECURITY_OPEN_PREFIXES": "/api/v1/, /api/agents, /schedule"}

    assert load(None, environment, {}).config.security.open_prefixes == ("/api/v1", "/api/agents", "/schedule")
    with pytest.raises(ConfigError, match="refusing to listen on 0.0.0.0 with paths that ask for no token"):
        load(None, environment | {"AGENTAINER_SERVER_HOST": "0.0.0.0"}, {})


@pytest.mark.parametrize(
    "prefix", ["/", "", "/agents", "api", "/apix", "/api/../agents", "/api/%2e", "/api/a b", "/jobsx", "/schedule/x"]
)
def test_only_paths_of_the_api_can_be_open(prefix):
    with pytest.raises(ConfigError, match="is not /api, a path under it such as /api/v1, or a path of jobs"):
        load(None, {}, {"security.open_prefixes": Given([prefix], "--flag")})


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        ({"AGENTAINER_RUNTIME_DIR": "/x/" + "y" * 100}, "is too long for the sockets in it: at most 91 bytes"),
        ({"AGENTAINER_RUNTIME_DIR": "/x", "AGENTAINER_STATE_DIR": "/x"}, "is the state folder too"),
        ({"AGENTAINER_DOCKER_NETWORK": "a", "AGENTAINER_DOCKER_ISOLATED_NETWORK": "a"}, "is docker.network too"),
        (
            {"AGENT_OUTPUT_DIR": "/x", "AGENTAINER_STATE_DIR": "/x"},
            "AGENT_OUTPUT_DIR: jobs.output_dir: /x is not for jobs alone",
        ),
        ({"AGENT_OUTPUT_DIR": "/"}, "AGENT_OUTPUT_DIR: jobs.output_dir: / is not for jobs alone"),
    ],
)
def test_values_that_contradict_each_other_are_refused(environment, problem):
    with pytest.raises(ConfigError, match=problem):
        load(None, environment, {})


@pytest.mark.parametrize(
    ("variable", "text", "problem"),
    [
        ("RETENTION_DAYS", "soon", "RETENTION_DAYS: jobs.retention_days: 'soon' is not a number from 0 to 366"),
        ("RETENTION_DAYS", "-1", "RETENTION_DAYS: jobs.retention_days: '-1' is not a number from 0 to 366"),
        ("RETENTION_DAYS", "nan", "RETENTION_DAYS: jobs.retention_days: 'nan' is not a number from 0 to 366"),
        ("AGENT_IMAGE", "my image", "AGENT_IMAGE: jobs.image: 'my image' is not an image's name: write it as name:tag"),
        ("AGENTAINER_JOBS_WEBHOOK_REFUSE", "lan", "AGENTAINER_JOBS_WEBHOOK_REFUSE: jobs.webhook_refuse: 'lan' is not an IP address"),
    ],
)  # fmt: skip
def test_settings_of_jobs_that_cannot_be_say_what_would_be_right(variable, text, problem):
    with pytest.raises(ConfigError) as failure:
        load(None, {variable: text}, {})

    assert failure.value.problems[0].startswith(problem)


def test_the_old_name_of_the_state_folder_gives_way_only_to_an_equal_or_higher_source(written):
    path = written("paths: {state_dir: /new}\nstorage: {data_dir: /old}\n")

    both = load(path, {}, {})
    assert both.config.paths.state_dir == both.config.storage.data_dir == "/new"
    assert both.warnings == (f"{path}:2: storage.data_dir is not used, since paths.state_dir is set too",)

    assert load(path, {"AGENTAINER_STORAGE_DATA_DIR": "/env"}, {}).config.paths.state_dir == "/env"
    assert load(path, {}, {"paths.state_dir": Given("/flag", "--state-dir")}).config.paths.state_dir == "/flag"


def test_a_redis_url_beats_a_redis_host_of_the_same_source_or_a_lower_one(written):
    path = written("redis: {url: 'redis://a', host: b}\n")

    assert load(path, {}, {}).config.redis.host == ""
    assert load(path, {"AGENTAINER_REDIS_HOST": "c"}, {}).config.redis.url == ""
    assert load(path, {"AGENTAINER_REDIS_HOST": "c"}, {}).config.redis.host == "c"


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, ""),
        ({"host": "box"}, "redis://box:6379/0"),
        ({"host": "::1", "port": 1, "db": 2, "password": "a/b@c"}, "redis://:a%2Fb%40c@[::1]:1/2"),
        ({"url": "redis://box/3"}, "redis://box/3"),
        ({"url": "redis://box/3", "password": "p@ss"}, "redis://:p%40ss@box/3"),
        ({"url": "redis://:own@box/3", "password": "other"}, "redis://:own@box/3"),
        ({"url": "unix:///run/redis.sock"}, "unix:///run/redis.sock"),
    ],
)
def test_an_external_redis_has_one_address(given, address):
    redis = config.RedisConfig(**given)

    assert redis.address == address
    assert redis.is_external is bool(address)


def test_folders_of_a_user_are_the_xdg_ones(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.delenv("STATE_DIRECTORY", raising=False)
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ada/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")

    assert Config().paths.state_dir == "/home/ada/state/agentainer"
    assert Config().paths.control_socket == "/run/user/1000/agentainer/agentainer.sock"

    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setenv("HOME", "/home/ada")
    assert config.default_state_dir() == "/home/ada/.local/state/agentainer"
    assert config.default_runtime_dir() == "/tmp/agentainer-1000"


def test_the_folders_are_those_that_systemd_made(monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/agentainer:/var/lib/other")
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/agentainer")

    assert (config.default_state_dir(), config.default_runtime_dir()) == ("/var/lib/agentainer", "/run/agentainer")
    monkeypatch.setattr(config.os, "geteuid", lambda: 997)
    assert (config.default_state_dir(), config.default_runtime_dir()) == ("/var/lib/agentainer", "/run/agentainer")


def test_folders_of_root_are_the_systems(monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 0)

    assert Config().paths.state_dir == "/var/lib/agentainer"
    assert Config().paths.gateway_socket == "/run/agentainer/gateway.sock"


def test_describe_is_yaml_that_shows_origins_and_hides_secrets(written):
    path = written("redis:\n  url: redis://:hunter2@box/1\nsecurity:\n  default_token: hunter3\n")
    loaded = load(path, {"AGENTAINER_REDIS_PASSWORD": "hunter4"}, {})

    text = describe(loaded)

    parsed = yaml.safe_load(text)
    assert parsed["redis"]["url"] == "redis://:***@box/1"
    assert parsed["redis"]["password"] == parsed["security"]["default_token"] == "***"
    assert "hunter" not in text
    assert [f"{section}.{name}" for section, entries in parsed.items() for name in entries] == [k.name for k in keys()]
    assert f"# {path}:2" in text
    assert "# AGENTAINER_REDIS_PASSWORD" in text


def test_what_describe_prints_can_be_loaded_again(written):
    loaded = load(written("server: {port: 99, trusted_proxies: [10.0.0.1]}\nrequests: {max_age_s: 1h}\n"), {}, {})

    again = load(written(describe(loaded)), {}, {})

    assert again.config == loaded.config


def test_a_reload_takes_what_can_be_taken_and_names_the_rest():
    old = Config()
    new = dataclasses.replace(
        old,
        server=dataclasses.replace(old.server, port=1),
        log=dataclasses.replace(old.log, level="debug"),
        requests=dataclasses.replace(old.requests, max_age_s=5.0),
    )

    current, applied, waiting = reloaded(old, new)

    assert applied == ["requests.max_age_s", "log.level"]
    assert waiting == ["server.port"]
    assert (current.server.port, current.log.level, current.requests.max_age_s) == (8081, "debug", 5.0)


def test_the_documents_list_every_key_with_its_variable_and_default():
    page = (ROOT / "docs" / "configuration.md").read_text()
    rows = {row.split("`")[1]: row for row in page.splitlines() if row.startswith("| `")}

    assert sorted(name for name in rows if "." in name) == sorted(key.name for key in keys())
    for key in keys():
        assert f"`{key.variables[0]}`" in rows[key.name], key.name
        assert ("yes" if key.reload else "no") == rows[key.name].rstrip(" |").rpartition("|")[2].strip(), key.name


def test_the_sample_file_lists_every_key_and_changes_nothing(written):
    sample = (ROOT / "systemd" / "config.yaml").read_text()
    every = "\n".join(line.removeprefix("#") if line.startswith("#  ") else line for line in sample.splitlines())

    nothing = load(None, {}, {}).config
    assert load(written(sample), {}, {}).config == nothing
    loaded = load(written(every), {}, {})
    assert loaded.config == nothing
    assert sorted(loaded.origins) == sorted(key.name for key in keys())
