"""Files that describe deployments: what they mean, and every mistake at its place."""

import os

import pytest

from agentainerctl.manifest import load
from agentainerd.errors import InvalidParameter

HEAD = "apiVersion: v1\nkind: AgentDeployment\nmetadata: {name: shop}\nspec:\n  agents:\n"
ENV = {"MODEL": "large", "EMPTY": "", "EVIL": "x\n    - name: injected"}


def agents(text, path="agents.yaml"):
    return list(load(path, HEAD + text, ENV).agents())


def agent(text, path="agents.yaml"):
    """The agent that has these lines beside its name and image."""
    [found] = agents(
        "    - name: web\n      image: nginx\n" + "".join(f"      {line}\n" for line in text.splitlines()), path
    )
    return found


def mistakes(text, path="agents.yaml"):
    with pytest.raises(InvalidParameter) as failure:
        load(path, text, ENV)
    assert failure.value.code == "INVALID_MANIFEST"
    return failure.value.message.splitlines(), failure.value.hint


def wrong(text):
    """The mistakes of an agent that has these lines, which begin in line 8, column 7."""
    lines = "".join(f"      {line}\n" for line in text.splitlines())
    found, hint = mistakes(HEAD + "    - name: web\n      image: nginx\n" + lines)
    return [line.removeprefix("agents.yaml:") for line in found], hint


def test_the_schema_of_the_original_is_taken():
    found = agent(
        "replicas: 2\nenv: {A: b, PORT: 3000}\nresources: {memory: 256M, cpu: 0.5}\nautoRestart: true\ntoken: a-long-token\n"
        "volumes:\n  - {host: /srv/web, container: /www, readOnly: true}\n"
        "healthCheck: {endpoint: /, interval: 30s, timeout: 5s, retries: 3}\n"
        "persistence: {enabled: false, retryPolicy: safe}\ndependencies: [db]"
    )

    assert found == {
        "name": "web",
        "image": "nginx",
        "replicas": 2,
        "env_vars": {"A": "b", "PORT": "3000"},
        "memory_limit": 256_000_000,
        "cpu_limit": 500_000_000,
        "auto_restart": True,
        "token": "a-long-token",
        "volumes": [{"host_path": "/srv/web", "container_path": "/www", "read_only": True}],
        "health_check": {"endpoint": "/", "interval": "30s", "timeout": "5s", "retries": 3},
        "persistence": False,
        "replay_policy": "safe",
        "dependencies": ["db"],
    }


def test_our_own_keys_are_taken():
    found = agent(
        "command: [python, -m, agent]\nsecrets: [A]\nenv: {A: b, LIST: [x, y]}\nlabels: {team: a}\nport: 3000\nidleTimeout: 15m\n"
        "updateStrategy: recreate\nholdTimeout: 5s\nrequestTimeout: 2m\nstopGrace: 30\nnetworkEgress: false\n"
        "services: {redis: true}\n"
        "persistence: {concurrency: 2, ordered: true, maxPending: 5, maxPendingSize: 1Mi}\n"
        'healthCheck: {command: "test -f /ok", startPeriod: 10s}'
    )

    assert {key: found[key] for key in found if key not in ("name", "image")} == {
        "command": ["python", "-m", "agent"],
        "secrets": ["A"],
        "env_vars": {"A": "b", "LIST": "x,y"},
        "labels": {"team": "a"},
        "port": 3000,
        "idle_timeout_s": 900,
        "hold_timeout_s": 5,
        "request_timeout_s": 120,
        "stop_grace_s": 30,
        "network_egress": False,
        "update_strategy": "recreate",
        "services": {"redis": True},
        "replay_concurrency": 2,
        "ordered": True,
        "max_pending": 5,
        "max_pending_bytes": 1048576,
        "health_check": {"command": ["test", "-f", "/ok"], "start_period": "10s"},
    }


@pytest.mark.parametrize(
    ("written", "meant"),
    [("NO", "NO"), ("1:30", "1:30"), ("0777", "0777"), ("1.10", "1.10"), ("1e3", "1e3"), ("2026-11-21", "2026-11-21"),
     ("yes", "yes"), ("'~'", "~"), ('""', ""), ('"a: b"', "a: b"), ("0x1F", "0x1F"), ("+1", "+1")],
)  # fmt: skip
def test_a_value_is_what_was_written(written, meant):
    assert agent(f"env: {{A: {written}}}")["env_vars"] == {"A": meant}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MB", 512_000_000),
        ("512M", 512_000_000),
        ("512Mi", 2**29),
        ("1Gi", 2**30),
        ("1g", 10**9),
        ("512000000", 512_000_000),
    ],
)
def test_units_of_memory(text, size):
    assert agent(f"resources: {{memory: {text}}}")["memory_limit"] == size


