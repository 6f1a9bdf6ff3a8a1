"""The page of the API: what it shows is in openapi.yaml, all of it, and it loads nothing else."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from agentainerd.api.access import Door

API = Path(__file__).parents[3] / "agentainerd/api"
METHODS = ("get", "post", "put", "patch", "delete")


@pytest.fixture
def gateway(world):
    return world.client(Door.GATEWAY)


def script_of(page: str) -> str:
    return re.search("<script>(.*?)</script>", page, re.DOTALL)[1]


def test_the_specification_is_the_file_and_for_everybody(gateway):
    answer = gateway.get("/openapi.yaml", headers={"Host": "localhost"})

    assert answer.status_code == 200
    assert answer.content_type == "application/yaml; charset=utf-8"
    assert answer.get_data() == (API / "openapi.yaml").read_bytes()


def test_the_page_loads_nothing_from_elsewhere_and_runs_its_own_script_only(gateway):
    answer = gateway.get("/docs", headers={"Host": "localhost"})
    page, policy = answer.get_data(as_text=True), answer.headers["Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(script_of(page).encode()).digest()).decode()

    assert answer.content_type == "text/html; charset=utf-8"
    assert not re.findall(r"https?://|<link|<img|<script .|@import|url\(", page)
    assert f"script-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "not Swagger UI: no SwaggerUIBundle" in page  # what later tests of AgentOS look for, and what is true


@pytest.mark.skipif(not shutil.which("node"), reason="no JavaScript to run the page's script with")
def test_the_page_finds_every_operation_and_component():
    script = script_of((API / "documentation.html").read_text())
    program = (
        f"{script}\nconst text = require('fs').readFileSync(0, 'utf8');"
        "console.log(JSON.stringify({operations: operations(text), components: components(text)}));"
    )
    text = (API / "openapi.yaml").read_text()
    done = subprocess.run(["node", "-e", program], input=text, capture_output=True, text=True, timeout=30, check=True)
    found, document = json.loads(done.stdout), yaml.safe_load(text)

    def plain(value: str) -> str:
        return re.sub(r"\s+", " ", value).strip()

    assert {(one["method"], one["path"]): (one["tag"], one["summary"], one["description"]) for one in found["operations"]} == {
        (method.upper(), path): (item[method]["tags"][0], plain(item[method]["summary"]), plain(item[method].get("description", "")))
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }  # fmt: skip
    assert {one["id"] for one in found["components"]} == {
        f"{kind}/{name}" for kind, entries in document["components"].items() for name in entries
    }
