"""A daemon of today starts on what an older version left behind, killed while it worked, and keeps what that had promised.

tests/states has one archive a version, made by tests/states/make.py with the code of that version.
"""

import hashlib
import json
import re
import tarfile
from functools import partial
from pathlib import Path

import pytest

from tests.fakes.docker import build_image, only_user_of
from tests.states.make import FOR_GOOD_S, STATE_IMAGE

pytestmark = [pytest.mark.docker, pytest.mark.redis]
STATES = Path(__file__).parents[1] / "states"
UNEXPIRED = f"""
from agentainerd import defaults
defaults.RESPONSE_TTL_S = defaults.FAILED_TTL_S = {FOR_GOOD_S}
"""
"""The records of an archive are as old as it is."""
IMAGE_ID = re.compile(rb"sha256:[0-9a-f]{64}")
"""In the journal: the state's image, as the machine that made the archive had it."""


@pytest.fixture
def state_image(docker_host, base_image):
    with only_user_of(STATE_IMAGE), build_image(docker_host, base_image, STATE_IMAGE) as tag:
        yield tag


@pytest.fixture
def upgrade(start_daemon, docker_sandbox, docker_client, state_image, tmp_path):
    """Start today's daemon on the archive of a version; return it, and what the older one had promised."""
    image_id = docker_client.inspect_image(state_image)["Id"].encode()

    def start(version: str):
        (tmp_path / "daemon-0").mkdir()
        with tarfile.open(STATES / f"{version}.tar.gz") as archive:
            archive.extractall(tmp_path / "daemon-0", filter="data")
        for path in (tmp_path / "daemon-0/state/journal").rglob("*.incr.aof"):
            path.write_bytes(IMAGE_ID.sub(image_id, path.read_bytes()))
        (tmp_path / "sitecustomize.py").write_text(UNEXPIRED)
        daemon = start_daemon(sandbox=docker_sandbox, environment={"PYTHONPATH": str(tmp_path)})
        return daemon, json.loads((tmp_path / "daemon-0/promised.json").read_text())

    yield start
    docker_sandbox.remove_containers()


def versions() -> list[str]:
    return sorted(path.name.removesuffix(".tar.gz") for path in STATES.glob("*.tar.gz"))


def requests_of(daemon, agent: str) -> dict[str, dict]:
    status, said = daemon.control("GET", f"/agents/{agent}/requests?limit=100")
    assert status == 200, said
    return {one["id"]: one for one in said["data"]["requests"]}


def response_of(location: str) -> str:
    path, _, ticket = location.partition("?")
    return f"{path}/response?{ticket}"


@pytest.mark.parametrize("version", versions())
def test_what_an_older_version_promised_is_kept(version, upgrade, eventually):
    daemon, promised = upgrade(version)

    agents = {one["name"]: one for one in daemon.control("GET", "/agents")[1]["data"]}
    assert {name: one["id"] for name, one in agents.items()} == promised["agents"]
    keeper = daemon.control("GET", "/agents/keeper")[1]["data"]
    assert (keeper["env_vars"], keeper["auto_restart"], keeper["memory_limit"], keeper["labels"]) == (
        {"API_KEY": "***", "MODE": "kept"}, True, 134217728, {"made-by": "an older version"},
    )  # fmt: skip
    found = requests_of(daemon, "keeper")
    assert [found[one["id"]]["status"] for one in promised["pending"]] == ["pending"] * len(promised["pending"])
    assert (found[promised["cancelled"]]["status"], found[promised["cancelled"]]["reason"]) == ("failed", "cancelled")
    cut_off = requests_of(daemon, "worker")[promised["cut_off"]]
    assert (cut_off["status"], cut_off["reason"]) == ("failed", "interrupted")
    assert daemon.http("GET", response_of(promised["answered"]))[:2] == (200, {"raw": promised["answer"]})
    token = {"Authorization": f"Bearer {daemon.token}"}
    assert daemon.http("GET", "/agents", headers=token)[0] == 200

    status, said = daemon.control("POST", "/agents/keeper/resume?wait=30")
    assert status == 200, said

    for one in promised["pending"]:
        ask = partial(daemon.http, "GET", response_of(one["location"]))
        eventually(lambda ask=ask: ask()[0] == 200, limit_s=30, what=one["path"])
        echoed = ask()[1]
        assert (echoed["method"], echoed["target"]) == (one["method"], one["path"])
        assert hashlib.sha256(echoed["body"].encode()).hexdigest() == one["sha256"]
    assert daemon.stop() == 0


@pytest.mark.parametrize("version", versions())
def test_an_upgrade_that_is_killed_is_done_by_the_next_start(version, upgrade, start_daemon):
    daemon, promised = upgrade(version)
    daemon.kill()

    again = start_daemon(like=daemon, environment={"PYTHONPATH": str(daemon.folder.parent)}, engine=False)

    found = requests_of(again, "keeper")
    assert all(found[one["id"]]["status"] == "pending" for one in promised["pending"])
