"""The desktop's parts without an image: what shows the screen is closed without the port's token; programs are kept running."""

import asyncio
import os
import signal
import socket
import sys

import pytest
from agentainer_runtime.desktop import programs as parts
from agentainer_runtime.desktop.programs import Desktop, Program, programs
from agentainer_runtime.desktop.screen import Screen, make_screen
from agentainer_runtime.settings import InvalidSetting, Settings

TOKEN = "Authorization: Bearer secret\r\n"  # noqa: S105
UPGRADE = (
    "GET /websockify HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: binary\r\n"
)


def shown(place, talk, token="secret"):  # noqa: S107
    """Serve a screen whose VNC server answers in capitals, and return what `talk(port)` does."""

    async def vnc(reader, writer):
        while data := await reader.read(100):
            writer.write(data.upper())
        writer.close()

    async def main():
        (place / "pages").mkdir(exist_ok=True)
        (place / "pages/vnc.html").write_text("the page")
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        server = await asyncio.start_unix_server(vnc, place / "vnc")
        serving = asyncio.create_task(Screen.of(make_screen(token, place / "vnc", place / "pages")).run_with(listener))
        try:
            return await asyncio.wait_for(talk(port), 10)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            server.close()
            listener.close()
            await asyncio.sleep(0)

    return asyncio.run(main())


async def connect(port):
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.01)


async def ask(port, head):
    reader, writer = await connect(port)
    writer.write(f"{head}\r\n".encode())
    said = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return said


def test_who_shows_no_token_sees_nothing(tmp_path):
    for fields in ("", "Authorization: Bearer wrong\r\n", "Authorization: Bearer \r\n", TOKEN * 2):
        for head in ("GET /vnc.html HTTP/1.1\r\nHost: a\r\n", UPGRADE):
            said = shown(tmp_path, lambda port, text=head + fields: ask(port, text))
            assert said.startswith(b"HTTP/1.1 403 "), (fields, said)
    assert shown(tmp_path, lambda port: ask(port, f"GET / HTTP/1.1\r\nHost: a\r\n{TOKEN}"), token="").startswith(
        b"HTTP/1.1 403 "
    )


def test_who_shows_it_sees_the_page_connected(tmp_path):
    said = shown(tmp_path, lambda port: ask(port, f"GET / HTTP/1.1\r\nHost: a\r\n{TOKEN}"))
    assert b"location: vnc.html?autoconnect=true" in said.lower()
    assert shown(tmp_path, lambda port: ask(port, f"GET /vnc.html HTTP/1.1\r\nHost: a\r\n{TOKEN}")).startswith(
        b"HTTP/1.1 200 "
    )


def test_bytes_pass_between_the_socket_of_the_page_and_the_screen(tmp_path):
    async def talk(port):
        reader, writer = await connect(port)
        writer.write(f"{UPGRADE}{TOKEN}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x82\x83\0\0\0\0abc")
        frame = await reader.readexactly(5)
        writer.close()
        await writer.wait_closed()
        return head, frame

    head, frame = shown(tmp_path, talk)
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"sec-websocket-protocol: binary" in head.lower()
    assert frame == b"\x82\x03ABC"


def test_programs_are_started_again_and_end_with_the_desktop(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_PAUSE_S", 0.01)
    for name in ("_FOLDER", "_X_FOLDER"):
        monkeypatch.setattr(parts, name, tmp_path / name)
    said = tmp_path / "pids"
    line = f"import os, time; open({str(said)!r}, 'a').write(f'{{os.getpid()}} {{os.environ[\"DISPLAY\"]}}\\n'); time.sleep(60)"
    late = Program("late", (sys.executable, "-c", line), tmp_path / "display")
    missing = Program("missing", ("/none/there",))

    def pids():
        return [int(one.split()[0]) for one in said.read_text().splitlines()] if said.exists() else []

    async def until(condition):
        while not condition():
            await asyncio.sleep(0.01)

    async def main():
        task = asyncio.create_task(Desktop((late, missing), {}).run())
        await until((tmp_path / "_X_FOLDER").exists)
        assert not said.exists()
        (tmp_path / "display").touch()
        await until(lambda: len(pids()) == 1)
        os.kill(pids()[0], signal.SIGKILL)
        await until(lambda: len(pids()) == 2)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(asyncio.wait_for(main(), 20))
    assert said.read_text().endswith(" :1\n")
    with pytest.raises(ProcessLookupError):
        os.kill(pids()[1], 0)


def test_notebooks_have_the_ports_token_or_one_that_nobody_knows(tmp_path):
    def token(environment):
        (jupyter,) = [one for one in programs("1280x800", tmp_path, environment) if one.name == "jupyter"]
        assert not any("token" in word for word in jupyter.command)
        return jupyter.environment["JUPYTER_TOKEN"]

    assert token({"AGENT_PORT_JUPYTER_TOKEN": "known"}) == "known"
    assert len(token({})) > 40
    assert token({}) != token({})


def test_the_size_of_the_screen_is_checked():
    assert Settings.from_environment({}).screen == ""
    assert Settings.from_environment({"AGENT_SCREEN": "off"}).screen == ""
    assert Settings.from_environment({"AGENT_SCREEN": "1920x1080"}).screen == "1920x1080"
    for wrong in ("1280", "0x0", "1280x800x24", "big"):
        with pytest.raises(InvalidSetting, match="AGENT_SCREEN"):
            Settings.from_environment({"AGENT_SCREEN": wrong})
