"""Errors by meaning."""

from agentainerd import errors


def test_a_missing_thing_has_a_code_of_its_own():
    missing = errors.NotFound("agent", "web")

    assert (missing.code, missing.message, missing.details) == (
        "AGENT_NOT_FOUND",
        "Agent not found: web",
        {"ref": "web"},
    )


def test_a_wrong_parameter_names_its_field():
    wrong = errors.InvalidParameter("memory", "'x' is not a size", hint="write it as 512M")

    assert (wrong.message, wrong.hint, wrong.details) == (
        "memory: 'x' is not a size",
        "write it as 512M",
        {"field": "memory"},
    )


def test_every_error_has_a_code():
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]

    assert len(classes) > 10
    assert all(each.default_code.isupper() for each in classes)
