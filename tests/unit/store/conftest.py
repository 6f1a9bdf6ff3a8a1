from tests.fakes.stores import folder, own_store, store  # noqa: F401 - fixtures
