"""A real headless Chromium, driven by its own protocol over a pipe.

start_chromium()   returns a `Browser`; `page = browser.open(url)` is a new tab: page.evaluate(js), page.press(key), page.shot(path)
"""

import base64
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

LIMIT_S = 60.0
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--remote-debugging-pipe", "--window-size=1320,900",
)  # fmt: skip


class Browser:
    """One process. Messages are JSON, each with a NUL behind it: ours on its descriptor 3, its own on 4."""

    def __init__(self, folder: Path) -> None:
        ours, to_us = os.pipe()
        to_it, it_writes = os.pipe()
        command = ["bash", "-c", 'exec "$0" "$@" 3<&"$IN" 4>&"$OUT"', "chromium", *FLAGS, f"--user-data-dir={folder}"]
        environment = {**os.environ, "IN": str(ours), "OUT": str(it_writes), "HOME": str(folder)}
        with (folder / "chromium.log").open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, pass_fds=(ours, it_writes), stdout=log, stderr=log, start_new_session=True
            )
        os.close(ours)
        os.close(it_writes)
        self._write, self._read = to_us, to_it
        self._buffer = b""
        self._number = 0
        self.interrupted: set[str] = set()
        """Sessions of pages that Chromium broke off: it does so when an interface of this machine comes or goes, as with
        every container."""

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Return the result of a command; of events that come meanwhile only that pages were broken off is kept."""
        self._number += 1
        message = {
            "id": self._number,
            "method": method,
            "params": parameters,
            **({"sessionId": session} if session else {}),
        }
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + LIMIT_S
        while (said := self._next(end)).get("id") != self._number:
            if (said.get("params") or {}).get("errorText") == "net::ERR_NETWORK_CHANGED":
                self.interrupted.add(said["sessionId"])
        assert "error" not in said, (method, said["error"])
        return dict(said["result"])

    def open(self, url: str) -> "Page":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Network.enable", session)
        page = Page(self, session)
        page.go(url)
        return page

    def close(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._write)
        os.close(self._read)

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            left_s = end - time.monotonic()
            ready = left_s > 0 and select.select([self._read], [], [], left_s)[0]
            data = os.read(self._read, 1 << 20) if ready else b""
            if not data:
                pytest.fail("chromium gave no answer")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(line))


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def go(self, url: str) -> None:
        self._browser.call("Page.navigate", self._session, url=url)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression, or of what it promises; None where it fails, as on a page that is not there yet."""
        said = self._browser.call(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True, awaitPromise=True
        )
        return None if "exceptionDetails" in said else said["result"].get("value")

    def look(self, expression: str, limit_s: float = LIMIT_S) -> Any:
        """Return the value once it is true, or what it is when the time is over."""
        end = time.monotonic() + limit_s
        while not (found := self.evaluate(expression)) and time.monotonic() < end:
            if self._session in self._browser.interrupted:
                self._browser.interrupted.discard(self._session)
                self._browser.call("Page.reload", self._session)
            time.sleep(0.1)
        return found

    def wait(self, expression: str, limit_s: float = LIMIT_S, shot: Path | None = None) -> Any:
        """Return the value once it is true; else fail the test, and keep what is seen in `shot`."""
        found = self.look(expression, limit_s)
        if not found:
            if shot is not None:
                self.shot(shot)
            pytest.fail(
                f"not within {limit_s:g} s: {expression}\n{self.evaluate('document.body.innerText.slice(0, 2000)')}"
            )
        return found

    def press(self, key: str, code: int, *, shift: bool = False) -> None:
        """Press a key and let it go."""
        for kind in ("keyDown", "keyUp"):
            self._browser.call(
                "Input.dispatchKeyEvent", self._session, type=kind, key=key, code=key, windowsVirtualKeyCode=code,
                modifiers=8 if shift else 0, **({"text": "\r"} if key == "Enter" and kind == "keyDown" else {}),
            )  # fmt: skip

    def shot(self, path: Path) -> None:
        """Keep what is seen as a PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        said = self._browser.call("Page.captureScreenshot", self._session, format="png")
        path.write_bytes(base64.b64decode(said["data"]))


@pytest.fixture
def start_chromium(tmp_path: Path) -> Iterator[Callable[[], Browser]]:
    started: list[Browser] = []

    def start() -> Browser:
        if shutil.which("chromium") is None:
            pytest.fail("this test needs chromium: scripts/setup desktop")
        folder = tmp_path / f"chromium-{len(started)}"
        folder.mkdir()
        started.append(Browser(folder))
        return started[-1]

    yield start
    for browser in started:
        browser.close()
