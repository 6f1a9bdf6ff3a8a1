"""The dashboard in examples/grafana asks for series that there are, and its panels lie beside each other."""

import itertools
import json
import re
from pathlib import Path

import pytest

from agentainerd.model.model_usage import Usage
from agentainerd.store.model_usage import Spent
from tests.unit.api.test_exposition import Scrape

PATH = Path(__file__).parents[2] / "examples/grafana/agentainer.json"
pytestmark = pytest.mark.redis


@pytest.fixture(autouse=True)
def a_call(request):
    """Series of models are there once one was called."""
    if "world" in request.fixturenames:
        usage = request.getfixturevalue("world").services.models.usage
        usage.add(Spent("2026-11-21", request.getfixturevalue("world").up("caller").id, "p/m", Usage(calls=1)))


@pytest.fixture(scope="module")
def dashboard():
    return json.loads(PATH.read_text())


def expressions(dashboard):
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [*asked, *(str(each["query"]) for each in dashboard["templating"]["list"])]


def test_every_series_that_it_asks_for_is_served(dashboard, world):
    world.up()
    world.supervisor.loop("duty", lambda now: 0, 1000.0)
    asked = {name for text in expressions(dashboard) for name in re.findall(r"\b(?:agentainer|process)_\w+", text)}

    assert len(asked) > 25
    assert asked <= Scrape(world).names()


def test_every_label_that_it_asks_for_is_served(dashboard, world):
    world.up()
    served = {name for sample in Scrape(world).samples() for name in sample.labels}

    for text in expressions(dashboard):
        by = {label for group in re.findall(r"by \(([^)]*)\)", text) for label in group.replace(" ", "").split(",")}
        matched = set(re.findall(r"[{,](\w+)=~?\"", text))
        assert by | matched <= served | {"loop"}, text


def test_outcomes_that_it_names_are_those_that_are_counted(dashboard, world):
    world.up()
    counted = {sample.labels.get("outcome") for sample in Scrape(world).samples()}

    for text in expressions(dashboard):
        for group in re.findall(r'outcome=~"([^"]+)"', text):
            assert set(group.split("|")) <= counted


def test_panels_have_ids_of_their_own_and_do_not_overlap(dashboard):
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)

    def cells(panel):
        place = panel["gridPos"]
        columns, rows = range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        return set(itertools.product(columns, rows))

    for one, other in itertools.combinations(panels, 2):
        assert not cells(one) & cells(other), (one["title"], other["title"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels)


def test_every_panel_uses_the_data_source_that_was_chosen(dashboard):
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
