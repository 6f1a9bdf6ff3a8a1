"""What the container's environment says. It is read once, at the start; nothing else looks at it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agentainer_runtime.endpoints import SCRIPT_PREFIX, Endpoint
from agentainer_runtime.environment import for_tools
from agentainer_runtime.policy import Policy
from agentainer_runtime.source import Source


class InvalidSetting(ValueError):
    """A variable has a value that it can't have; the text says which one, and what it may be."""


@dataclass(frozen=True)
class Settings:
    """How this container is to work.

    Attributes:
        workspace: the volume: the repository, and the runtime's own state.
        model: what is asked for where a run names none; "" where nothing was set. `script/FILE` plays a file of turns.
        instructions: the system prompt's second half, from the one who deployed the agent.
        max_steps: calls of the model in one run, where the run sets no limit.
        context_tokens: what the model takes; the conversation is compressed before it gets there.
        model_timeout_s: longest silence of a model. tool_timeout_s: longest time of one call of a tool.
        action_timeout_s: longest time of one action of a job.
        retry_pause_s: before a model is asked a second time; it doubles each time. keep_runs: how many ended runs stay readable.
        screen: WIDTHxHEIGHT of the desktop; "": there is none.
        scripts: folders in which `script/FILE` is looked for. gateway_url: the daemon's, "" where there is none.
    """

    workspace: Path
    port: int = 8080
    name: str = "agent"
    model: str = ""
    instructions: str = ""
    max_steps: int = 15
    context_tokens: int = 128_000
    is_compressing: bool = True
    model_timeout_s: float = 120.0
    tool_timeout_s: float = 600.0
    action_timeout_s: float = 300.0
    retry_pause_s: float = 0.5
    keep_runs: int = 500
    scripts: tuple[Path, ...] = ()
    gateway_url: str = ""
    screen: str = ""
    source: Source | None = None
    clone_timeout_s: float = 180.0
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Settings":
        """Read them.

        Raises:
            InvalidSetting: a variable can't be understood.
        """
        workspace = Path(environment.get("AGENT_WORKSPACE", "/workspace"))
        try:
            Policy.from_environment(environment)  # the tools read it themselves: what is wrong has to be said before
            source = Source.from_environment(environment)
        except ValueError as error:
            raise InvalidSetting(str(error)) from error
        folders = environment.get("AGENT_SCRIPTS", f"/scripts:{workspace}").split(":")
        built_in = Path(__file__).parent / "scripts"
        return cls(
            workspace=workspace,
            port=int(_number(environment, "PORT", 8080, low=0, high=65535)),
            name=environment.get("AGENT_NAME") or "agent",
            model=environment.get("AGENT_MODEL", ""),
            instructions=_instructions(environment),
            max_steps=int(_number(environment, "AGENT_MAX_STEPS", 15, low=1, high=10_000)),
            context_tokens=int(_number(environment, "AGENT_CONTEXT_TOKENS", 128_000, low=1000, high=1e8)),
            is_compressing=_switch(environment, "AGENT_COMPRESSION"),
            model_timeout_s=_number(environment, "AGENT_MODEL_TIMEOUT_S", 120, low=0.1, high=86_400),
            tool_timeout_s=_number(environment, "AGENT_TOOL_TIMEOUT_S", 600, low=0.1, high=86_400),
            action_timeout_s=_number(environment, "AGENT_ACTION_TIMEOUT_S", 300, low=0.1, high=86_400),
            retry_pause_s=_number(environment, "AGENT_RETRY_PAUSE_S", 0.5, low=0, high=60),
            keep_runs=int(_number(environment, "AGENT_KEEP_RUNS", 500, low=1, high=1e6)),
            scripts=(*(Path(folder) for folder in folders if folder), built_in),
            gateway_url=environment.get("AGENTAINER_URL", ""),
            screen=_screen(environment),
            source=source,
            clone_timeout_s=_number(environment, "AGENT_CLONE_TIMEOUT_S", 180, low=1, high=86_400),
            environment=dict(environment),
        )

    @property
    def is_script(self) -> bool:
        """No model is asked: turns of a file are played."""
        return self.model.startswith(SCRIPT_PREFIX)

    def endpoint(self, model: str, key: str = "") -> Endpoint:
        """Return where `model` is asked for, with `key` instead of the environment's where one is given.

        Raises:
            NoEndpoint: the environment has neither address nor key.
        """
        return Endpoint.of(self.environment, model, key)

    def tool_environment(self) -> dict[str, str]:
        """Return the environment of processes that tools start: it is made from a list, keys are not on it."""
        return for_tools(self.environment, self.workspace)


def _instructions(environment: Mapping[str, str]) -> str:
    path = environment.get("AGENT_INSTRUCTIONS_FILE")
    if not path:
        return environment.get("AGENT_INSTRUCTIONS", "")
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(f"AGENT_INSTRUCTIONS_FILE: cannot read {path}: {error}") from error


def _screen(environment: Mapping[str, str]) -> str:
    text = environment.get("AGENT_SCREEN", "off")
    if text == "off":
        return ""
    found = re.fullmatch(r"([1-9][0-9]{2,3})x([1-9][0-9]{2,3})", text)
    if not found:
        raise InvalidSetting(f"AGENT_SCREEN: {text!r} is neither WIDTHxHEIGHT, as 1280x800, nor off")
    return text


def _number(environment: Mapping[str, str], name: str, default: float, *, low: float, high: float) -> float:
    text = environment.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = low - 1
    if not low <= value <= high:
        raise InvalidSetting(f"{name}: {text!r} is not a number from {low:g} to {high:g}")
    return value


def _switch(environment: Mapping[str, str], name: str) -> bool:
    text = environment.get(name) or "on"
    if text not in ("on", "off"):
        raise InvalidSetting(f"{name}: {text!r} is neither on nor off")
    return text == "on"