@pytest.mark.parametrize(("text", "nano"), [("0.5", 5 * 10**8), ("500m", 5 * 10**8), ("2", 2 * 10**9), ("'1'", 10**9)])
def test_units_of_cpu(text, nano):
    assert agent(f"resources: {{cpu: {text}}}")["cpu_limit"] == nano


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("${MODEL}", "large"),
        ("a-${MODEL}-${NOPE:-b}", "a-large-b"),
        ("${EMPTY}", ""),
        ("${EMPTY:-x y}", "x y"),
        ("${NOPE:-}", ""),
        ("'${MODEL}'", "large"),
        ("$MODEL $1 5$ a$", "$MODEL $1 5$ a$"),
        ("$${MODEL} $$", "${MODEL} $$"),
        ('"${EVIL}"', "x\n    - name: injected"),
        ("${EVIL}", "x\n    - name: injected"),
    ],
)
def test_variables_are_expanded_in_values(written, meant):
    assert agent(f"env:\n  A: {written}")["env_vars"] == {"A": meant}


def test_variables_are_not_expanded_in_keys():
    assert agent("env: {'${MODEL}': x}")["env_vars"] == {"${MODEL}": "x"}


def test_variables_stand_for_numbers_too(monkeypatch):
    assert agent("replicas: ${N:-3}\nautoRestart: ${R:-true}")["replicas"] == 3


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("env: {A: '${NOPE}'}", "8:16: NOPE is not set", "export NOPE=..., or write ${NOPE:-default}"),
        ("env: {A: '${1x}'}", "8:16: '${1x}' is not a variable", "write ${NAME} or ${NAME:-default}; $${ is a plain ${"),
        ("env: {A: '${MODEL'}", "8:16: '${MODEL' is not a variable", "write ${NAME} or ${NAME:-default}; $${ is a plain ${"),
        ("memory: 5", "8:7: unknown key 'memory' in agent; did you mean 'resources.memory'?", None),
        ("resources: {memroy: 5}", "8:19: unknown key 'memroy' in resources; did you mean 'memory'?", None),
        ("auto_restart: true", "8:7: unknown key 'auto_restart' in agent; did you mean 'autoRestart'?", None),
        ("depends_on: [a]", "8:7: unknown key 'depends_on' in agent; did you mean 'dependencies'?", None),
        ("healthCheck: {mode: x}", "8:21: unknown key 'mode' in healthCheck; known: endpoint, command, interval, timeout, "
         "retries, startPeriod", None),
        ("env: {A: 1, A: 2}", "8:19: the key 'A' is there twice; the first one is in line 8", None),
        ("env: {A: }", "8:16: env: A has no value", 'an empty text is ""'),
        ("env: {A: {B: c}}", "8:16: env: A has to be a text", None),
        ("env: [A=1]", "8:12: env: has to be a map of NAME: value", None),
        ("autoRestart: yes", "8:20: autoRestart: 'yes' is neither true nor false", "write true or false"),
        ("replicas: -1", "8:17: replicas: replicas cannot be negative", None),
        ("replicas: 1.5", "8:17: replicas: '1.5' is not a whole number", None),
        ("replicas: 1:30", "8:17: replicas: '1:30' is not a whole number", None),
        ("resources: {memory: 12 MBB}", "8:27: memory: '12 MBB' is not a size", "write it as 512M, 1.5G, 512Mi or in bytes"),
        ("resources: {cpu: 2cores}", "8:24: cpu: '2cores' is not a number of cores", "write it as 0.5, 2 or 500m"),
        ("resources: {cpu: -500m}", "8:24: cpu: '-500m' is not a number of cores", "write it as 0.5, 2 or 500m"),
        ("healthCheck: {interval: soon}", "8:31: interval: 'soon' is not a duration", "write it as 30s, 1m30s, 500ms, 24h or 7d"),
        ("volumes: [{host: ./a, container: /a, mode: rx}]", "8:50: mode: 'rx' is neither ro nor rw", None),
        ("volumes: [{host: ./a, container: /a, mode: ro, readOnly: false}]", "8:50: mode and readOnly say different things", None),
        ("volumes: [{host: ./a}]", "8:17: volumes.container is required", None),
        ("env: !!python/object:os.system {A: b}", "8:12: has the tag 'tag:yaml.org,2002:python/object:os.system'; tags are not taken", None),
        ("dockerfile: ./x", "8:19: image and dockerfile: give one of them", None),
        ("buildArgs: {A: b}", "8:18: buildArgs needs a Dockerfile", None),
        ("command: \"a 'b\"", "8:16: command: \"a 'b\" cannot be split into words: No closing quotation", None),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text, place, hint):
    assert wrong(text) == ([place], hint)


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file():
    found, hint = wrong("memroy: 1\nautoRestart: yes\nenv: {A: '${NOPE}'}")

    assert [line.partition(": ")[0] for line in found] == ["8:7", "9:20", "10:16"]
    assert found[2].endswith("NOPE is not set (export NOPE=..., or write ${NOPE:-default})")
    assert hint is None


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("", "agents.yaml: is empty"),
        ("# nothing\n---\n", "agents.yaml: is empty"),
        ("a: [", "agents.yaml:2:1: did not find expected node content"),
        ("a:\n\tb: c", "agents.yaml:2:1: found character that cannot start any token"),
        ("a: b: c", "agents.yaml:1:5: mapping values are not allowed in this context"),
        ("- a", "agents.yaml:1:1: a deployment has to be a map of apiVersion, kind, metadata, spec"),
        (HEAD, "agents.yaml:5:10: spec.agents is required"),
        (HEAD.replace("v1", "v2") + "    - {name: a, image: b}", "agents.yaml:1:13: apiVersion must be 'v1', got 'v2'"),
        (HEAD.replace("AgentDeployment", "Pod") + "    - {name: a, image: b}", "agents.yaml:2:7: kind must be 'AgentDeployment', got 'Pod'"),
        (HEAD.replace("name: shop", "nme: shop") + "    - {name: a, image: b}", "agents.yaml:3:11: metadata.name is required"),
        (HEAD + "    - {name: a}", "agents.yaml:6:7: image is required, or dockerfile"),
        (HEAD + "    - {image: b}", "agents.yaml:6:7: agent.name is required"),
        (HEAD + "    - {name: a, image: b}\n    - {name: a, image: b}", "agents.yaml:7:14: duplicate agent name: a; the first one is in line 6"),
        (HEAD + "    - &a {name: a, image: b, env: *a}", "agents.yaml:6:7: contains itself"),
    ],
)  # fmt: skip
def test_a_file_that_is_none_is_told(text, first):
    assert mistakes(text)[0][0].startswith(first)


