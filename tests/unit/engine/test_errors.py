"""The engine's words to our errors. The texts are those of engine 20.10 and of newer ones, as they were seen."""

import pytest

from agentainerd.engine.errors import build_failed, from_answer, from_pull, trimmed
from agentainerd.errors import Conflict, Failed, InvalidParameter, NotFound, TooManyRequests, Unavailable

SHIM = (
    "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "
    'exec: "nosuch": executable file not found in $PATH: unknown'
)
LAYERS_OF_28 = (
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: error during container init: "
    'exec: "nosuch": executable file not found in $PATH: unknown'
)
C = "c" * 64


@pytest.mark.parametrize("text", [SHIM, LAYERS_OF_28])
def test_the_layers_that_passed_a_message_on_are_left_out(text):
    assert trimmed(text) == 'exec: "nosuch": executable file not found in $PATH'


@pytest.mark.parametrize(
    ("text", "exit_code"),
    [
        (SHIM, 127),
        ('OCI runtime create failed: runc create failed: exec: "/etc/passwd": permission denied: unknown', 126),
        ("unable to find user nosuch: no matching entries in passwd file", 128),
    ],
)
def test_a_start_that_failed_has_a_shells_exit_code(text, exit_code):
    error = from_answer(400, text, "start", "container", C)

    assert isinstance(error, Failed)
    assert (error.code, error.details["exit_code"]) == ("AGENT_START_FAILED", exit_code)


def test_a_volume_that_went_away_before_the_start_is_named():
    text = 'invalid mount config for type "bind": bind source path does not exist: /srv/gone'

    error = from_answer(400, text, "start", "container", C)

    assert error.code == "AGENT_START_FAILED"
    assert "'/srv/gone', which is one of its volumes, does not exist" in error.message


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "cpu_limit"),
        ("Minimum memory limit allowed is 6MB", "memory_limit"),
        ('invalid mount config for type "bind": bind source path does not exist: /x', "volumes"),
        ("invalid reference format: repository name must be lowercase", "image"),
        ("No command specified", "command"),
    ],
)
def test_a_refused_value_names_its_field(text, field):
    error = from_answer(400, text, "create", "container", "agentainer-a")

    assert isinstance(error, InvalidParameter)
    assert error.field == field


def test_a_taken_name_is_a_conflict_that_says_how_to_free_it():
    text = 'Conflict. The container name "/agentainer-a" is already in use by container "cc". You have to remove it.'

    error = from_answer(409, text, "create", "container", "agentainer-a")

    assert isinstance(error, Conflict)
    assert (error.code, error.hint) == ("CONTAINER_NAME_TAKEN", "docker rm agentainer-a")


def test_not_paused_is_a_conflict_although_the_engine_says_500():
    assert isinstance(from_answer(500, f"Container {C} is not paused", "resume", "container", C), Conflict)


@pytest.mark.parametrize("verb", ["start", "create", "build", "pull"])
def test_a_full_disk_is_told_apart(verb):
    text = "write /var/lib/docker/tmp/x: no space left on device"

    error = from_answer(500, text, verb, "image" if verb in ("build", "pull") else "container", "web")

    assert isinstance(error, Unavailable)
    assert (error.code, "docker system df" in error.hint) == ("NO_SPACE", True)


def test_what_is_not_known_keeps_the_engines_words():
    error = from_answer(500, "driver failed in a new way", "stop", "container", C)

    assert error.code == "ENGINE_FAILED"
    assert error.message == f"cannot stop container '{C[:12]}': driver failed in a new way"


@pytest.mark.parametrize(
    ("text", "kind", "code"),
    [
        (
            "pull access denied for nosuch, repository does not exist or may require 'docker login': denied: "
            "requested access to the resource is denied",
            NotFound,
            "IMAGE_NOT_FOUND",
        ),
        ("manifest for nginx:nosuch not found: manifest unknown: manifest unknown", NotFound, "IMAGE_NOT_FOUND"),
        ("Get https://r.example/v2/x/manifests/1: unauthorized: authentication required", NotFound, "IMAGE_NOT_FOUND"),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", NotFound, "IMAGE_NOT_FOUND"),
        (
            'Get "https://registry-1.docker.io/v2/": dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host',
            Unavailable,
            "REGISTRY_UNREACHABLE",
        ),
        (
            'Get "https://registry-1.docker.io/v2/": net/http: request canceled while waiting for connection '
            "(Client.Timeout exceeded while awaiting headers)",
            Unavailable,
            "REGISTRY_UNREACHABLE",
        ),
        (
            'Get "https://r.example/v2/": x509: certificate signed by unknown authority',
            Unavailable,
            "REGISTRY_UNREACHABLE",
        ),
        (
            'Get "https://10.1.1.1:5000/v2/": http: server gave HTTP response to HTTPS client',
            Unavailable,
            "REGISTRY_UNREACHABLE",
        ),
        ("failed to register layer: write /usr/lib/x: no space left on device", Unavailable, "NO_SPACE"),
        ("toomanyrequests: You have reached your pull rate limit.", TooManyRequests, "REGISTRY_RATE_LIMIT"),
        ("something new", Failed, "PULL_FAILED"),
    ],
)
def test_a_pull_that_failed_says_why(text, kind, code):
    error = from_pull("nginx:1", text)

    assert isinstance(error, kind)
    assert error.code == code
    assert "nginx:1" in error.message


def test_a_failed_build_has_its_step_and_lines():
    error = build_failed("The command '/bin/sh -c x' returned a non-zero code: 127", "Step 2/3 : RUN x", ["a", "b"])

    assert (
        error.message
        == "the build failed at Step 2/3 : RUN x: The command '/bin/sh -c x' returned a non-zero code: 127"
    )
    assert error.details == {"step": "Step 2/3 : RUN x", "lines": ["a", "b"]}
