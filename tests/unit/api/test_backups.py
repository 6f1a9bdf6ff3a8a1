"""`/backups` as its handlers are."""

import json

import pytest


@pytest.fixture
def client(world):
    return world.client()


def lines(client, method, path, **options):
    with client.open(path, method=method, **options) as answer:
        return answer.status_code, [json.loads(line) for line in answer.get_data().splitlines() if line]


def made(client, name="daily", **body):
    status, said = lines(client, "POST", "/backups", json={"name": name, **body})
    assert status == 200, said
    return said[-1]["result"]


def test_making_listing_showing_checking_deleting(client, world):
    world.deploy()

    backup = made(client, description="x", agents=["web"])

    listed = client.call("GET", "/backups")[1]["data"]
    assert [each["id"] for each in listed] == [backup["id"]]
    assert "omissions" not in listed[0]
    assert client.call("GET", f"/backups/{backup['id']}")[1]["data"] == backup
    assert lines(client, "POST", "/backups/daily/verify")[1][-1]["result"]["sha256"] == backup["sha256"]
    assert client.call("DELETE", "/backups/daily") == (
        200,
        {
            "success": True,
            "message": f"Backup {backup['id']} deleted successfully",
            "data": {"id": backup["id"], "name": "daily"},
        },
    )
    assert client.call("GET", "/backups/daily")[0] == 404


def test_restoring(client, world):
    world.deploy()
    made(client)

    status, said = lines(client, "POST", "/backups/daily/restore")

    assert (status, said[-1]["result"]["agents"][0]["name"]) == (200, "web-restored")
    status, said = lines(client, "POST", "/backups/daily/restore", json={"agents": ["x"], "in_place": True})
    assert (status, said[-1]["error"]["code"]) == (200, "AGENT_NOT_IN_BACKUP")
    assert client.call("POST", "/backups/daily/restore", json={"as_new": True})[0] == 400


def test_exporting_and_importing(client):
    backup = made(client)
    with client.get("/backups/daily/archive") as answer:
        data = answer.get_data()
        assert answer.headers["Content-Type"] == "application/gzip"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{backup["id"]}.tar.gz"'
        assert int(answer.headers["Content-Length"]) == len(data) == backup["size"]
    assert lines(client, "POST", "/backups/import", data=data)[1][-1]["error"]["code"] == "BACKUP_EXISTS"
    client.call("DELETE", "/backups/daily")

    assert lines(client, "POST", "/backups/import", data=data)[1][-1]["result"] == backup
    assert lines(client, "POST", "/backups/import", data=b"x")[1][-1]["error"]["code"] == "BACKUP_DAMAGED"


@pytest.mark.parametrize("body", [{}, {"name": "a/b"}, {"name": "a", "agents": "web"}, {"name": "a", "what": 1}])
def test_a_body_that_is_wrong_is_400(client, body):
    assert client.call("POST", "/backups", json=body)[0] == 400


def test_an_agent_that_is_not_there_is_404(client):
    status, said = client.call("POST", "/backups", json={"name": "a", "agents": ["nobody"]})

    assert (status, said["code"]) == (404, "AGENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "x"), ("DELETE", "x"), ("POST", "x/verify"), ("GET", "x/archive"), ("GET", "..%2fx")]
)
def test_a_backup_that_is_not_there_is_404(client, method, path):
    assert client.call(method, f"/backups/{path}")[0] == 404
