"""`/images` as its handlers are."""

import json

import pytest

from tests.fakes.docker import context
from tests.fakes.programs import Program


@pytest.fixture
def client(world):
    return world.client()


def lines(client, method, path, **options):
    with client.open(path, method=method, **options) as answer:
        return answer.status_code, [json.loads(line) for line in answer.get_data().splitlines() if line]


def test_a_build_streams_its_progress_and_ends_with_the_result(client):
    data = context({"Dockerfile": b"FROM echo\nARG A\n"}).getvalue()

    status, said = lines(
        client, "POST", "/images/build?tag=mine:1&arg=A=b=c", data=data, content_type="application/x-tar"
    )

    assert status == 200
    assert all("progress" in line for line in said[:-1])
    assert set(said[-1]["result"]) == {"image", "image_id"}


def test_a_build_that_fails_says_so_in_its_last_line(client):
    data = context({"Dockerfile": b"FROM echo\nRUN exit 3\n"}).getvalue()

    status, said = lines(client, "POST", "/images/build?tag=mine:1", data=data)

    assert status == 200
    assert said[-1]["error"]["code"].isupper()


@pytest.mark.parametrize(
    "query", ["", "tag=UPPER", "tag=a&dockerfile=../x", "tag=a&arg=novalue", "tag=a&arg=1=x", "tag=a&tag=b", "tga=a"]
)
def test_what_is_asked_of_a_build_is_checked_before_anything_is_read(client, query):
    assert client.call("POST", f"/images/build?{query}", data=b"")[0] == 400


def test_a_pull_of_what_is_there_is_its_result_at_once(client, world):
    status, said = lines(client, "POST", "/images/pull", json={"image": "echo"})

    assert (status, [set(line) for line in said]) == (200, [{"result"}])


def test_a_pull_tells_progress(client, world):
    world.engine.registry["far/away:1"] = Program()

    status, said = lines(client, "POST", "/images/pull", json={"image": "far/away:1"})

    assert status == 200
    assert set(said[0]["progress"]) == {"text", "id", "status", "current", "total"}
    assert said[-1]["result"]["image"] == "far/away:1"


@pytest.mark.parametrize(
    "body", [{}, {"image": 7}, {"image": "echo", "policy": "odd"}, {"image": "--x"}, {"image": "echo", "x": 1}]
)
def test_what_is_asked_of_a_pull_is_checked(client, body):
    assert client.call("POST", "/images/pull", json=body)[0] == 400


def test_an_image_is_found_by_its_name_and_told_with_its_ports(client, world):
    world.engine.add_image("library/nginx:1", Program(exposed=(80,)))

    for path in ("/images/library/nginx:1", "/images/library%2Fnginx:1"):
        status, said = client.call("GET", path)
        assert (status, said["data"]["exposed"]) == (200, [80])
    assert client.call("GET", "/images/nobody")[0] == 404
