import pytest

from agentainerd import defaults
from agentainerd.errors import InvalidParameter
from agentainerd.model.bridges import Bridge
from agentainerd.model.jobs import JobLimits, JobRequest, TemplateUse
from agentainerd.model.templates import Parameter, Template, places


def made(prompt: str = "do ${what}", **fields) -> Template:
    fields.setdefault("parameters", {name: Parameter() for name in places(prompt)})
    return Template(name="t", prompt=prompt, **fields)


def wanted(**parameters: str) -> JobRequest:
    return JobRequest(template=TemplateUse("t", parameters))


@pytest.mark.parametrize(
    "value",
    [
        "this",
        "",
        "${what}",
        "$what $$ $(id)",
        "two\nlines",
        "\"quotes\" and 'quotes'",
        "${other}",
        "\\1 \\g<0>",
        "ключ",
    ],
)
def test_a_parameter_is_put_in_as_it_is(value):
    assert made("do ${what}!").expand(wanted(what=value)).prompt == f"do {value}!"


def test_two_parameters_do_not_fill_each_others_places():
    request = wanted(a="${b}", b="${a}")

    assert made("${a}${b}${a}").expand(request).prompt == "${b}${a}${b}"


@pytest.mark.parametrize(
    ("prompt", "filled"),
    [
        ("costs $$5", "costs $5"),
        ("$${what}", "${what}"),
        ("$$${what}", "$x"),
        ("$HOME $(id) $5 $", "$HOME $(id) $5 $"),
        ("${what}${what}", "xx"),
    ],
)
def test_dollars_are_what_they_are_but_for_two(prompt, filled):
    assert made(prompt, parameters={"what": Parameter()}).expand(wanted(what="x")).prompt == filled


@pytest.mark.parametrize(
    ("given", "problem", "hint"),
    [
        ({}, "template.parameters.what: is missing, and 't' needs it", "it is: the deed"),
        ({"what": "a", "wat": "b"}, "template.parameters.wat: is no parameter of 't'", "it takes what, how"),
        ({"what": "a", "how": "x"}, "template.parameters.how: 'x' is none of well, badly", None),
    ],
)
def test_parameters_that_cannot_be_are_errors_that_name_them(given, problem, hint):
    how = Parameter(default="well", choices=("well", "badly"))
    template = made("${what} ${how}", parameters={"what": Parameter("the deed"), "how": how})

    with pytest.raises(InvalidParameter) as failure:
        template.expand(wanted(**given))

    assert (failure.value.message, failure.value.hint) == (problem, hint)


def test_a_prompt_beside_a_template_is_an_error():
    with pytest.raises(InvalidParameter, match="is given beside the template 't'"):
        made("x").expand(JobRequest(prompt="y", template=TemplateUse("t")))


def test_a_prompt_that_parameters_make_too_long_is_never_made():
    template = made("${what}" * 1000)

    with pytest.raises(InvalidParameter, match="longer than"):
        template.expand(wanted(what="x" * (defaults.MAX_RUN_INPUT_CHARS // 500)))


def test_a_variable_that_parameters_make_too_long_is_never_made():
    template = made("x", parameters={"what": Parameter()}, env={"A": "${what}" * 1000})

    with pytest.raises(InvalidParameter, match=r"env\.A longer than"):
        template.expand(wanted(what="x" * 1000))


def test_what_a_request_says_beats_what_its_template_says():
    template = made(
        "x",
        image="mine",
        command=("a",),
        bridge=Bridge.EXEC,
        env={"A": "1", "B": "${p}"},
        parameters={"p": Parameter(default="2")},
        limits=JobLimits(pids=10, wall_s=60.0, network=True),
        retention=5.0,
        priority=3,
        model="m",
    )

    plain = template.expand(wanted())
    said = template.expand(
        JobRequest(
            template=TemplateUse("t"), image="other", command=("b",), bridge=Bridge.NATIVE, env={"A": "9"}, model="n",
            limits=JobLimits(pids=20, network=False), retention=0.0, priority=-1, after=4.0,
        )
    )  # fmt: skip

    assert (plain.image, plain.command, plain.bridge, plain.model) == ("mine", ("a",), Bridge.EXEC, "m")
    assert (plain.env, plain.retention, plain.priority) == ({"A": "1", "B": "2"}, 5.0, 3)
    assert plain.limits == template.limits
    assert (said.image, said.command, said.bridge, said.model) == ("other", ("b",), Bridge.NATIVE, "n")
    assert (said.env, said.retention, said.priority, said.after) == ({"A": "9", "B": "2"}, 0.0, -1, 4.0)
    assert said.limits == JobLimits(pids=20, wall_s=60.0, network=False)
    assert said.template == TemplateUse("t")
