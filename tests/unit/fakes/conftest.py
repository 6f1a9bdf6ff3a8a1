from tests.fakes.stores import folder, own_store  # noqa: F401
