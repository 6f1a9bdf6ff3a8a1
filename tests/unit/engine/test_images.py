from agentainerd.engine.images import from_inspect, from_message
from agentainerd.model.containers import Progress


def test_only_tcp_ports_are_exposed_in_order():
    found = {
        "Id": "sha256:1",
        "RepoTags": ["a:1", "a:latest"],
        "Config": {"ExposedPorts": {"9000/tcp": {}, "80/tcp": {}, "53/udp": {}, "7000": {}}},
        "Created": "2026-01-02T03:04:05Z",
        "Size": 12,
    }

    image = from_inspect(found)

    assert image.exposed == (80, 7000, 9000)
    assert image.tags == ("a:1", "a:latest")
    assert (image.size, image.created_at > 1.7e9) == (12, True)


def test_an_image_may_say_next_to_nothing():
    image = from_inspect({"Id": "sha256:1", "RepoTags": None, "Config": None})

    assert (image.exposed, image.tags, image.size) == ((), (), 0)


def test_a_message_of_a_pull_has_its_layer_and_bytes():
    said = {"status": "Downloading", "id": "abc", "progressDetail": {"current": 5, "total": 10}, "progress": "[=> ]"}

    assert from_message(said) == Progress(text="Downloading", id="abc", status="Downloading", current=5, total=10)


def test_a_message_of_a_build_has_its_text():
    assert from_message({"stream": "Step 1/2 : FROM x\n"}) == Progress(text="Step 1/2 : FROM x\n")
