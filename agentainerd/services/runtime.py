"""What agents of the runtime image have that others do not: limits that fit them, and what Git is told."""

from agentainerd import defaults
from agentainerd.config import RuntimeConfig
from agentainerd.model.agents import Agent

REPOSITORY_VARIABLE = "GITHUB_REPO"


class RuntimeAgents:
    """Stateless."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config

    def memory_limit(self, *, is_runtime: bool) -> int:
        """Return the bytes of an agent that was deployed without a limit."""
        return self._config.memory_limit if is_runtime else defaults.MEMORY_BYTES

    def cpu_limit(self, *, is_runtime: bool) -> int:
        """Return the nano-CPUs of an agent that was deployed without a limit; 0: no limit."""
        return self._config.cpu_limit if is_runtime else 0

    def environment(self, agent: Agent) -> dict[str, str]:
        """Return what an agent finds in its environment. A token only where it has a repository to use it for."""
        spec, config = agent.spec, self._config
        if not spec.runtime:
            return {}
        found = {"GIT_USER_NAME": config.git_user_name, "GIT_USER_EMAIL": config.git_user_email}
        if spec.env_vars.get(REPOSITORY_VARIABLE):
            found["GITHUB_TOKEN"] = config.github_token
        return {name: value for name, value in found.items() if value}
