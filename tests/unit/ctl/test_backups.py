"""`backup` on the command line."""

import json
import os
import re
import stat

from tests.unit.ctl import cli_reference
from tests.unit.ctl.fake_api import send
from tests.unit.ctl.test_docs import parse

BACKUP = {
    "id": "backup-1763712345-3fa91c",
    "name": "daily",
    "description": "each night",
    "created_at": "2025-11-21T08:05:45.000Z",
    "version": "0.2.0",
    "host": "alpha",
    "size": 123_456,
    "agents": [
        {
            "id": "agent-0000000000000001", "name": "web", "image": "web:1", "status": "running", "secrets": [],
            "volumes": [{"host_path": "/srv/data", "container_path": "/data", "read_only": False}],
        }
    ],
    "volumes": [{"source": "/srv/data", "named": False}],
    "files": 3, "data_bytes": 1_000_000, "requests": 0, "secrets": "none", "paused": False, "omitted": 0,
    "sha256": "0" * 64, "omissions": [],
}  # fmt: skip
OMITTED = {
    **BACKUP,
    "omitted": 1,
    "omissions": [{"where": "/srv/data", "path": "pipe", "reason": "a pipe is not kept"}],
}


def test_create_says_what_was_made(api, run):
    api.on_lines(
        "POST",
        "/backups",
        {"progress": {"step": "/srv/data", "entries": 1, "bytes": 5, "total": 0}},
        {"result": BACKUP},
    )

    ran = run("backup", "create", "--name", "daily", "--agents", "web,worker", "-a", "x", "--pause")

    assert ran.code == 0
    assert ran.out.splitlines()[0] == "Backup created successfully!"
    assert "backup-1763712345-3fa91c" in ran.out and "web" in ran.out and "123 kB" in ran.out
    assert api.asked[0].json == {
        "name": "daily",
        "description": "",
        "agents": ["web", "worker", "x"],
        "pause": True,
        "passphrase": "",
        "include_requests": False,
    }


def test_what_is_not_in_it_is_told_and_is_exit_8(api, run):
    api.on_lines("POST", "/backups", {"result": OMITTED})

    ran = run("backup", "create", "--name", "daily")

    assert ran.code == 8
    assert "/srv/data pipe: a pipe is not kept" in ran.err


def test_create_quiet_and_as_json(api, run):
    api.on_lines("POST", "/backups", {"result": BACKUP})

    assert run("backup", "create", "--name", "daily", "-q").out == "backup-1763712345-3fa91c\n"
    assert json.loads(run("backup", "create", "--name", "daily", "-o", "json").out) == BACKUP


def test_an_error_in_the_middle_is_an_error(api, run):
    api.on_lines("POST", "/backups", {"error": {"code": "NO_SPACE", "message": "the disk is full"}})

    ran = run("backup", "create", "--name", "daily")

    assert (ran.code, ran.out) == (1, "")
    assert "the disk is full" in ran.err


def test_list(api, run):
    api.on("GET", "/backups", [BACKUP])

    shown = run("backup", "list").out.splitlines()

    assert shown[0].split() == ["ID", "NAME", "AGENTS", "SIZE", "CREATED"]
    assert shown[1].startswith("backup-1763712345-3fa91c   daily   web      123 kB")
    assert run("backup", "list", "-q").out == "backup-1763712345-3fa91c\n"


def test_an_empty_list_says_so(api, run):
    api.on("GET", "/backups", [])

    assert run("backup", "list").out == "No backups\n"


def test_show(api, run):
    api.on("GET", "/backups/daily", OMITTED)

    shown = run("backup", "show", "daily").out

    assert "each night" in shown and "/srv/data -> /data" in shown and "a pipe is not kept" in shown


def test_verify(api, run):
    api.on_lines("POST", "/backups/daily/verify", {"result": BACKUP})

    assert run("backup", "verify", "daily").out == "Backup backup-1763712345-3fa91c is whole: 3 files, 1 MB\n"


