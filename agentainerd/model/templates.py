"""Templates of jobs: named prompts with parameters, and what becomes of a request that names one."""

import re
from collections.abc import Mapping

import msgspec

from agentainerd import defaults
from agentainerd.errors import InvalidParameter
from agentainerd.model.bridges import Bridge
from agentainerd.model.jobs import JobLimits, JobRequest

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PLACE = re.compile(r"\$(?:(\$)|\{([^{}\n]*)\})")


class Parameter(msgspec.Struct, frozen=True):
    """What a template wants to be told. `default` None: it must be told. `choices`: it is one of these; any where empty."""

    description: str = ""
    default: str | None = None
    choices: tuple[str, ...] = ()


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """A named prompt. `prompt` and the values of `env` have places for parameters (`${name}`; `$$` is a dollar sign).

    The other fields are those of a `JobRequest`, for requests that do not say them themselves. `file`: where it was read from.
    """

    name: str
    prompt: str
    file: str = ""
    description: str = ""
    parameters: dict[str, Parameter] = {}
    image: str = ""
    command: tuple[str, ...] = ()
    bridge: Bridge | None = None
    env: dict[str, str] = {}
    limits: JobLimits = JobLimits()
    retention: float | None = None
    priority: int = 0
    model: str = ""

    def expand(self, request: JobRequest) -> JobRequest:
        """Return what a request that names this template asks for: what it says itself beats what the template says.

        Parameters are put in as they are, once: a `${...}` in one of them is text.

        Raises:
            InvalidParameter: a parameter that is unknown, missing or none of its choices; or a prompt beside the template's.
        """
        if request.prompt:
            raise InvalidParameter(
                "prompt", f"is given beside the template {self.name!r}", hint="give it as a parameter, or leave one out"
            )
        values = self._values(request.template.parameters if request.template else {})
        given = {
            name: _fill(f"env.{name}", text, values, defaults.MAX_JOB_VARIABLE_CHARS) for name, text in self.env.items()
        }
        return msgspec.structs.replace(
            request,
            prompt=_fill("the prompt", self.prompt, values, defaults.MAX_RUN_INPUT_CHARS),
            image=request.image or self.image,
            command=request.command or self.command,
            bridge=request.bridge if request.bridge is not None else self.bridge,
            env={**given, **request.env},
            limits=_merged(request.limits, self.limits),
            retention=request.retention if request.retention is not None else self.retention,
            priority=request.priority or self.priority,
            model=request.model or self.model,
        )

    def _values(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the value of each parameter."""
        known = ", ".join(self.parameters) or "none"
        for name in given:
            if name not in self.parameters:
                raise InvalidParameter(
                    f"template.parameters.{name[:64]}",
                    f"is no parameter of {self.name!r}",
                    hint=f"it takes {known}",
                )
        return {name: self._value(name, parameter, given) for name, parameter in self.parameters.items()}

    def _value(self, name: str, parameter: Parameter, given: Mapping[str, str]) -> str:
        field = f"template.parameters.{name}"
        value = given.get(name, parameter.default)
        if value is None:
            hint = f"it is: {parameter.description}" if parameter.description else None
            raise InvalidParameter(field, f"is missing, and {self.name!r} needs it", hint=hint)
        if parameter.choices and value not in parameter.choices:
            raise InvalidParameter(field, f"{value[:100]!r} is none of {', '.join(parameter.choices)}")
        return value


def places(text: str) -> list[str]:
    """Return the names that stand in the places of a text, in order."""
    return [place[2] for place in _PLACE.finditer(text) if not place[1]]


def _fill(field: str, text: str, values: Mapping[str, str], limit: int) -> str:
    """Return a text with its places filled, in one pass."""
    if len(text) + sum(len(values[name]) for name in places(text)) > limit:
        raise InvalidParameter("template.parameters", f"make {field} longer than {limit} characters")
    return _PLACE.sub(lambda place: "$" if place[1] else values[place[2]], text)


def _merged(first: JobLimits, second: JobLimits) -> JobLimits:
    """Return limits of which each is the first's, or the second's where that has none."""
    said = {name: value for name, value in msgspec.structs.asdict(first).items() if value is not None}
    return msgspec.structs.replace(second, **said)
