"""A real Chromium looks at the desktop of a running job, and works in a notebook, through the proxy.

`make test-desktop` runs it: its image takes minutes to build. The screenshots stay in `.screenshots`, or $SCREENSHOTS.
"""

import base64
import json
import os
import subprocess
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fakes.docker import BASE_IMAGE
from tests.fakes.jobs import Jobs

ROOT = Path(__file__).parents[2]
IMAGE = os.environ.get("DESKTOP_IMAGE", "agentainer-desktop:test")
SHOTS = Path(os.environ.get("SCREENSHOTS", ROOT / ".screenshots"))
pytestmark = [
    pytest.mark.docker,
    pytest.mark.redis,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not os.environ.get("TEST_DESKTOP"), reason="make test-desktop: its image takes minutes to build"
    ),
]
WORK = "xsetroot -solid '#c8321e' && xterm -geometry 70x12+180+160 -T job -e 'echo this job is at work; sleep 300'"
TURNS = [{"text": json.dumps({"actions": [{"type": "shell_command", "description": "paint", "command": WORK}]})}]
COUNT_RED = """(() => {
  const canvas = document.querySelector('#noVNC_container canvas');
  if (!canvas || canvas.width < 1000) return 0;
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let red = 0;
  for (let i = 0; i < data.length; i += 4) if (data[i] === 200 && data[i + 1] === 50 && data[i + 2] === 30) red++;
  return red;
})()"""
COLOURS = """(() => {
  const canvas = document.querySelector('#noVNC_container canvas');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(new Uint32Array(data.buffer)).size;
})()"""
CELL = "import os, subprocess\\nprint('answer', 6 * 7, os.environ['DISPLAY'], os.getuid())"
ACCEPT = "document.querySelector('.jp-Dialog .jp-mod-accept')?.click()"
PRINTED = "document.querySelector('.jp-OutputArea-output pre')?.innerText"
IDLE = ".jp-Notebook-ExecutionIndicator[data-status=idle]"
NOTEBOOK = """fetch('/api/contents/probe.ipynb', {method: 'PUT', body: JSON.stringify({type: 'notebook', content: {
  cells: [{cell_type: 'code', source: "%s", metadata: {}, outputs: [], execution_count: null, id: 'one'}],
  metadata: {kernelspec: {name: 'python3', display_name: 'Python 3'}}, nbformat: 4, nbformat_minor: 5}})}).then(r => r.status)"""


@pytest.fixture(scope="session")
def desktop_image(docker_host, base_image):
    if "DESKTOP_IMAGE" not in os.environ:
        environment = {**os.environ, "BASE_IMAGE": BASE_IMAGE}
        subprocess.run([ROOT / "scripts/runtime-image", "--desktop", IMAGE], env=environment, check=True)
    return IMAGE


@pytest.fixture
def jobs(start_daemon, docker_sandbox, desktop_image):
    yield Jobs(start_daemon(sandbox=docker_sandbox), desktop_image)
    docker_sandbox.remove_containers()


def address(jobs, agent, port):
    status, said = jobs.daemon.control("POST", f"/agents/{agent}/ports/open?port={port}")
    assert status == 200, said
    return said["data"][0]["url"]


def run_cell(lab):
    """Run the first cell, and return what it printed; None where it did not within a moment."""
    lab.evaluate(ACCEPT)  # it may ask which kernel, where a notebook is opened before the list of kernels is there
    lab.evaluate("document.querySelector('.jp-Notebook .cm-content').focus()")
    lab.press("Enter", 13, shift=True)
    return lab.look(PRINTED, 5)


def test_a_person_watches_a_job_and_works_in_its_notebooks(jobs, docker_client, start_chromium, eventually):
    files = [{"name": "paint.json", "content": base64.b64encode(json.dumps(TURNS).encode()).decode()}]
    body = {"prompt": "paint", "image": IMAGE, "files": files, "model": "script/paint.json"}
    began = time.monotonic()
    job = jobs.must("POST", "", body)["id"]
    agent = eventually(lambda: jobs.must("GET", f"/{job}")["agent"], limit_s=60)
    browser = start_chromium()

    screen = browser.open(address(jobs, agent, "gui"))
    screen.wait(f"{COUNT_RED} > 300000", shot=SHOTS / "failed.png")
    print(f"the job's screen was seen {time.monotonic() - began:.1f} s after it was submitted")
    assert jobs.must("GET", f"/{job}")["status"] == "running"
    screen.wait(f"{COLOURS} > 5", shot=SHOTS / "failed.png")
    screen.shot(SHOTS / "job.png")
    assert "agentainer_token" not in screen.evaluate("location.href")
    assert screen.evaluate("document.cookie") == ""

    lab = browser.open(address(jobs, agent, "jupyter"))
    lab.wait("location.pathname.startsWith('/lab') && document.readyState === 'complete'")
    assert lab.evaluate(NOTEBOOK % CELL) in (200, 201)
    lab.go(f"http://{urlsplit(lab.evaluate('location.href')).netloc}/lab/tree/probe.ipynb")
    lab.wait(
        f"['.jp-Notebook .cm-content', '{IDLE}'].every(one => document.querySelector(one))", shot=SHOTS / "failed.png"
    )
    said = eventually(lambda: run_cell(lab), limit_s=60, what="the answer of the cell")
    assert said.strip() == "answer 42 :1 1000"
    lab.shot(SHOTS / "notebook.png")

    port = urlsplit(lab.evaluate("location.href")).port
    for url in (f"http://gui.{agent}.localhost:{port}/vnc.html", f"http://jupyter.{agent}.localhost:{port}/lab"):
        stranger = start_chromium().open(url)
        assert "asks for a token" in stranger.wait("document.body.innerText")
    (container,) = jobs.containers()
    used = docker_client.stats(container, stream=False)["memory_stats"]["usage"]
    print(f"{used / 1e6:.0f} MB with a screen that is watched, an xterm and a kernel")
    jobs.must("POST", f"/{job}/cancel")
    assert jobs.done(job)["status"] == "cancelled"
