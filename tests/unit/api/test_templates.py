"""`/api/v1/templates`: what there is to make jobs from."""


def test_templates_are_listed_and_shown(make_world, tmp_path):
    (tmp_path / "a.yaml").write_text(
        "description: d\nprompt: p ${x}\nparameters: {x: {description: e, choices: [q]}}\nenv: {KEY: s3cret}\nlimits: {pids: 9}\n"
    )
    (tmp_path / "b.yaml").write_text("promt: x\n")
    client = make_world(jobs={"templates_dir": str(tmp_path)}).client()

    status, listed = client.call("GET", "/api/v1/templates")
    _, shown = client.call("GET", "/api/v1/templates/a")

    summary = {
        "name": "a",
        "description": "d",
        "parameters": {"x": {"description": "e", "required": True, "default": None, "choices": ["q"]}},
        "file": f"{tmp_path}/a.yaml",
    }
    assert (status, listed["data"]) == (200, [summary])
    assert listed["problems"] == [f"{tmp_path}/b.yaml:1: promt: no such key: did you mean prompt?"]
    assert shown["data"] == {
        **summary, "prompt": "p ${x}", "image": "", "command": [], "bridge": None, "env": ["KEY"], "limits": {"pids": 9},
        "retention": None, "priority": 0, "model": "",
    }  # fmt: skip
    assert "s3cret" not in str(shown)


def test_a_template_that_is_not_there_and_one_that_is_broken(make_world, tmp_path):
    (tmp_path / "b.yaml").write_text("promt: x\n")
    client = make_world(jobs={"templates_dir": str(tmp_path)}).client()

    missing, said = client.call("GET", "/api/v1/templates/a")
    broken, why = client.call("GET", "/api/v1/templates/b")

    assert (missing, said["code"]) == (404, "TEMPLATE_NOT_FOUND")
    assert (broken, why["code"]) == (409, "TEMPLATE_BROKEN")
    assert "did you mean prompt?" in why["error"]