def test_damage_is_exit_1(api, run):
    api.on_lines(
        "POST", "/backups/daily/verify", {"error": {"code": "BACKUP_DAMAGED", "message": "the backup is damaged"}}
    )

    assert run("backup", "verify", "daily").code == 1


RESTORED = {
    "id": BACKUP["id"], "name": "daily",
    "agents": [{"name": "web-restored", "id": "agent-0000000000000002", "from": "web", "is_new": True}],
    "volumes": [{"source": "/srv/data", "destination": "/srv/data-restored-ab12cd", "is_new": True}],
    "omitted": 0, "omissions": [],
}  # fmt: skip


def test_restore_says_what_is_where(api, run):
    api.on("GET", "/backups/daily", BACKUP)
    api.on_lines("POST", "/backups/daily/restore", {"result": RESTORED})

    ran = run("backup", "restore", "daily", "--agents", "web")

    assert ran == (
        0,
        "Backup backup-1763712345-3fa91c restored successfully!\n"
        "Agent web-restored (from web): agent-0000000000000002\n"
        "Volume /srv/data-restored-ab12cd (from /srv/data)\n",
        "",
    )
    assert api.asked[-1].json == {"agents": ["web"], "in_place": False, "passphrase": ""}


def test_restore_in_place(api, run):
    agent = {"name": "web", "id": "agent-0000000000000001", "from": "web", "is_new": False}
    api.on("GET", "/backups/daily", BACKUP)
    volume = {"source": "/srv/data", "destination": "/srv/data", "is_new": False}
    api.on_lines("POST", "/backups/daily/restore", {"result": {**RESTORED, "agents": [agent], "volumes": [volume]}})

    shown = run("backup", "restore", "--in-place", "daily").out

    assert "Agent web: agent-0000000000000001, in place\n" in shown
    assert "Volume /srv/data: replaced\n" in shown
    assert api.asked[-1].json == {"agents": [], "in_place": True, "passphrase": ""}


def test_what_was_not_restored_is_exit_8(api, run):
    api.on("GET", "/backups/daily", BACKUP)
    omission = {"where": "web", "path": ".", "reason": "the value of API_KEY is not in the backup"}
    api.on_lines("POST", "/backups/daily/restore", {"result": {**RESTORED, "omitted": 1, "omissions": [omission]}})

    ran = run("backup", "restore", "daily")

    assert ran.code == 8
    assert "web: the value of API_KEY is not in the backup" in ran.err


def test_a_passphrase_comes_from_a_file_or_the_environment(api, run, tmp_path):
    api.on_lines("POST", "/backups", {"result": BACKUP})
    (tmp_path / "secret.txt").write_text("correct horse battery\nmore\n")

    run("backup", "create", "--name", "a", "--secrets", "--passphrase-file", "secret.txt")
    run("backup", "create", "--name", "a", "--include-requests", env={"AGENTAINER_BACKUP_PASSPHRASE": "from the air"})

    assert [asked.json["passphrase"] for asked in api.asked] == ["correct horse battery", "from the air"]
    assert [asked.json["include_requests"] for asked in api.asked] == [False, True]


def test_secrets_without_a_passphrase_are_wrong_usage(api, run, tmp_path):
    (tmp_path / "empty").write_text("\n")

    assert run("backup", "create", "--name", "a", "--secrets").code == 2
    assert run("backup", "create", "--name", "a", "--secrets", "--passphrase-file", "empty").code == 2
    assert not api.asked


def test_restore_asks_for_a_passphrase_only_where_there_are_secrets(api, run, tmp_path):
    (tmp_path / "secret.txt").write_text("correct horse battery")
    api.on("GET", "/backups/daily", {**BACKUP, "secrets": "encrypted"})
    api.on("GET", "/backups/plain", BACKUP)
    api.on_lines("POST", "/backups/daily/restore", {"result": {**RESTORED, "requests": 3}})

    assert "Requests pending again: 3\n" in run("backup", "restore", "daily", "--passphrase-file", "secret.txt").out
    assert api.asked[-1].json["passphrase"] == "correct horse battery"
    assert run("backup", "restore", "plain", "--passphrase-file", "secret.txt").code == 2


