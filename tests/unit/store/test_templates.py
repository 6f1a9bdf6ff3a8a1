import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import lists, sampled_from

from agentainerd import defaults
from agentainerd.model.bridges import Bridge
from agentainerd.model.jobs import JobLimits
from agentainerd.model.templates import Parameter
from agentainerd.store.templates import TemplateFolder

EXAMPLES = Path(__file__).parents[3] / "examples" / "templates"


@pytest.fixture
def problems_of(tmp_path):
    def read(text: str | bytes) -> list[str]:
        (tmp_path / "t.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        found = TemplateFolder().read(str(tmp_path))
        assert (found.templates == {}) == bool(found.problems)
        assert found.broken == ({"t": found.problems} if found.problems else {})
        return [problem.removeprefix(f"{tmp_path}/t.yaml") for problem in found.problems]

    return read


def test_a_file_is_a_template(tmp_path):
    (tmp_path / "t.yaml").write_text("""
description: does things
prompt: |
  do ${what} ${times} $$
parameters:
  what:
  times: {description: how often, default: 1.10, choices: [1.10, yes]}
  mood: {required: false}
image: debian:12
command: [sh, -c, "exit 3"]
bridge: exec
env: {A: 010, B: "${mood}"}
limits: {memory: 512Mi, cpus: 500m, pids: 20, disk: 1Gi, wall_s: 10m, network: false, steps: 5, cost_usd: 0.5}
retention: 7d
priority: -2
model: openai/x
""")

    template = TemplateFolder().read(str(tmp_path)).templates["t"]

    assert (template.name, template.description, template.prompt) == ("t", "does things", "do ${what} ${times} $$\n")
    assert template.parameters == {
        "what": Parameter(),
        "times": Parameter("how often", "1.10", ("1.10", "yes")),
        "mood": Parameter(default=""),
    }
    assert (template.image, template.command, template.bridge) == ("debian:12", ("sh", "-c", "exit 3"), Bridge.EXEC)
    assert template.env == {"A": "010", "B": "${mood}"}
    assert template.limits == JobLimits(512 * 2**20, 0.5, 20, 2**30, 600.0, network=False, steps=5, cost_usd=0.5)
    assert (template.retention, template.priority, template.model) == (7 * 86400.0, -2, "openai/x")
    assert template.file == str(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("prompt: x\nparametres: {}\n", ":2: parametres: no such key: did you mean parameters?"),
        ("prompt: x\nzzz: 1\n", ":2: zzz: no such key: there are name, description, prompt"),
        ("prompt: x\nprompt: y\n", ":2: prompt: is there twice, first on line 1"),
        ("description: x\n", ":1: prompt: is missing"),
        ("prompt: '  '\n", ":1: prompt: is missing"),
        ("name: Über\nprompt: x\n", ":1: name: 'Über' is not one"),
        ("prompt: [x]\n", ":1: prompt: is not text"),
        ("- prompt\n", ":1: is not a template"),
        ("", ":1: is not a template"),
        ("prompt: x\n\tname: y", ":2: is not YAML"),
        (b"prompt: \xff\n", ": is not UTF-8 text"),
        ("a: " + "[" * 1200, ": is nested too deeply"),
        ("prompt: do ${wat}\nparameters:\n  what:\n", ":1: prompt: ${wat} is no parameter: did you mean what?"),
        ("prompt: echo ${HOME}\n", ":1: prompt: ${HOME} is no parameter: write $${HOME} for the text"),
        ("prompt: x\nenv:\n  A: ${b}\n", ":3: env.A: ${b} is no parameter"),
        ("prompt: x\nparameters:\n  a:\n", ":3: parameters.a: is used nowhere: write ${a} in the prompt"),
        ("prompt: x\nparameters: [a]\n", ":2: parameters: has keys of its own"),
        ("prompt: ${a}\nparameters:\n  a: text\n", ":3: parameters.a: has keys of its own"),
        (
            "prompt: ${a}\nparameters:\n  a:\n    defualt: x\n",
            ":4: parameters.a.defualt: no such key: did you mean default?",
        ),
        (
            "prompt: ${a}\nparameters:\n  a: {default: x, required: true}\n",
            ":3: parameters.a: has a default, and is required",
        ),
        ("prompt: ${a}\nparameters:\n  a: {required: maybe}\n", ":3: parameters.a.required: is neither true nor false"),
        (
            "prompt: ${a}\nparameters:\n  a: {default: x, choices: [y]}\n",
            ":3: parameters.a: its default is none of its",
        ),
        ("prompt: ${a}\nparameters:\n  a: {choices: y}\n", ":3: parameters.a.choices: is not a list"),
        ("prompt: x\nparameters:\n  1a:\n", ":3: parameters.1a: is not a name"),
        ("prompt: x\nbridge: http\n", ":2: bridge: 'http' is none of native, agui"),
        ("prompt: x\nbridge: acp\n", ":2: bridge: acp needs an agent that stays"),
        ("prompt: x\npriority: high\n", ":2: priority: is not a whole number"),
        ("prompt: x\npriority: 11\n", ":2: priority: 11 is not between -10 and 10"),
        ("prompt: x\nretention: long\n", ":2: retention: 'long' is not a duration"),
        ("prompt: x\nimage: a b\n", ":2: image: 'a b' is not an image's name"),
        ("prompt: x\nenv: {JOB_ID: 1}\n", ":2: env: JOB_ID is set by agentainerd"),
        ("prompt: x\nenv: {A: }\n", ":2: env.A: is not text"),
        ("prompt: x\nlimits:\n  memroy: 1\n", ":3: limits.memroy: no such key: did you mean memory?"),
        ("prompt: x\nlimits:\n  memory: much\n", ":3: limits.memory: 'much' is not a size"),
        ("prompt: x\nlimits:\n  cost_usd: much\n", ":3: limits.cost_usd: is not a number"),
        ("prompt: x\nlimits:\n  pids: 1\n", ":3: limits.pids: 1 is not between"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line(problems_of, text, problem):
    found = problems_of(text)

    assert len(found) == 1
    assert found[0].startswith(problem)


def test_all_that_is_wrong_is_told_at_once(problems_of):
    assert len(problems_of("name: A B\nprompt: [x]\nfoo: 1\nlimits: {pids: x}\n")) == 4


def test_one_broken_file_leaves_the_others_alone(tmp_path):
    (tmp_path / "a.yaml").write_text("prompt: x\n")
    (tmp_path / "b.yml").write_text("name: c\nprompt: x\n")
    (tmp_path / "bad.yaml").write_text("promt: x\n")
    (tmp_path / "c.yaml").write_text("prompt: x\n")
    (tmp_path / "notes.txt").write_text("?")
    (tmp_path / ".hidden.yaml").write_text("?")
    (tmp_path / "gone.yaml").symlink_to("/nowhere")
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")

    found = TemplateFolder().read(str(tmp_path))

    assert sorted(found.templates) == ["a", "c"]
    assert sorted(found.broken) == ["bad", "c", "folder", "pipe"]
    assert f"{tmp_path}/c.yaml: is named 'c', as {tmp_path}/b.yml is" in found.problems
    assert f"{tmp_path}/pipe.yaml: is not a file" in found.problems


def test_what_is_too_much_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(defaults, "MAX_TEMPLATES", 2)
    monkeypatch.setattr(defaults, "MAX_TEMPLATE_BYTES", 50)
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text("prompt: " + ("x" * 100 if name == "b" else "x"))

    found = TemplateFolder().read(str(tmp_path))

    assert list(found.templates) == ["a"]
    assert found.problems == [
        f"{tmp_path}/b.yaml: is larger than 50 bytes",
        f"{tmp_path}: has more than 2 files: the rest is not read",
    ]


def test_files_are_read_again_when_they_changed_and_only_then(tmp_path):
    path = tmp_path / "t.yaml"
    path.write_text("prompt: one\n")
    folder = TemplateFolder()
    first = folder.read(str(tmp_path))

    assert folder.read(str(tmp_path)) is first
    path.write_text("prompt: two\n")
    assert folder.read(str(tmp_path)).templates["t"].prompt == "two"
    (tmp_path / "u.yaml").write_text("prompt: x\n")
    assert sorted(folder.read(str(tmp_path)).templates) == ["t", "u"]
    path.unlink()
    assert sorted(folder.read(str(tmp_path)).templates) == ["u"]


def test_a_folder_that_is_not_there_has_nothing_and_one_that_cannot_be_read_is_a_problem(tmp_path):
    assert TemplateFolder().read(str(tmp_path / "none")).problems == []
    (tmp_path / "file").touch()
    assert TemplateFolder().read(str(tmp_path / "file")).problems == [
        f"{tmp_path}/file: cannot be read: Not a directory"
    ]


def test_the_examples_are_templates():
    found = TemplateFolder().read(str(EXAMPLES))

    assert found.problems == []
    assert sorted(found.templates) == ["csv-to-json", "review", "summarize"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=lists(
        sampled_from(
            ["prompt", "parameters", "limits", "env", "choices", "default", ": ", "- ", "\n", "  ", "{", "}", "[", "]", "${a}", "$$",
             "a", "1e999", ".inf", "0x7fffffffffffffffff", "&x ", "*x", "<<", "!!python/object:os.system ", "'", '"', "|", ">", "\t",
             "~", "true", "wall_s", "retention", "cost_usd", "999999999999999999999999d", "\0", "ß"]
        ),
        max_size=40,
    )
)  # fmt: skip
def test_whatever_a_file_has_it_is_a_template_or_a_problem(tmp_path, pieces):
    (tmp_path / "t.yaml").write_text("prompt: x\n" + "".join(pieces))

    found = TemplateFolder().read(str(tmp_path))

    assert bool(found.templates) != bool(found.problems)
    assert all(problem.startswith(f"{tmp_path}/t.yaml") for problem in found.problems)
