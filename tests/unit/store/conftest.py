from tests.fakes.stores import folder, host, own_store, store  # noqa: F401 - fixtures
