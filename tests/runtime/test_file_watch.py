"""Changes of files that a client of the WebSocket watches: each is told once, however it came about, and until it is unwatched."""

import os
import time
from contextlib import suppress
from pathlib import Path

import pytest
from agentainer_runtime.file_watch import SETTLE_S

from tests.fakes.runtime import runtimes
from tests.fakes.websockets import WebSocketClient


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    with runtimes(tmp_path_factory.mktemp("watch")) as start:
        yield start([])


@pytest.fixture
def client(runtime):
    client = WebSocketClient(runtime.port)
    yield client
    client.close()


def watch(client, path):
    answer = client.ask(id=f"w-{path}", type="watchFile", payload={"path": path})
    assert answer["success"], answer
    return answer["data"]


def put(runtime, path, text):
    """Make or replace a file at once: nobody sees it with half of its content."""
    (runtime.folder / "aside").write_text(text)
    os.replace(runtime.folder / "aside", runtime.workspace / path)


def changes(client, count=1):
    told = [client.next_change() for _ in range(count)]
    assert all(change.pop("timestamp") > 1e12 for change in told)
    return sorted((change["operation"], change["path"]) for change in told)


def test_a_file_is_told_of_when_it_comes_changes_is_replaced_and_goes(client, runtime):
    file = runtime.workspace / "notes.txt"
    assert watch(client, "notes.txt") == {"watching": "notes.txt", "exists": False}

    put(runtime, file, "one")
    assert changes(client) == [("created", "notes.txt")]
    with open(file, "a") as opened:
        opened.write(" two")
        opened.flush()
        assert changes(client) == [("modified", "notes.txt")]
    put(runtime, file, "one two")
    assert changes(client) == [("modified", "notes.txt")]
    file.unlink()
    assert changes(client) == [("deleted", "notes.txt")]


def test_a_folder_is_told_of_with_what_is_in_it_also_when_it_goes_and_comes_back(client, runtime):
    deep = runtime.workspace / "a" / "b"
    assert not watch(client, "a/b")["exists"]

    deep.mkdir(parents=True)
    put(runtime, deep / "x", "x")
    assert changes(client) == [("created", "a/b/x")]
    os.rename(runtime.workspace / "a", runtime.workspace / "elsewhere")
    assert changes(client) == [("deleted", "a/b/x")]
    (runtime.workspace / "elsewhere/b/x").write_text("is not watched")
    deep.mkdir(parents=True)
    put(runtime, deep / "y", "y")
    put(runtime, deep / "z", "z")
    assert changes(client, 2) == [("created", "a/b/y"), ("created", "a/b/z")]


def test_a_change_is_told_to_the_client_that_watches_with_the_id_of_its_request(client, runtime):
    other = WebSocketClient(runtime.port)
    watch(client, "mine.txt")

    put(runtime, "mine.txt", "x")

    told = client.receive()
    assert (told["id"], told["type"]) == ("w-mine.txt", "fileChanged")
    assert other.ask(type="ping")["type"] == "pong"
    assert other.pushed == []
    other.close()


def test_what_is_unwatched_is_told_no_more_and_the_rest_still_is(client, runtime):
    watch(client, "kept")
    watch(client, "left")

    gone = client.ask(id=2, type="unwatchFile", payload={"path": "left"})
    again = client.ask(id=3, type="unwatchFile", payload={"path": "left"})
    put(runtime, "left", "x")
    put(runtime, "kept", "x")

    assert (gone["data"]["wasWatched"], again["data"]["wasWatched"]) == (True, False)
    assert changes(client) == [("created", "kept")]


def test_a_client_that_leaves_is_watched_for_no_more(client, runtime, eventually):
    def held():
        """How many notices of the kernel the runtime has."""
        links = []
        for each in Path(f"/proc/{runtime.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                links.append(os.readlink(each))
        return links.count("anon_inode:inotify")

    watch(client, "notes.txt")
    eventually(lambda: held() == 1)  # those of earlier tests are gone soon

    client.close()

    eventually(lambda: held() == 0)


def test_what_can_not_be_watched_is_said(client, runtime):
    refused = [
        client.ask(id=1, type="watchFile", payload=payload)
        for payload in ({}, {"path": 1}, {"path": "../x"}, {"path": "/etc/passwd"}, {"path": ".agentainer/runs"})
    ]
    for number in range(64):
        watch(client, f"many-{number}")
    refused.append(client.ask(id=1, type="watchFile", payload={"path": "one more"}))

    assert [answer["success"] for answer in refused] == [False] * 6
    assert "64 paths are watched" in refused[-1]["error"]
    assert "outside" in refused[2]["error"]


def test_many_writes_at_once_are_few_changes(client, runtime):
    watch(client, "busy")
    file = runtime.workspace / "busy"
    began = time.monotonic()

    for number in range(300):
        file.write_text(str(number))

    assert watch(client, "end")["exists"] is False
    put(runtime, "end", "x")
    told = []
    while ("created", "end") not in told:
        told += changes(client)
    assert told[0] == ("created", "busy")
    assert len(told) <= (time.monotonic() - began) / SETTLE_S + 3