def test_aliases_that_multiply_are_stopped():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    assert "more than 200000 values" in mistakes("\n".join(lines))[0][0]


def test_anchors_and_merges_work():
    found = agents(
        "    - &one\n      name: one\n      image: nginx\n      resources: &small {memory: 64Mi, cpu: 1}\n"
        "    - <<: *one\n      name: two\n      resources: {<<: *small, cpu: 2}\n"
    )

    assert found[1] == {"name": "two", "image": "nginx", "memory_limit": 2**26, "cpu_limit": 2 * 10**9}


def test_several_documents_are_several_deployments():
    text = HEAD + "    - {name: a, image: b}\n---\n" + HEAD.replace("shop", "bank") + "    - {name: c, image: d}\n"

    assert [one["name"] for one in load("f", text, ENV).deployments] == ["shop", "bank"]


def test_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent/Dockerfile").write_text("FROM scratch\n")
    path = str(tmp_path / "agents.yaml")

    found = agent("volumes: ['./data:/data:ro', {host: ../up, container: /up}, 'named:/x', '~/own:/own']", path)

    assert [volume["host_path"] for volume in found["volumes"]] == [
        f"{tmp_path}/data", f"{tmp_path.parent}/up", "named", os.path.expanduser("~/own"),
    ]  # fmt: skip
    for written in ("image: ./agent/Dockerfile", "image: ./agent", "dockerfile: agent", "dockerfile: agent/Dockerfile"):
        manifest = load(path, HEAD + f"    - name: web\n      {written}\n      buildArgs: {{A: b}}\n", ENV)
        assert manifest.builds == {"web": (f"{tmp_path}/agent/Dockerfile", {"A": "b"})}
    assert mistakes(HEAD + "    - {name: a, dockerfile: nowhere}", path)[0][0].startswith(
        f"{path}:6:29: no such Dockerfile: {tmp_path}/nowhere"
    )
