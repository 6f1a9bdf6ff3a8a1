from agentainerd.engine.docker_engine import DockerEngine


def test_making_an_engine_connects_to_nothing():
    engine = DockerEngine("unix:///no/such/socket")
    events = engine.events()

    engine.close()
    engine.close()

    assert list(events) == []
