import pytest

from agentainerd.errors import Conflict, NotFound
from agentainerd.model.jobs import JobRequest, TemplateUse
from agentainerd.services.templates import TemplateService


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "greet.yaml").write_text("prompt: greet ${whom}\nparameters: {whom: {default: all}}\n")
    (tmp_path / "bad.yaml").write_text("promt: x\n")
    return tmp_path


def test_a_request_with_a_template_becomes_what_it_says(folder):
    service = TemplateService(str(folder))

    request = service.expand(JobRequest(template=TemplateUse("greet", {"whom": "${whom}"})))

    assert request.prompt == "greet ${whom}"
    assert service.expand(plain := JobRequest(prompt="x")) is plain


def test_what_is_not_there_and_what_is_broken_is_told_apart(folder):
    service = TemplateService(str(folder))

    with pytest.raises(NotFound) as failure:
        service.get("gret")
    assert (failure.value.code, failure.value.hint) == ("TEMPLATE_NOT_FOUND", "there are greet")
    with pytest.raises(Conflict) as broken:
        service.expand(JobRequest(template=TemplateUse("bad")))
    assert broken.value.code == "TEMPLATE_BROKEN"
    assert f"{folder}/bad.yaml:1: promt: no such key: did you mean prompt?" in broken.value.message
    with pytest.raises(NotFound) as failure:
        TemplateService(str(folder / "none")).get("x")
    assert failure.value.hint == f"put one into {folder}/none/NAME.yaml (docs/templates.md)"


def test_a_problem_is_logged_once_and_again_when_it_comes_back(folder, caplog):
    service = TemplateService(str(folder))
    for _ in range(3):
        service.list()
    assert len(caplog.records) == 1
    (folder / "bad.yaml").write_text("prompt: x\n")
    service.list()
    (folder / "bad.yaml").write_text("promt: x # again\n")

    service.list()

    assert len(caplog.records) == 2


def test_another_folder_counts_from_the_next_request_on(folder, tmp_path):
    service = TemplateService(str(folder / "none"))
    assert service.list() == ([], [])

    service.folder = str(folder)

    assert [template.name for template in service.list()[0]] == ["greet"]
