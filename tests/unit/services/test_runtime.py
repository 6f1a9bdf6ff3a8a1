import pytest

from agentainerd import defaults
from agentainerd.config import RuntimeConfig
from agentainerd.model.agents import Agent, AgentSpec
from agentainerd.services.runtime import RuntimeAgents

CONFIG = RuntimeConfig(
    git_user_name="Ada", git_user_email="ada@example.org", github_token="ghp_x", memory_limit=5, cpu_limit=7
)


def agent(**fields):
    return Agent(id="agent-0123456789abcdef", spec=AgentSpec(name="coder", image="x", **fields), created_at=0)


def test_only_agents_of_the_image_are_given_gits_variables_and_the_token_only_those_with_a_repository():
    agents = RuntimeAgents(CONFIG)

    assert agents.environment(agent()) == {}
    assert agents.environment(agent(runtime=True)) == {"GIT_USER_NAME": "Ada", "GIT_USER_EMAIL": "ada@example.org"}
    assert agents.environment(agent(runtime=True, env_vars={"GITHUB_REPO": "a/b"}))["GITHUB_TOKEN"] == "ghp_x"
    assert RuntimeAgents(RuntimeConfig()).environment(agent(runtime=True, env_vars={"GITHUB_REPO": "a/b"})) == {}


@pytest.mark.parametrize(("is_runtime", "limits"), [(True, (5, 7)), (False, (defaults.MEMORY_BYTES, 0))])
def test_limits_that_were_not_given_fit_the_kind_of_agent(is_runtime, limits):
    agents = RuntimeAgents(CONFIG)

    assert (agents.memory_limit(is_runtime=is_runtime), agents.cpu_limit(is_runtime=is_runtime)) == limits
