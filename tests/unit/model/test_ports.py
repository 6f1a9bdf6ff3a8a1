"""Named ports: names that are part of a host's, numbers that are ports, and labels that say both."""

import pytest

from agentainerd.errors import InvalidParameter
from agentainerd.model.ports import LABEL, check_ports, labelled, token_variable


def test_a_label_names_ports():
    assert labelled({LABEL: "gui=6080 jupyter=8888"}) == {"gui": 6080, "jupyter": 8888}
    assert labelled({LABEL: "gui=6080,"}) == {"gui": 6080}
    assert labelled({}) == {}


@pytest.mark.parametrize(
    "text", ["gui", "gui=", "gui=x", "gui=0", "gui=65536", "gui=999999", "Gui=1", "a.b=1", "gui=٣", "=1"]
)
def test_a_label_that_names_none_is_refused(text):
    with pytest.raises(InvalidParameter) as error:
        labelled({LABEL: text})
    assert error.value.field == LABEL


@pytest.mark.parametrize("name", ["", "G", "1a", "a_b", "a.b", "-a", "a-", "a" * 33, "a/b"])
def test_names_are_parts_of_a_hosts_name(name):
    with pytest.raises(InvalidParameter, match="not a port's name"):
        check_ports({name: 1})


def test_there_are_not_too_many():
    check_ports({f"p{number}": 80 for number in range(16)})
    with pytest.raises(InvalidParameter, match="at most 16"):
        check_ports({f"p{number}": 80 for number in range(17)})


def test_a_port_has_a_variable():
    assert token_variable("gui") == "AGENT_PORT_GUI_TOKEN"
    assert token_variable("a-b2") == "AGENT_PORT_A_B2_TOKEN"