def test_a_wrong_passphrase_is_exit_6(api, run):
    api.on("GET", "/backups/daily", {**BACKUP, "secrets": "encrypted"})
    api.on_lines("POST", "/backups/daily/restore", {"error": {"code": "BACKUP_PASSPHRASE", "message": "no"}})

    assert run("backup", "restore", "daily", env={"AGENTAINER_BACKUP_PASSPHRASE": "wrong"}).code == 6


def test_a_restore_that_is_refused(api, run):
    api.on("GET", "/backups/daily", BACKUP)
    api.on_lines("POST", "/backups/daily/restore", {"error": {"code": "AGENT_RUNNING", "message": "'web' is running"}})

    assert run("backup", "restore", "--in-place", "daily").code == 4


def archive(handler, _asked):
    send(handler, 200, b"abc" * 100_000)


def test_export_writes_a_file_that_only_its_owner_reads(api, run, tmp_path):
    api.on_raw("GET", "/backups/daily/archive", archive)

    ran = run("backup", "export", "daily", "out.tar.gz")

    assert ran == (0, "Backup daily exported to out.tar.gz (300 kB)\n", "")
    assert (tmp_path / "out.tar.gz").read_bytes() == b"abc" * 100_000
    assert stat.S_IMODE(os.stat(tmp_path / "out.tar.gz").st_mode) == 0o600
    assert not (tmp_path / "out.tar.gz.partial").exists()


def test_export_to_standard_output(api, start):
    api.on_raw("GET", "/backups/daily/archive", archive)

    out, err = start("backup", "export", "daily", "-").communicate(timeout=20)

    assert (out, err) == (b"abc" * 100_000, b"")


def test_export_does_not_write_over_a_file(api, run, tmp_path):
    api.on_raw("GET", "/backups/daily/archive", archive)
    (tmp_path / "out.tar.gz").write_text("mine")

    assert run("backup", "export", "daily", "out.tar.gz").code == 4
    assert (tmp_path / "out.tar.gz").read_text() == "mine"
    assert run("backup", "export", "--force", "daily", "out.tar.gz").code == 0
    assert (tmp_path / "out.tar.gz").stat().st_size == 300_000


def test_an_export_that_breaks_off_leaves_nothing(api, run, tmp_path):
    def broken(handler, _asked):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"abc")
        handler.close_connection = True

    api.on_raw("GET", "/backups/daily/archive", broken)
    api.on("GET", "/backups/gone/archive", status=404, code="BACKUP_NOT_FOUND", message="Backup not found: gone")

    assert run("backup", "export", "daily", "out.tar.gz").code == 5
    assert run("backup", "export", "gone", "out.tar.gz").code == 3
    assert not list(tmp_path.glob("out*"))


def test_import_sends_the_file(api, run, start, tmp_path):
    api.on_lines("POST", "/backups/import", {"result": BACKUP})
    (tmp_path / "in.tar.gz").write_bytes(b"abc" * 100_000)

    ran = run("backup", "import", "in.tar.gz")

    assert ran.code == 0
    assert ran.out.splitlines()[0] == "Backup backup-1763712345-3fa91c imported successfully"
    assert api.asked[0].body == b"abc" * 100_000
    assert "no such file" in run("backup", "import", "nothing").err.lower()


def test_delete_asks_first(api, run):
    api.on("DELETE", "/backups/daily", {"id": BACKUP["id"], "name": "daily"})

    assert run("backup", "delete", "daily").code == 2
    assert not api.asked
    ran = run("backup", "delete", "--force", "daily")
    assert ran.out == "Backup backup-1763712345-3fa91c deleted successfully\n"


def test_the_examples_of_the_page_parse():
    page = (cli_reference.PAGE.parent / "backups.md").read_text()
    lines = re.findall(r"^    (agentainerctl .*)$", page, re.MULTILINE)

    assert len(lines) > 10
    for line in lines:
        parse(line)
